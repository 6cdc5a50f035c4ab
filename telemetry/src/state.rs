//! The data for telemetry: ports, pools, memory, lcores.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use linecard_eal::memory::Memory;
use linecard_eal::{Eal, LcoreMap};
use linecard_mempool::Pool;
use linecard_pmd::offload::Offloads;
use linecard_pmd::{Port, PortConfig, PortControl};

use crate::command::{self, Command};
use crate::error::TelemetryError;
use crate::http::Endpoint;
use crate::server::Socket;
use crate::value::Value;
use crate::{folder, openmetrics, text};

/// The data of a port. Telemetry does not keep a port alive: a port that has stopped is reported as stopped.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default().packets(1024))?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver]);
/// use linecard_telemetry::PortEntry;
/// let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let entry = PortEntry::of(&port);
/// assert!(entry.name == "net_null0" && entry.started());
/// port.stop();
/// assert!(!entry.started());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct PortEntry {
    /// The instance name (`net_vhost0`).
    pub name: String,
    /// The number of receive queues.
    pub rx_queues: u16,
    /// The number of transmit queues.
    pub tx_queues: u16,
    /// The enabled offloads.
    pub offloads: Offloads,
    control: Option<Weak<dyn PortControl>>,
}

impl PortEntry {
    /// The data of a started port.
    #[must_use]
    pub fn of(port: &Port) -> Self {
        let count = |queues: usize| u16::try_from(queues).unwrap_or(u16::MAX);
        Self {
            name: port.control.name().to_owned(),
            rx_queues: count(port.rx.len()),
            tx_queues: count(port.tx.len()),
            offloads: Offloads::default(),
            control: Some(Arc::downgrade(&port.control)),
        }
    }

    /// The data of a port with a configuration; `control` is `Some` while it is started.
    #[must_use]
    pub fn configured(name: &str, config: &PortConfig, control: Option<&Arc<dyn PortControl>>) -> Self {
        Self {
            name: name.to_owned(),
            rx_queues: config.rx_queues,
            tx_queues: config.tx_queues,
            offloads: config.offloads,
            control: control.map(Arc::downgrade),
        }
    }

    /// Whether the port is started.
    #[must_use]
    pub fn started(&self) -> bool {
        self.control().is_some()
    }

    pub(crate) fn control(&self) -> Option<Arc<dyn PortControl>> {
        self.control.as_ref()?.upgrade()
    }
}

impl std::fmt::Debug for PortEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortEntry").field("name", &self.name).field("started", &self.started()).finish()
    }
}

/// The time use of an lcore, in cycles of the time-stamp counter; DPDK 23.03's `/eal/lcore/usage`.
///
/// ```
/// use linecard_telemetry::LcoreUsage;
/// let usage = LcoreUsage { lcore: 1, busy_cycles: 30, total_cycles: 120 };
/// assert_eq!(usage.busy_cycles * 100 / usage.total_cycles, 25);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LcoreUsage {
    /// The number of the lcore.
    pub lcore: u32,
    /// The cycles of rounds that moved packets.
    pub busy_cycles: u64,
    /// All cycles since the lcore started to poll.
    pub total_cycles: u64,
}

/// Packets that the application dropped on their way to a transmit queue.
///
/// ```
/// let drops = linecard_telemetry::Drops { port: 0, queue: 1, cause: "tx_full", packets: 3 };
/// assert_eq!(drops.cause, "tx_full");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// The port that was to send them.
    pub port: u16,
    /// The transmit queue.
    pub queue: u16,
    /// The cause in one word.
    pub cause: &'static str,
    /// The number of packets since the program started to count.
    pub packets: u64,
}

type DropCounts = Arc<dyn Fn() -> Vec<Drops> + Send + Sync>;
type Usages = Arc<dyn Fn() -> Vec<LcoreUsage> + Send + Sync>;

/// The data for one answer, copied, so that no lock is held while ports are queried.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) memory: Memory,
    pub(crate) lcores: LcoreMap,
    pub(crate) hz: u64,
    pub(crate) ports: BTreeMap<u16, PortEntry>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) arguments: (Vec<String>, Vec<String>),
    pub(crate) usages: Option<Usages>,
    pub(crate) drops: Option<DropCounts>,
    pub(crate) commands: BTreeMap<String, Command>,
}

impl State {
    /// The time use of each polling lcore, if counted.
    pub(crate) fn usages(&self) -> Vec<LcoreUsage> {
        self.usages.as_ref().map_or(Vec::new(), |usages| usages())
    }

    /// The packets that the application dropped.
    pub(crate) fn drops(&self) -> Vec<Drops> {
        self.drops.as_ref().map_or(Vec::new(), |drops| drops())
    }
}

/// The data that a program reports. A clone is another handle to the same data.
///
/// ```
/// # use linecard_eal::{Eal, EalArgs};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let prefix = format!("--file-prefix=lc-doc-tell-{}", std::process::id());
/// # let eal = Eal::new(&EalArgs::parse([prefix.as_str(), "--no-huge"])?.0)?;
/// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// use linecard_telemetry::{Telemetry, Value};
/// let telemetry = Telemetry::new(&eal);
/// telemetry.add_pool(&pool);
/// telemetry.add_command("/app/sessions", "Returns how many sessions there are.", |_| Value::Number(3))?;
/// assert_eq!(telemetry.answer("/app/sessions"), Value::object([("/app/sessions", Value::Number(3))]));
/// let socket = telemetry.serve(&eal.memory().config().name)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Telemetry(Arc<Mutex<Arc<State>>>);

impl Telemetry {
    /// Creates telemetry for the memory and the lcores of `eal`, without ports.
    #[must_use]
    pub fn new(eal: &Eal) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(State {
            memory: eal.memory().clone(),
            lcores: eal.lcores().clone(),
            hz: eal.clock().hz(),
            ports: BTreeMap::new(),
            pools: Vec::new(),
            arguments: (std::env::args().collect(), Vec::new()),
            usages: None,
            drops: None,
            commands: command::built_in(),
        }))))
    }

    pub(crate) fn of(eal: &Eal, ports: &[&Port], pools: &[&Pool]) -> Self {
        let telemetry = Self::new(eal);
        let entries = (0..).zip(ports).map(|(id, port)| (id, PortEntry::of(port)));
        telemetry.set_ports(entries);
        pools.iter().for_each(|pool| telemetry.add_pool(pool));
        telemetry
    }

    pub(crate) fn state(&self) -> Arc<State> {
        // No code can panic while a change is incomplete.
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut state));
    }

    /// Sets all ports by number, replacing those of earlier calls.
    pub fn set_ports(&self, ports: impl IntoIterator<Item = (u16, PortEntry)>) {
        let ports = ports.into_iter().collect();
        self.change(|state| state.ports = ports);
    }

    /// Adds a pool, whose memory stays allocated while this exists.
    pub fn add_pool(&self, pool: &Pool) {
        self.change(|state| state.pools.push(pool.clone()));
    }

    /// Sets the command line for `/eal/params` and `/eal/app_params`.
    pub fn set_arguments(&self, eal: Vec<String>, application: Vec<String>) {
        self.change(|state| state.arguments = (eal, application));
    }

    /// Sets the source of the lcores' time use.
    pub fn set_lcore_usage(&self, usages: impl Fn() -> Vec<LcoreUsage> + Send + Sync + 'static) {
        self.change(|state| state.usages = Some(Arc::new(usages)));
    }

    /// Sets the source of the application's own drops, because a transmit queue is full or by a rule of the
    /// application.
    pub fn set_drops(&self, drops: impl Fn() -> Vec<Drops> + Send + Sync + 'static) {
        self.change(|state| state.drops = Some(Arc::new(drops)));
    }

    /// Adds a command of the application. It gets the text after the first comma of a request and runs on the
    /// thread that answers; if it panics, the answer is null.
    ///
    /// # Errors
    /// `path` does not begin with a slash, has a comma, or is already a command.
    pub fn add_command(
        &self,
        path: &str,
        help: &str,
        run: impl Fn(Option<&str>) -> Value + Send + Sync + 'static,
    ) -> Result<(), TelemetryError> {
        if !path.starts_with('/') || path.len() < 2 || path.contains(',') {
            let text =
                format!("{path:?} cannot be a command; give a path such as /app/name, without a comma");
            return Err(TelemetryError::Refused(text));
        }
        if self.state().commands.contains_key(path) {
            let text = format!("{path} is a command already; give another name");
            return Err(TelemetryError::Refused(text));
        }
        let added = Command::new(help, move |_, parameters| run(parameters));
        self.change(|state| drop(state.commands.insert(path.to_owned(), added)));
        Ok(())
    }

    /// The answer to a request, such as `/ethdev/stats,0`.
    #[must_use]
    pub fn answer(&self, request: &str) -> Value {
        command::answer(&self.state(), request)
    }

    /// Listens for DPDK's telemetry clients in the directory for a `--file-prefix`; see [`Socket`].
    ///
    /// # Errors
    /// The directory, the socket or its thread cannot be created.
    pub fn serve(&self, prefix: &str) -> Result<Socket, TelemetryError> {
        let open = || Socket::open(self.clone(), &folder::create(prefix)?);
        // A program that is ending may remove the empty directory at the same time.
        let made = open().or_else(|_| open())?;
        folder::sweep();
        Ok(made)
    }

    /// Listens in a directory of the caller, which is not removed. This user can connect, if permitted to
    /// enter it.
    ///
    /// # Errors
    /// The socket or its thread cannot be created.
    pub fn serve_in(&self, folder: &Path) -> Result<Socket, TelemetryError> {
        Socket::open(self.clone(), folder)
    }

    /// Returns all counters as OpenMetrics text.
    #[must_use]
    pub fn open_metrics(&self) -> String {
        text::of(&self.state())
    }

    /// Offers [`open_metrics`](Self::open_metrics) at `HOST:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn serve_metrics(&self, address: &str) -> Result<Endpoint, TelemetryError> {
        let telemetry = self.clone();
        openmetrics::serve(address, move || telemetry.open_metrics())
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("ports", &self.state().ports).finish_non_exhaustive()
    }
}
