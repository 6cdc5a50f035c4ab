//! The switch: its ports, its workers, and what is done to them while frames pass.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use linecard_eal::{Lcore, Workers};
use linecard_mempool::Pool;
use linecard_net::MacAddr;
use linecard_pmd::offload::{Offloads, RxOffloads, TxOffloads};
use linecard_pmd::{Port, PortConfig, PortControl, ProbeContext, Registry, Running, configure, contain};

use crate::api::{
    Cause, Code, FdbEntry, FdbFilter, PortAdded, PortCounters, PortInfo, PortKind, PortSpec, PortState,
    Problem, Stats,
};
use crate::fdb::{Station, Table};
use crate::forward::Engine;
use crate::port::{Losses, Seat, Way};
use crate::rules::{Defaults, Rules};
use crate::worker::{Command, Home, Remote, Worker};

/// Most ports of a switch.
pub const MAX_PORTS: usize = 4096;
/// Frames that may wait for another worker.
const INBOX: usize = 4096;
/// How long a worker may take to give queues back before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a switch is made of.
pub struct SwitchConfig {
    /// The drivers its ports may have.
    pub drivers: Registry,
    /// What they may use.
    pub context: ProbeContext,
    /// Where frames lie while they are here.
    pub pool: Pool,
    /// Where its workers run, one each.
    pub lcores: Vec<Lcore>,
    /// Most addresses.
    pub addresses: usize,
    /// Seconds after which an address that does not send is forgotten.
    pub age_seconds: u32,
    /// For ports that say nothing of their own.
    pub defaults: Defaults,
}

/// A port and what runs it.
struct Entry {
    id: u16,
    spec: PortSpec,
    device: String,
    /// `None` while it waits for what it can be opened with.
    open: Option<Open>,
}

struct Open {
    control: Arc<dyn PortControl>,
    running: Box<dyn Running>,
    /// What each worker lost.
    losses: Vec<Arc<Losses>>,
    /// The link was up when it was last looked at.
    up: bool,
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
///     lcores: vec![eal.lcores().main().clone()],
///     addresses: 1000,
///     age_seconds: 300,
///     defaults: Default::default(),
/// })?;
/// let spec = PortSpec::new("a", PortKind::Vdev { device: "net_ring0".into() });
/// assert!(switch.add(&spec, None)?.created);
/// assert!(!switch.add(&spec, None)?.created);
/// assert!(switch.remove("a")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Switch {
    config: SwitchConfig,
    table: Arc<Table>,
    remotes: Vec<Remote>,
    ports: Mutex<BTreeMap<String, Entry>>,
    start: Instant,
    /// Last: the workers end when it is dropped.
    _workers: Workers,
}

impl Switch {
    /// Starts the workers; there are no ports yet.
    ///
    /// # Errors
    /// A worker cannot be started.
    pub fn start(config: SwitchConfig) -> Result<Self, linecard_eal::Error> {
        let table = Arc::new(Table::new(config.addresses));
        let inboxes: Vec<_> = config.lcores.iter().map(|_| Arc::new(ArrayQueue::new(INBOX))).collect();
        let (mut workers, mut remotes, start) = (Workers::new(), Vec::new(), Instant::now());
        for (lcore, inbox) in config.lcores.iter().zip(&inboxes) {
            let (mut remote, mailbox) = Remote::new();
            let engine = Engine::new(Arc::clone(&table), inboxes.clone());
            let worker = Worker::new(engine, mailbox, Arc::clone(inbox), start);
            let (tell, thread) = channel();
            workers.launch(lcore, move |stop| {
                let _ = tell.send(std::thread::current());
                worker.run(stop);
            })?;
            if let Ok(thread) = thread.recv() {
                remote.runs_in(thread);
            }
            remotes.push(remote);
        }
        Ok(Self { config, table, remotes, ports: Mutex::default(), start, _workers: workers })
    }

    fn ports(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
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
        let mut entry = Entry { id: free_id(&ports)?, spec: spec.clone(), device: String::new(), open: None };
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
        let mut entry = Entry { id: free_id(&ports)?, spec: spec.clone(), device: String::new(), open: None };
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
        let (id, spec) = (entry.id, &entry.spec);
        let argument = device_argument(id, spec, fd.as_ref());
        let unavailable = |error: linecard_pmd::Error| {
            let text = error.to_string();
            let (problem, remedy) =
                text.rsplit_once("; ").unwrap_or((&text, "the switch's log may say more"));
            Problem::new(Code::Unavailable, problem, remedy)
        };
        let device = self.config.drivers.probe(&self.config.context, &argument).map_err(unavailable)?;
        let info = device.info();
        let queues = spec.queues.min(info.max_rx_queues).min(info.max_tx_queues).max(1);
        let offloads = Offloads {
            rx: info.offloads.rx.intersection(RxOffloads::VIRTIO),
            tx: info.offloads.tx.intersection(TxOffloads::WORK.union(TxOffloads::MULTI_SEGS)),
        };
        let mtu = spec.mtu.clamp(*info.mtu.start(), *info.mtu.end());
        let config =
            PortConfig { rx_queues: queues, tx_queues: queues, mtu, offloads, ..PortConfig::default() };
        let port = configure(device, config).and_then(|device| device.start(&self.config.pool));
        let mut port = contained(port.map_err(|refused| unavailable(refused.error))?);
        let losses: Vec<Arc<Losses>> = self.remotes.iter().map(|_| Arc::default()).collect();
        if let Some(mac) = rules.mac {
            self.table.fix(Station::of(mac, rules.home_vlan()), id);
        }
        self.hand_out(id, &mut port, &Arc::new(rules), &losses);
        let up = port.control.link().up;
        // The number of a passed descriptor means nothing to anybody later.
        entry.device = argument.split(",fd=").next().unwrap_or_default().to_owned();
        entry.open = Some(Open { control: port.control, running: port.running, losses, up });
        Ok(())
    }

    /// Gives a port's queues to workers, queue by queue, beginning with another worker for each port.
    fn hand_out(&self, id: u16, port: &mut Port, rules: &Arc<Rules>, losses: &[Arc<Losses>]) {
        let count = self.remotes.len();
        let first = usize::from(id) % count;
        let turn = |worker: usize| (worker + count - first) % count;
        let queues = port.rx.len();
        let mut rx: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for (number, queue) in std::mem::take(&mut port.rx).into_iter().enumerate() {
            rx[(first + number) % count].push(queue);
        }
        let tx_queues = port.tx.len().min(count);
        let mut tx: Vec<Option<_>> = (0..count).map(|_| None).collect();
        for (number, queue) in std::mem::take(&mut port.tx).into_iter().enumerate().take(count) {
            tx[(first + number) % count] = Some(queue);
        }
        let share = queues.min(count) as u64;
        for (worker, remote) in self.remotes.iter().enumerate() {
            let way = match tx[worker].take() {
                Some(queue) => Way::Own(queue),
                None => Way::Through((first + turn(worker) % tx_queues.max(1)) % count),
            };
            let seat = Seat::new(Arc::clone(rules), Arc::clone(&losses[worker]), way, share);
            remote.tell(Command::Add(id, Box::new(seat), std::mem::take(&mut rx[worker])));
        }
    }

    /// Detaches a port; `false` when there is none.
    ///
    /// # Errors
    /// A worker does not give it back.
    pub fn remove(&self, key: &str) -> Result<bool, Problem> {
        let mut ports = self.ports();
        let Some(mut entry) = ports.remove(key) else { return Ok(false) };
        if let Some(open) = entry.open.take() {
            let (tell, homes) = channel();
            for remote in &self.remotes {
                remote.tell(Command::Remove(entry.id, tell.clone()));
            }
            drop(tell);
            let (mut rx, mut tx) = (Vec::new(), Vec::new());
            for _ in &self.remotes {
                let Ok(Home { rx: some, tx: one }) = homes.recv_timeout(PATIENCE) else {
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
        Ok(true)
    }

    /// Every port.
    #[must_use]
    pub fn list(&self) -> Vec<PortInfo> {
        self.ports().values().map(|entry| self.info(entry)).collect()
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

    fn info(&self, entry: &Entry) -> PortInfo {
        let mut counters = PortCounters::default();
        if let Some(open) = &entry.open {
            let stats = open.control.stats();
            // A sender's packets are received here, as seen from the port.
            counters.rx_packets = stats.ipackets;
            counters.rx_bytes = stats.ibytes;
            counters.tx_packets = stats.opackets;
            counters.tx_bytes = stats.obytes;
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

    /// Known addresses.
    ///
    /// # Errors
    /// The filter names a port that is not there.
    pub fn fdb(&self, filter: &FdbFilter) -> Result<Vec<FdbEntry>, Problem> {
        let (wanted, names) = self.filter(filter)?;
        let now = self.table.now();
        let found = self.table.list().into_iter().filter(|(station, place)| wanted(*station, place.port));
        let mut entries: Vec<_> = found
            .filter_map(|(station, place)| {
                Some(FdbEntry {
                    mac: station.mac(),
                    vlan: station.vlan(),
                    port: names.get(&place.port)?.clone(),
                    fixed: place.fixed,
                    age_seconds: now.saturating_sub(place.seen).into(),
                })
            })
            .collect();
        entries.sort_by_key(|entry| (entry.vlan, entry.mac));
        Ok(entries)
    }

    /// Forgets learned addresses; how many.
    ///
    /// # Errors
    /// The filter names a port that is not there.
    pub fn flush(&self, filter: &FdbFilter) -> Result<u64, Problem> {
        let (wanted, _) = self.filter(filter)?;
        Ok(self.table.forget(|station, place| !place.fixed && wanted(station, place.port)) as u64)
    }

    /// What `filter` picks, and the keys of all ports by number.
    #[expect(clippy::type_complexity, reason = "one closure and one map")]
    fn filter(
        &self,
        filter: &FdbFilter,
    ) -> Result<(impl Fn(Station, u16) -> bool + use<>, BTreeMap<u16, String>), Problem> {
        let ports = self.ports();
        let port = match &filter.port {
            Some(key) => Some(ports.get(key).ok_or_else(|| no_port(key))?.id),
            None => None,
        };
        let names = ports.values().map(|entry| (entry.id, entry.spec.key.clone())).collect();
        let (vlan, mac) = (filter.vlan, filter.mac);
        let wanted = move |station: Station, behind| {
            port.is_none_or(|port| port == behind)
                && vlan.is_none_or(|vlan| vlan == station.vlan())
                && mac.is_none_or(|mac: MacAddr| mac == station.mac())
        };
        Ok((wanted, names))
    }

    /// What has to be done now and then, about ten times a second: the clock, ageing, links that went down.
    pub fn look_after(&self) {
        let seconds = u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX);
        if seconds != self.table.now() {
            self.table.tick(seconds);
            self.table.age(self.config.age_seconds);
        }
        for entry in self.ports().values_mut() {
            let id = entry.id;
            let Some(open) = &mut entry.open else { continue };
            let up = open.control.link().up;
            if std::mem::replace(&mut open.up, up) && !up {
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

fn no_port(key: &str) -> Problem {
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

/// A port as `--vdev` would name it.
fn device_argument(id: u16, spec: &PortSpec, fd: Option<&OwnedFd>) -> String {
    let queues = spec.queues;
    match &spec.kind {
        PortKind::VhostUser { path, client, mode, group } => {
            let mut text = format!("net_vhost{id},iface={},queues={queues},tso=1", path.display());
            if *client {
                text += ",client=1";
            }
            for (name, value) in [("mode", mode), ("group", group)] {
                if let Some(value) = value {
                    text += &format!(",{name}={value}");
                }
            }
            text
        }
        PortKind::VhostUserFd { .. } => {
            let fd = fd.map_or(-1, AsRawFd::as_raw_fd);
            format!("net_vhost{id},queues={queues},tso=1,fd={fd}")
        }
        PortKind::Tap { name } => format!("net_tap{id},iface={name}"),
        PortKind::Vdev { device } => device.clone(),
    }
}

/// A panic in a driver costs its queue.
fn contained(mut port: Port) -> Port {
    let (rx, tx) = (std::mem::take(&mut port.rx), std::mem::take(&mut port.tx));
    let (mut port, rx, tx) = contain::contain_queues(port, rx, tx);
    port.rx = rx.into_iter().map(|queue| Box::new(queue) as _).collect();
    port.tx = tx.into_iter().map(|queue| Box::new(queue) as _).collect();
    port
}
