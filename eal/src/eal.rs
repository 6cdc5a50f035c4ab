//! The combination of memory, lcores and clock.

use std::sync::Arc;

use crate::args::EalArgs;
use crate::clock::Clock;
use crate::cores::{self, LcoreMap};
use crate::error::{Error, Result};
use crate::memory::{self, Domain, Memory, MemoryConfig};

/// The configuration of an [`Eal`].
///
/// ```
/// use linecard_eal::{Eal, EalConfig, MemoryConfig};
///
/// let memory = MemoryConfig::default().limit(64 << 20);
/// let eal = Eal::with(EalConfig::default().memory(memory))?;
/// assert_eq!(eal.lcores().main().cores.len(), 1);
/// # Ok::<(), linecard_eal::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EalConfig {
    /// How memory is allocated.
    pub memory: MemoryConfig,
    /// The lcores; each core is checked. `None` for one lcore on each core that the calling thread may run
    /// on.
    pub lcores: Option<LcoreMap>,
}

crate::setters!(EalConfig {
    memory: MemoryConfig,
    lcores: impl Into<Option<LcoreMap>> as into,
});

/// The environment of one application: memory, lcores, clock. It uses no globals; several may exist in one
/// process. Creating one allocates no memory, starts no thread and binds no thread.
///
/// ```
/// use linecard_eal::{Eal, EalArgs};
///
/// let (args, _) = EalArgs::parse(["--in-memory", "-m", "64"]).unwrap();
/// let eal = Eal::new(&args).unwrap();
/// let zone = eal.default_domain().zone("ring", 4096, 64).unwrap();
/// println!("{} on {}", eal.memory().usage(), eal.lcores());
/// # drop(zone);
/// ```
#[derive(Debug)]
pub struct Eal {
    memory: Memory,
    default_domain: Arc<Domain>,
    lcores: LcoreMap,
    clock: Clock,
}

impl Eal {
    /// Creates the environment that the arguments request. Without `-l` there is one lcore for each core that
    /// the calling thread may run on.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core), [`Error::MainLcore`](crate::Error::MainLcore),
    /// [`Error::BeyondMachine`](crate::Error::BeyondMachine), [`Error::System`](crate::Error::System).
    pub fn new(args: &EalArgs) -> Result<Self> {
        let lcores = match args.main_lcore {
            Some(main) => Some(lcores_or_all(args.lcores.clone())?.with_main(main)?),
            None => args.lcores.clone(),
        };
        let config = args.memory_config();
        let there = memory::total_bytes();
        match config.limit {
            Some(asked) if asked > there => Err(Error::BeyondMachine { asked, there }),
            _ => Self::with(EalConfig { memory: config, lcores }),
        }
    }

    /// Creates the environment of a configuration.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core), [`Error::System`](crate::Error::System).
    pub fn with(config: EalConfig) -> Result<Self> {
        crate::gate::register_fences();
        let lcores = lcores_or_all(config.lcores)?;
        lcores.check(&cores::allowed())?;
        let memory = Memory::new(config.memory)?;
        let default_domain = memory.domain("default")?;
        let clock = Clock::calibrated();
        tracing::debug!(lcores = %lcores, hz = clock.hz(), invariant = clock.invariant(), "machine");
        Ok(Self { memory, default_domain, lcores, clock })
    }

    /// The memory of this instance.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The domain for users that need no domain of their own.
    #[must_use]
    pub fn default_domain(&self) -> Arc<Domain> {
        Arc::clone(&self.default_domain)
    }

    /// The lcores of this instance.
    #[must_use]
    pub fn lcores(&self) -> &LcoreMap {
        &self.lcores
    }

    /// The clock of this instance.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

/// The requested lcores, or one on each core that the calling thread may run on.
fn lcores_or_all(asked: Option<LcoreMap>) -> Result<LcoreMap> {
    asked.map_or_else(|| LcoreMap::of_cores(&cores::allowed()), Ok)
}
