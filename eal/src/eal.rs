//! Everything together.

use std::sync::Arc;

use crate::args::EalArgs;
use crate::clock::Clock;
use crate::cores::{self, LcoreMap};
use crate::error::{Error, Result};
use crate::memory::{self, Domain, Memory, MemoryConfig};

/// What an [`Eal`] is made from.
///
/// ```
/// use linecard_eal::{Eal, EalConfig, LcoreMap, MemoryConfig, cores};
///
/// let lcores = LcoreMap::of_cores(&cores::allowed()).unwrap();
/// let eal = Eal::with(EalConfig { memory: MemoryConfig::default(), lcores }).unwrap();
/// assert_eq!(eal.lcores().main().cores.len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalConfig {
    /// How memory is had.
    pub memory: MemoryConfig,
    /// Which lcores there are; each core is checked.
    pub lcores: LcoreMap,
}

/// The machine as one user of it sees it: memory, lcores, clock. No globals are behind it; several may live in one process.
/// Making one takes no memory, starts no thread and binds no thread.
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
    /// The machine as the arguments ask for it. Without `-l` there is one lcore for each core the calling thread may run on.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core), [`Error::MainLcore`](crate::Error::MainLcore),
    /// [`Error::BeyondMachine`](crate::Error::BeyondMachine), [`Error::System`](crate::Error::System).
    pub fn new(args: &EalArgs) -> Result<Self> {
        let lcores = match &args.lcores {
            Some(lcores) => lcores.clone(),
            None => LcoreMap::of_cores(&cores::allowed())?,
        };
        let lcores = match args.main_lcore {
            Some(main) => lcores.with_main(main)?,
            None => lcores,
        };
        let config = args.memory_config();
        let there = memory::total_bytes();
        match config.limit {
            Some(asked) if asked > there => Err(Error::BeyondMachine { asked, there }),
            _ => Self::with(EalConfig { memory: config, lcores }),
        }
    }

    /// The machine as configured.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core), [`Error::System`](crate::Error::System).
    pub fn with(config: EalConfig) -> Result<Self> {
        config.lcores.check(&cores::allowed())?;
        let memory = Memory::new(config.memory)?;
        let default_domain = memory.domain("default")?;
        let clock = Clock::calibrated();
        tracing::debug!(lcores = %config.lcores, hz = clock.hz(), invariant = clock.invariant(), "machine");
        Ok(Self { memory, default_domain, lcores: config.lcores, clock })
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The domain for whoever does not need one of their own.
    #[must_use]
    pub fn default_domain(&self) -> Arc<Domain> {
        Arc::clone(&self.default_domain)
    }

    /// Its lcores.
    #[must_use]
    pub fn lcores(&self) -> &LcoreMap {
        &self.lcores
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }
}
