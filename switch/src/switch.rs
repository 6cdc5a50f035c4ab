//! The switch: its ports, its workers, and the operations on them while frames pass.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use linecard_capture::Hub;
use linecard_eal::{Lcore, Workers};
use linecard_mempool::Pool;
use linecard_pmd::{PortControl, ProbeContext, Registry, Running};

use crate::api::{
    Cause, Code, PortAdded, PortCounters, PortInfo, PortKind, PortSpec, PortState, Problem, Stats,
};
use crate::fdb::Table;
use crate::forward::{Engine, Inbox};
use crate::keep::{KeptAddresses, Store};
use crate::opening::{Changing, check_mac, free_id, needs_fd, state_of};
use crate::placement::Queues;
use crate::port::Losses;
use crate::relations::Relations;
use crate::rules::{Defaults, Rules};
use crate::span::Sessions;
use crate::telemetry::OpenPort;
use crate::usage::{Meter, Usage};
use crate::worker::{Worker, WorkerHandle};

/// The maximum number of ports of a switch.
pub const MAX_PORTS: usize = 4096;
/// The number of frames that may wait for another worker.
const INBOX: usize = 4096;
/// How long a worker may take to return queues before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The configuration of a switch.
#[non_exhaustive]
pub struct SwitchConfig {
    /// The drivers that its ports may use.
    pub drivers: Registry,
    /// The memory of packets and rings, and how long opening a port may wait for its peer.
    pub context: ProbeContext,
    /// The packet pool of the switch. Ports whose device may keep the packets it is given have a pool of their own.
    pub pool: Pool,
    /// The hub in which capture clients find the ports, by their numbers.
    pub captures: Hub,
    /// The lcores of the workers, one each.
    pub lcores: Vec<Lcore>,
    /// The maximum number of addresses.
    pub addresses: usize,
    /// Seconds after which an address that does not send is removed.
    pub age_seconds: u32,
    /// Answers ARP requests and neighbour solicitations for the addresses that ports were given (`mac` and `ips`) instead of flooding them.
    pub neigh_suppress: bool,
    /// Limits for ports that specify none.
    pub defaults: Defaults,
    /// The store of port states, for the case that this process is killed.
    pub store: Option<Arc<Store>>,
}

impl SwitchConfig {
    /// A switch for 65 536 addresses, each removed after five minutes without a frame. It answers no neighbour requests and keeps no port
    /// states.
    #[must_use]
    pub fn new(drivers: Registry, context: ProbeContext, pool: Pool, lcores: Vec<Lcore>) -> Self {
        Self {
            drivers,
            context,
            pool,
            captures: Hub::new(),
            lcores,
            addresses: 65_536,
            age_seconds: 300,
            neigh_suppress: false,
            defaults: Defaults::default(),
            store: None,
        }
    }
}

linecard_eal::setters!(SwitchConfig {
    captures: Hub,
    addresses: usize,
    age_seconds: u32,
    neigh_suppress: bool,
    defaults: Defaults,
    store: impl Into<Option<Arc<Store>>> as into,
});

/// A port with its device and its counters.
pub(crate) struct Entry {
    pub(crate) id: u16,
    pub(crate) spec: PortSpec,
    pub(crate) device: String,
    /// `None` while the port waits for something it needs to be opened.
    pub(crate) open: Option<Open>,
    /// The port is being opened or closed by a thread that does not hold the lock on the ports; others leave it alone.
    pub(crate) changing: bool,
    /// The counters of the predecessor.
    pub(crate) earlier: PortCounters,
}

impl Entry {
    pub(crate) fn new(id: u16, spec: &PortSpec) -> Self {
        let (spec, device, earlier) = (spec.clone(), String::new(), PortCounters::default());
        Self { id, spec, device, open: None, changing: false, earlier }
    }
}

pub(crate) struct Open {
    pub(crate) control: Arc<dyn PortControl>,
    pub(crate) running: Box<dyn Running>,
    /// The drop counters of each worker.
    pub(crate) losses: Vec<Arc<Losses>>,
    /// The receive queues, and the worker of each.
    pub(crate) queues: Queues,
    /// The link was up when it was last checked.
    pub(crate) up: Arc<AtomicBool>,
    /// The mirroring and sharing relations that the workers were told of this port.
    pub(crate) relations: Mutex<Relations>,
}

/// A learning switch with its threads, which end when it is dropped.
///
/// ```
/// use linecard_eal::{Eal, EalArgs};
/// use linecard_mempool::{Pool, PoolConfig};
/// use linecard_net_ring::RingDriver;
/// use linecard_pmd::{ProbeContext, Registry};
/// use linecard_switch::api::{PortKind, PortSpec};
/// use linecard_switch::{Switch, SwitchConfig};
///
/// let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
/// let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// let context =
///     ProbeContext::new(eal.memory().clone(), eal.default_domain(), std::time::Duration::from_secs(1));
/// let (drivers, lcores) = (Registry::new(&[&RingDriver]), vec![eal.lcores().main().clone()]);
/// let switch = Switch::start(SwitchConfig::new(drivers, context, pool, lcores).addresses(1000))?;
/// let spec = PortSpec::new("a", PortKind::Vdev { device: "net_ring0".into() });
/// assert!(switch.add(&spec, None)?.created);
/// assert!(!switch.add(&spec, None)?.created);
/// assert!(switch.remove("a")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Switch {
    pub(crate) config: SwitchConfig,
    pub(crate) table: Arc<Table>,
    pub(crate) remotes: Vec<WorkerHandle>,
    /// The time accounting of each worker.
    pub(crate) usages: Arc<[Arc<Usage>]>,
    /// Not locked while a request opens or closes a device, because that may wait for the device's peer.
    ports: Mutex<BTreeMap<String, Entry>>,
    /// Notified when a port is no longer [changing](Entry::changing).
    pub(crate) changed: Condvar,
    /// The mirroring sessions. Locked after `ports`.
    sessions: Mutex<Sessions>,
    /// The workers of the receive queues, by port key, for each port of which a queue was moved; also for ports that are not open now.
    pub(crate) moved: Mutex<BTreeMap<String, Vec<u16>>>,
    /// The number of ports removed because their containers no longer exist.
    pub(crate) swept: AtomicU64,
    start: Instant,
    /// What the table's clock showed at `start`: after an upgrade, the predecessor's time.
    pub(crate) clock: AtomicU32,
    pub(crate) kept_addresses: Mutex<KeptAddresses>,
    /// Dropped last: the workers end once `remotes` are dropped.
    _workers: Workers,
}

impl Switch {
    /// Starts the workers; there are no ports yet.
    ///
    /// # Errors
    /// A worker cannot be started.
    pub fn start(config: SwitchConfig) -> Result<Self, linecard_eal::Error> {
        let table = Arc::new(Table::new(config.addresses).holding());
        let inbox = |_| Inbox { packets: Arc::new(ArrayQueue::new(INBOX)), wake: Arc::default() };
        let inboxes: Vec<_> = config.lcores.iter().map(inbox).collect();
        let (mut workers, mut remotes, start) = (Workers::new(), Vec::new(), Instant::now());
        let mut usages = Vec::new();
        for (lcore, inbox) in config.lcores.iter().zip(&inboxes) {
            let (remote, mailbox) = WorkerHandle::new(Arc::clone(&inbox.wake));
            let engine = Engine::new(Arc::clone(&table), inboxes.clone(), config.neigh_suppress);
            let (meter, usage) = Meter::new(lcore.id.0);
            let worker = Worker::new(engine, mailbox, Arc::clone(&inbox.packets), start, meter);
            workers.launch(lcore, move |stop| worker.run(stop))?;
            remotes.push(remote);
            usages.push(usage);
        }
        Ok(Self {
            config,
            table,
            remotes,
            usages: usages.into(),
            ports: Mutex::default(),
            changed: Condvar::new(),
            sessions: Mutex::default(),
            moved: Mutex::default(),
            swept: AtomicU64::new(0),
            start,
            clock: AtomicU32::new(0),
            kept_addresses: Mutex::default(),
            _workers: workers,
        })
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this port is not being opened or closed, and returns the ports.
    pub(crate) fn ports_when_settled(&self, key: &str) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        let changing =
            |ports: &mut BTreeMap<String, Entry>| ports.get(key).is_some_and(|entry| entry.changing);
        self.changed.wait_while(self.ports(), changing).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a port, or finds it attached.
    ///
    /// # Errors
    /// The port is invalid, exists with other parameters, or cannot be opened.
    pub fn add(&self, spec: &PortSpec, fd: Option<OwnedFd>) -> Result<PortAdded, Problem> {
        let rules = Rules::of(spec, self.config.defaults)?;
        self.check_workers(spec)?;
        if fd.is_some() && !matches!(spec.kind, PortKind::VhostUserFd { .. } | PortKind::Tap { .. }) {
            let details = "send none, or ask for a port of type vhost-user-fd or tap";
            return Err(Problem::new(Code::InvalidParams, "this type of port takes no descriptor", details));
        }
        let mut ports = self.ports_when_settled(&spec.key);
        let (id, created) = match ports.get_mut(&spec.key) {
            Some(entry) if entry.spec != *spec => return Err(there_already(&spec.key)),
            Some(entry) if entry.open.is_some() || (fd.is_none() && needs_fd(&spec.kind)) => {
                return Ok(PortAdded { created: false, port: self.info(entry) });
            }
            Some(entry) => {
                entry.changing = true;
                (entry.id, false)
            }
            None => (self.reserve(&mut ports, spec, &rules, fd.is_some())?, true),
        };
        drop(ports);
        let mut change = Changing { switch: self, key: &spec.key, stays: !created };
        let mut opened = Entry::new(id, spec);
        self.open(&mut opened, rules, fd)?;
        change.stays = true;
        let port = change.settle(opened).ok_or_else(|| no_port(&spec.key))?;
        Ok(PortAdded { created, port })
    }

    /// Restores a port of an earlier run; a port that cannot be opened now waits.
    ///
    /// # Errors
    /// The port is invalid, or there is another one with that key.
    pub fn restore(&self, spec: &PortSpec) -> Result<PortState, Problem> {
        let fd = match &spec.kind {
            PortKind::VhostUserFd { origin: Some(origin) } => origin
                .listen()
                .inspect_err(|error| {
                    tracing::warn!("port {}: its socket cannot be made anew: {error}", spec.key)
                })
                .ok(),
            _ => None,
        };
        self.restore_with(spec, fd)
    }

    /// As [`restore`](Self::restore), with a descriptor that is open already: a listening socket, or a queue of the port's tap.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn restore_with(&self, spec: &PortSpec, fd: Option<OwnedFd>) -> Result<PortState, Problem> {
        let rules = Rules::of(spec, self.config.defaults)?;
        let mut ports = self.ports();
        if ports.contains_key(&spec.key) {
            let message = format!("port '{}' is there already", spec.key);
            let details = "take it out of the configuration or of the state";
            return Err(Problem::new(Code::Exists, message, details));
        }
        check_mac(&ports, spec, &rules, self.config.defaults)?;
        let mut entry = Entry::new(free_id(&ports)?, spec);
        if (fd.is_some() || !needs_fd(&spec.kind))
            && let Err(problem) = self.open(&mut entry, rules, fd)
        {
            tracing::warn!("port {} waits: {problem}", spec.key);
        }
        let state = state_of(&entry);
        ports.insert(spec.key.clone(), entry);
        self.relate(&ports, &self.sessions());
        Ok(state)
    }

    /// Detaches a port; returns `false` if there is none.
    ///
    /// # Errors
    /// A worker does not return its queues.
    pub fn remove(&self, key: &str) -> Result<bool, Problem> {
        self.remove_if(key, |_| true)
    }

    /// As [`remove`](Self::remove), if `is` accepts the port.
    pub(crate) fn remove_if(&self, key: &str, is: impl Fn(&PortSpec) -> bool) -> Result<bool, Problem> {
        let mut ports = self.ports_when_settled(key);
        let Some(entry) = ports.get_mut(key).filter(|entry| is(&entry.spec)) else { return Ok(false) };
        entry.changing = true;
        let mut leaving = Entry { open: entry.open.take(), ..Entry::new(entry.id, &entry.spec) };
        drop(ports);
        let _change = Changing { switch: self, key, stays: false };
        self.forget_moves(key);
        self.close(&mut leaving).map(|()| true)
    }

    /// Returns every port.
    #[must_use]
    pub fn list(&self) -> Vec<PortInfo> {
        self.ports().values().map(|entry| self.info(entry)).collect()
    }

    /// The packet pool of the switch.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.config.pool
    }

    /// The open ports, for telemetry.
    pub(crate) fn open_ports(&self) -> Vec<OpenPort> {
        let of = |entry: &Entry| {
            let open = entry.open.as_ref()?;
            let rx = u16::try_from(open.queues.len()).unwrap_or(u16::MAX);
            Some(OpenPort::new(entry.id, &entry.spec.key, (rx, rx.max(entry.spec.queues)), open))
        };
        self.ports().values().filter_map(of).collect()
    }

    /// Returns the parameters of every port, so that they can be requested again.
    #[must_use]
    pub fn specs(&self) -> Vec<PortSpec> {
        self.ports().values().map(|entry| entry.spec.clone()).collect()
    }

    /// The keys of all ports.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.ports().keys().cloned().collect()
    }

    /// Returns one port.
    ///
    /// # Errors
    /// There is no port with that key.
    pub fn show(&self, key: &str) -> Result<PortInfo, Problem> {
        self.ports().get(key).map(|entry| self.info(entry)).ok_or_else(|| no_port(key))
    }

    pub(crate) fn info(&self, entry: &Entry) -> PortInfo {
        let mut counters = entry.earlier.clone();
        if let Some(open) = &entry.open {
            let stats = open.control.stats();
            // The port's transmissions are the switch's receptions.
            counters.rx_packets += stats.ipackets;
            counters.rx_bytes += stats.ibytes;
            counters.tx_packets += stats.opackets;
            counters.tx_bytes += stats.obytes;
            for losses in &open.losses {
                losses.add_to(&mut counters.drops);
                counters.tx_direct += losses.straight();
            }
            counters.drops.add(Cause::RxDevice, stats.imissed + stats.ierrors + stats.rx_nombuf);
            counters.drops.add(Cause::TxDevice, stats.oerrors);
        }
        PortInfo {
            id: entry.id,
            state: state_of(entry),
            device: entry.device.clone(),
            addresses: self.table.count(entry.id).into(),
            counters,
            spec: entry.spec.clone(),
        }
    }

    /// Returns all counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            uptime_seconds: self.start.elapsed().as_secs(),
            workers: u16::try_from(self.remotes.len()).unwrap_or(u16::MAX),
            addresses: self.table.len() as u64,
            swept_ports: self.swept.load(Ordering::Relaxed),
            ports: self.list(),
        }
    }

    /// The time that the table's clock should show, in seconds.
    pub(crate) fn seconds(&self) -> u32 {
        let here = u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.clock.load(Ordering::Relaxed).saturating_add(here)
    }

    /// Does the periodic work, to be called about ten times a second: the clock, ageing, links that went down.
    pub fn look_after(&self) {
        let seconds = self.seconds();
        if seconds != self.table.now() {
            self.table.tick(seconds);
            self.table.age(self.config.age_seconds);
            self.look_at_held();
            self.keep_addresses();
        }
        for entry in self.ports().values() {
            let id = entry.id;
            let Some(open) = &entry.open else { continue };
            let up = open.control.link().up;
            if open.up.swap(up, Ordering::Relaxed) && !up {
                // Its stations may appear behind another port.
                self.table.forget(|_, place| place.port == id && !place.fixed);
            }
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let keys: Vec<String> = self.ports().keys().cloned().collect();
        for key in keys {
            if let Err(problem) = self.remove(&key) {
                tracing::warn!("{problem}");
            }
        }
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("ports", &self.ports().len()).field("table", &self.table).finish()
    }
}

fn there_already(key: &str) -> Problem {
    let message = format!("port '{key}' is there already, with other parameters");
    Problem::new(Code::Exists, message, "remove it first, or give the new one another key")
}

pub(crate) fn no_port(key: &str) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("there is no port '{}'", key.escape_debug()),
        "`port.list` (`linecard switch ctl ports`) names all ports",
    )
}
