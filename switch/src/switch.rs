//! The switch: its ports, its workers, and what is done to them while frames pass.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use linecard_capture::Hub;
use linecard_eal::{Lcore, Workers};
use linecard_mempool::Pool;
use linecard_pmd::stats::Counter;
use linecard_pmd::{Port, PortControl, ProbeContext, Registry, Running};

use crate::api::{
    Cause, Code, PortAdded, PortCounters, PortInfo, PortKind, PortSpec, PortState, Problem, Stats,
};
use crate::attach::{Attached, Source, attach};
use crate::fdb::{Station, Table};
use crate::forward::{Engine, Inbox};
use crate::lanes::Queue;
use crate::port::{Common, Egress, Losses, WorkerPort};
use crate::rules::{Defaults, Rules};
use crate::telling::OpenPort;
use crate::worker::{Command, ReturnedQueues, Worker, WorkerHandle};

/// Most ports of a switch.
pub const MAX_PORTS: usize = 4096;
/// Frames that may wait for another worker.
const INBOX: usize = 4096;
/// How long a worker may take to give queues back before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a switch is made of.
pub struct SwitchConfig {
    /// The drivers its ports may have.
    pub drivers: Registry,
    /// What they may use.
    pub context: ProbeContext,
    /// Where frames lie while they are here. Ports whose device may keep what it is given have a pool of their own.
    pub pool: Pool,
    /// Where whoever captures finds the ports, by their numbers.
    pub captures: Hub,
    /// Where its workers run, one each.
    pub lcores: Vec<Lcore>,
    /// Most addresses.
    pub addresses: usize,
    /// Seconds after which an address that does not send is forgotten.
    pub age_seconds: u32,
    /// ARP requests and neighbour solicitations for addresses that ports were given (`mac` and `ips`) are answered here, and
    /// not sent to all.
    pub neigh_suppress: bool,
    /// For ports that say nothing of their own.
    pub defaults: Defaults,
}

/// A port and what runs it.
pub(crate) struct Entry {
    pub(crate) id: u16,
    pub(crate) spec: PortSpec,
    pub(crate) device: String,
    /// `None` while it waits for what it can be opened with.
    pub(crate) open: Option<Open>,
    /// What a predecessor counted.
    pub(crate) earlier: PortCounters,
}

impl Entry {
    pub(crate) fn new(id: u16, spec: &PortSpec) -> Self {
        Self { id, spec: spec.clone(), device: String::new(), open: None, earlier: PortCounters::default() }
    }
}

pub(crate) struct Open {
    pub(crate) control: Arc<dyn PortControl>,
    pub(crate) running: Box<dyn Running>,
    /// What each worker lost.
    pub(crate) losses: Vec<Arc<Losses>>,
    /// Who polls each receive queue.
    pub(crate) placed: Vec<Placed>,
    /// The link was up when it was last looked at.
    pub(crate) up: Arc<AtomicBool>,
}

/// Where a receive queue is polled.
pub(crate) struct Placed {
    pub(crate) worker: usize,
    pub(crate) packets: Arc<Counter>,
}

/// A learning switch with its threads; they end with it.
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
/// let pool = Pool::new(&eal.default_domain(), PoolConfig { packets: 1024, ..PoolConfig::default() })?;
/// let context =
///     ProbeContext { memory: eal.memory().clone(), domain: eal.default_domain(), wait: std::time::Duration::from_secs(1) };
/// let switch = Switch::start(SwitchConfig {
///     drivers: Registry::new(&[&RingDriver]),
///     context,
///     pool,
///     captures: Default::default(),
///     lcores: vec![eal.lcores().main().clone()],
///     addresses: 1000,
///     age_seconds: 300,
///     neigh_suppress: false,
///     defaults: Default::default(),
/// })?;
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
    ports: Mutex<BTreeMap<String, Entry>>,
    start: Instant,
    /// What the table's clock showed then: a predecessor's time.
    pub(crate) clock: AtomicU32,
    /// Last: the workers end when the remotes are dropped.
    _workers: Workers,
}

impl Switch {
    /// Starts the workers; there are no ports yet.
    ///
    /// # Errors
    /// A worker cannot be started.
    pub fn start(config: SwitchConfig) -> Result<Self, linecard_eal::Error> {
        let table = Arc::new(Table::new(config.addresses));
        let inbox = |_| Inbox { packets: Arc::new(ArrayQueue::new(INBOX)), wake: Arc::default() };
        let inboxes: Vec<_> = config.lcores.iter().map(inbox).collect();
        let (mut workers, mut remotes, start) = (Workers::new(), Vec::new(), Instant::now());
        for (lcore, inbox) in config.lcores.iter().zip(&inboxes) {
            let (remote, mailbox) = WorkerHandle::new(Arc::clone(&inbox.wake));
            let engine = Engine::new(Arc::clone(&table), inboxes.clone(), config.neigh_suppress);
            let worker = Worker::new(engine, mailbox, Arc::clone(&inbox.packets), start);
            workers.launch(lcore, move |stop| worker.run(stop))?;
            remotes.push(remote);
        }
        Ok(Self {
            config,
            table,
            remotes,
            ports: Mutex::default(),
            start,
            clock: AtomicU32::new(0),
            _workers: workers,
        })
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a port, or finds it attached.
    ///
    /// # Errors
    /// It makes no sense, is there with other parameters, or cannot be had.
    pub fn add(&self, spec: &PortSpec, fd: Option<OwnedFd>) -> Result<PortAdded, Problem> {
        let rules = Rules::of(spec, self.config.defaults)?;
        if fd.is_some() && !matches!(spec.kind, PortKind::VhostUserFd { .. }) {
            let details = "send none, or ask for a port of type vhost-user-fd";
            return Err(Problem::new(Code::InvalidParams, "this type of port takes no descriptor", details));
        }
        let mut ports = self.ports();
        if let Some(entry) = ports.get_mut(&spec.key) {
            if entry.spec != *spec {
                let message = format!("port '{}' is there already, with other parameters", spec.key);
                return Err(Problem::new(
                    Code::Exists,
                    message,
                    "remove it first, or give the new one another key",
                ));
            }
            if entry.open.is_none() && (fd.is_some() || !needs_fd(&spec.kind)) {
                self.open(entry, rules, fd)?;
            }
            return Ok(PortAdded { created: false, port: self.info(entry) });
        }
        check_mac(&ports, spec, &rules, self.config.defaults)?;
        if needs_fd(&spec.kind) && fd.is_none() {
            let details = "send one listening Unix socket with the request (SCM_RIGHTS)";
            return Err(Problem::new(
                Code::InvalidParams,
                "a port of type vhost-user-fd needs a descriptor",
                details,
            ));
        }
        let mut entry = Entry::new(free_id(&ports)?, spec);
        self.open(&mut entry, rules, fd)?;
        let port = self.info(&entry);
        ports.insert(spec.key.clone(), entry);
        Ok(PortAdded { created: true, port })
    }

    /// Brings back a port of an earlier run; one that cannot be opened now waits.
    ///
    /// # Errors
    /// It makes no sense, or there is another of that key.
    pub fn restore(&self, spec: &PortSpec) -> Result<PortState, Problem> {
        let rules = Rules::of(spec, self.config.defaults)?;
        let fd = match &spec.kind {
            PortKind::VhostUserFd { again: Some(again) } => crate::again::listen(again)
                .inspect_err(|error| {
                    tracing::warn!("port {}: its socket cannot be made anew: {error}", spec.key)
                })
                .ok(),
            _ => None,
        };
        let mut ports = self.ports();
        if ports.contains_key(&spec.key) {
            let message = format!("port '{}' is there already", spec.key);
            return Err(Problem::new(
                Code::Exists,
                message,
                "take it out of the configuration or of the state",
            ));
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
        Ok(state)
    }

    /// Opens the device of a port and gives its queues to the workers.
    fn open(&self, entry: &mut Entry, rules: Rules, fd: Option<OwnedFd>) -> Result<(), Problem> {
        let attached = attach(&self.config, entry.id, &entry.spec, Source::New(fd.as_ref()))?;
        self.run(entry, rules, attached, &[]);
        Ok(())
    }

    /// Gives the queues of a port to the workers, its receive queues to these as far as they are named.
    pub(crate) fn run(&self, entry: &mut Entry, rules: Rules, attached: Attached, workers: &[usize]) {
        let id = entry.id;
        let Attached { mut port, own, argument } = attached;
        let losses: Vec<Arc<Losses>> = self.remotes.iter().map(|_| Arc::default()).collect();
        if let Some(mac) = rules.mac {
            self.table.fix(Station::of(mac, rules.home_vlan()), id);
        }
        let up = Arc::new(AtomicBool::new(port.control.link().up));
        let common = Common { rules: Arc::new(rules), up: Arc::clone(&up), own };
        let placed = self.hand_out(id, &mut port, (&common, &losses), workers);
        // The number of a passed descriptor means nothing to anybody later.
        entry.device = argument.split(",fd=").next().unwrap_or_default().to_owned();
        entry.open = Some(Open { control: port.control, running: port.running, losses, placed, up });
    }

    /// Gives a port's queues to workers, queue by queue, beginning with another worker for each port.
    fn hand_out(
        &self,
        id: u16,
        port: &mut Port,
        (common, losses): (&Common, &[Arc<Losses>]),
        workers: &[usize],
    ) -> Vec<Placed> {
        let count = self.remotes.len();
        let first = usize::from(id) % count;
        let turn = |worker: usize| (worker + count - first) % count;
        let queues = port.rx.len();
        let mut rx: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        let mut placed = Vec::new();
        for (number, queue) in (0..).zip(std::mem::take(&mut port.rx)) {
            let usual = first + usize::from(number);
            let worker = workers.get(usize::from(number)).copied().unwrap_or(usual) % count;
            let packets = Arc::<Counter>::default();
            rx[worker].push(Queue { number, rx: queue, packets: Arc::clone(&packets) });
            placed.push(Placed { worker, packets });
        }
        let tx_queues = port.tx.len().min(count);
        let mut tx: Vec<Option<_>> = (0..count).map(|_| None).collect();
        for (number, queue) in std::mem::take(&mut port.tx).into_iter().enumerate().take(count) {
            tx[(first + number) % count] = Some(queue);
        }
        let share = queues.min(count) as u64;
        for (worker, remote) in self.remotes.iter().enumerate() {
            let egress = match tx[worker].take() {
                Some(queue) => Egress::Own(queue),
                None => Egress::Through((first + turn(worker) % tx_queues.max(1)) % count),
            };
            let worker_port = WorkerPort::new(common.clone(), Arc::clone(&losses[worker]), egress, share);
            remote.tell(Command::Add(id, Box::new(worker_port), std::mem::take(&mut rx[worker])));
        }
        placed
    }

    /// Detaches a port; `false` when there is none.
    ///
    /// # Errors
    /// A worker does not give it back.
    pub fn remove(&self, key: &str) -> Result<bool, Problem> {
        let mut ports = self.ports();
        let Some(mut entry) = ports.remove(key) else { return Ok(false) };
        self.close(&mut entry)?;
        Ok(true)
    }

    /// Takes the queues of a port from the workers and closes its device.
    pub(crate) fn close(&self, entry: &mut Entry) -> Result<(), Problem> {
        if let Some(open) = entry.open.take() {
            let (tell, homes) = channel();
            for remote in &self.remotes {
                remote.tell(Command::Remove(entry.id, tell.clone()));
            }
            drop(tell);
            let (mut rx, mut tx) = (Vec::new(), Vec::new());
            for _ in &self.remotes {
                let Ok(ReturnedQueues { rx: some, tx: one }) = homes.recv_timeout(PATIENCE) else {
                    let key = &entry.spec.key;
                    let message = format!("port '{key}' is still in use by a worker that does not answer");
                    return Err(Problem::new(Code::Internal, message, "restart the switch, and report this"));
                };
                rx.extend(some);
                tx.extend(one);
            }
            self.table.forget(|_, place| place.port == entry.id);
            drop(open.control);
            drop(open.running.stop(rx, tx));
        }
        Ok(())
    }

    /// Every port.
    #[must_use]
    pub fn list(&self) -> Vec<PortInfo> {
        self.ports().values().map(|entry| self.info(entry)).collect()
    }

    /// Where frames lie while they are here.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.config.pool
    }

    /// Those ports that are open, for telemetry.
    pub(crate) fn open_ports(&self) -> Vec<OpenPort> {
        let of = |entry: &Entry| {
            let open = entry.open.as_ref()?;
            let rx = u16::try_from(open.placed.len()).unwrap_or(u16::MAX);
            Some(OpenPort::new(entry.id, &entry.spec.key, (rx, rx.max(entry.spec.queues)), open))
        };
        self.ports().values().filter_map(of).collect()
    }

    /// What was asked of every port, to ask it again.
    #[must_use]
    pub fn specs(&self) -> Vec<PortSpec> {
        self.ports().values().map(|entry| entry.spec.clone()).collect()
    }

    /// One port.
    ///
    /// # Errors
    /// There is none of that key.
    pub fn show(&self, key: &str) -> Result<PortInfo, Problem> {
        self.ports().get(key).map(|entry| self.info(entry)).ok_or_else(|| no_port(key))
    }

    pub(crate) fn info(&self, entry: &Entry) -> PortInfo {
        let mut counters = entry.earlier.clone();
        if let Some(open) = &entry.open {
            let stats = open.control.stats();
            // A sender's packets are received here, as seen from the port.
            counters.rx_packets += stats.ipackets;
            counters.rx_bytes += stats.ibytes;
            counters.tx_packets += stats.opackets;
            counters.tx_bytes += stats.obytes;
            open.losses.iter().for_each(|losses| losses.add_to(&mut counters.drops));
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

    /// Everything that is counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            uptime_seconds: self.start.elapsed().as_secs(),
            workers: u16::try_from(self.remotes.len()).unwrap_or(u16::MAX),
            addresses: self.table.len() as u64,
            ports: self.list(),
        }
    }

    /// What the table's clock has to show.
    pub(crate) fn seconds(&self) -> u32 {
        let here = u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.clock.load(Ordering::Relaxed).saturating_add(here)
    }

    /// What has to be done now and then, about ten times a second: the clock, ageing, links that went down.
    pub fn look_after(&self) {
        let seconds = self.seconds();
        if seconds != self.table.now() {
            self.table.tick(seconds);
            self.table.age(self.config.age_seconds);
        }
        for entry in self.ports().values() {
            let id = entry.id;
            let Some(open) = &entry.open else { continue };
            let up = open.control.link().up;
            if open.up.swap(up, Ordering::Relaxed) && !up {
                // Its stations may turn up elsewhere.
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

pub(crate) fn no_port(key: &str) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("there is no port '{}'", key.escape_debug()),
        "`port.list` names all ports",
    )
}

fn needs_fd(kind: &PortKind) -> bool {
    matches!(kind, PortKind::VhostUserFd { .. })
}

fn state_of(entry: &Entry) -> PortState {
    match &entry.open {
        None => PortState::Waiting,
        Some(open) if open.control.link().up => PortState::Up,
        Some(_) => PortState::Down,
    }
}

fn free_id(ports: &BTreeMap<String, Entry>) -> Result<u16, Problem> {
    let mut taken = vec![false; MAX_PORTS];
    for entry in ports.values() {
        taken[usize::from(entry.id)] = true;
    }
    let free = taken.iter().position(|taken| !taken).and_then(|id| u16::try_from(id).ok());
    free.ok_or_else(|| {
        let message = format!("the switch has {MAX_PORTS} ports, the most it can");
        Problem::new(Code::Exhausted, message, "remove one first")
    })
}

/// An address belongs to one port of a VLAN.
fn check_mac(
    ports: &BTreeMap<String, Entry>,
    spec: &PortSpec,
    rules: &Rules,
    defaults: Defaults,
) -> Result<(), Problem> {
    let Some(mac) = spec.mac else { return Ok(()) };
    let same = |entry: &&Entry| {
        entry.spec.mac == Some(mac)
            && Rules::of(&entry.spec, defaults).is_ok_and(|other| other.home_vlan() == rules.home_vlan())
    };
    match ports.values().find(same) {
        None => Ok(()),
        Some(other) => Err(Problem::new(
            Code::Exists,
            format!("{} belongs to port '{}' already", mac.to_string().to_lowercase(), other.spec.key),
            "give this port another address or VLAN",
        )),
    }
}
