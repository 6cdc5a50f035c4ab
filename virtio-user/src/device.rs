//! The device behind `net_virtio_user`: opening, starting, stopping, starting again.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use linecard_eal::gate::gate;
use linecard_eal::memory::{Domain, Memory};
use linecard_eal::wake::Relay;
use linecard_mempool::Pool;
use linecard_pmd::filter::{FilterView, RxFilter};
use linecard_pmd::local::Identity;
use linecard_pmd::offload::{Offloads, RxOffloads, SoftTx, TxOffloads};
use linecard_pmd::stats::Inspections;
use linecard_pmd::{
    Device, DeviceInfo, Error as PmdError, Port, PortConfig, ProbeContext, Running, RxQueue, StartError,
    TxQueue,
};

use crate::args::{MAX_PAIRS, Options};
use crate::backend::{Backend, Connect, ConnectTimeouts, RingId, Role};
use crate::control::State;
use crate::driver::Ledger;
use crate::error::Error;
use crate::memory::SharedDomains;
use crate::negotiate::{choose, mac, max_mtu, offered};
use crate::path::{RxPath, Trouble, TxPath, header_len};
use crate::queue::{PathName, Receive, Transmit};
use crate::rings::{RingError, RingZone};
use crate::session::{Inside, START, Session};
use crate::thread::{ControlThread, GRACE, Pending, after, short_name};
use crate::tx::LONGEST;

/// The bytes of a frame beyond its MTU: an Ethernet header and two VLAN tags.
const FRAME: u32 = 14 + 8;
/// The smallest MTU of IPv4.
const MIN_MTU: u16 = 68;
/// The time for the answers of a backend that was found only at the end of the wait.
const FIRST_ANSWER: Duration = Duration::from_millis(1000);

/// An opened port.
pub(crate) struct VirtioDevice {
    options: Options,
    mac: [u8; 6],
    /// The receive filter; it is kept while the port is stopped.
    filter: Arc<RxFilter>,
    thread: ControlThread,
    /// What the port's backend may make it consume.
    ledger: Ledger,
    memory: Memory,
    connect: Arc<dyn Connect>,
    /// The device's longest packets, if the device reported a maximum when it was found.
    max_mtu: Option<u16>,
    /// The backend that was found while probing; the first start uses it.
    first: Option<Box<dyn Backend>>,
    /// The running session; completes when the port is stopped.
    life: Option<Pending<()>>,
}

impl VirtioDevice {
    /// Opens a port over the device that `connect` finds, which is charged to `ledger`.
    ///
    /// # Errors
    /// An error of `connect`; the limits of this process.
    pub(crate) fn open(
        context: &ProbeContext,
        options: Options,
        connect: Arc<dyn Connect>,
        ledger: Ledger,
    ) -> Result<Box<dyn Device>, PmdError> {
        let name = options.name.clone();
        let mac = options.mac.unwrap_or_else(random_mac);
        let mut device = Self {
            filter: Arc::new(RxFilter::new(&name, mac)),
            mac,
            options,
            thread: control_thread(&name)?,
            ledger,
            memory: context.memory.clone(),
            connect,
            first: None,
            max_mtu: None,
            life: None,
        };
        device.find_backend(context.wait).map_err(|error| error.of_port(&name))?;
        Ok(Box::new(device))
    }

    /// Finds the backend, unless backends connect on their own.
    fn find_backend(&mut self, wait: Duration) -> Result<(), Error> {
        if self.connect.comes_by_itself() {
            return Ok(());
        }
        let connect = self.connect.clone();
        // A backend that is found at the last moment still gets the time for an answer.
        let timeouts = ConnectTimeouts { until: after(wait), answer: FIRST_ANSWER };
        let found = self.thread.spawn(move |waiter| {
            let mut found = connect.connect(waiter, timeouts)?;
            let mac = mac(&mut *found)?;
            let features = found.offer().features;
            let mtu = max_mtu(&mut *found, features)?;
            Ok::<_, Error>((found, mac, mtu))
        });
        let (found, mac, mtu) = self.thread.await_within(wait + FIRST_ANSWER + GRACE, &found)??;
        choose(offered(&*found, false), &self.options, 1)?;
        if let (None, Some(mac)) = (self.options.mac, mac) {
            (self.mac, self.options.device_mac) = (mac, true);
            self.filter.set_mac(mac);
        }
        (self.first, self.max_mtu) = (Some(found), mtu);
        Ok(())
    }

    /// Returns the possible number of queue pairs: the number requested, limited by the backend's if it is
    /// known.
    fn max_pairs(&self) -> u16 {
        let offered = self.first.as_ref().map_or(u16::MAX, |first| first.offer().pairs.max(1));
        self.options.queues.min(offered)
    }

    /// Receive buffers must hold a frame where packets cannot span buffers.
    fn check_pool(&self, config: &PortConfig, pool: &Pool) -> Result<(), PmdError> {
        let unsupported = |what: String, remedy: &str| {
            Err(PmdError::Unsupported { port: self.options.name.clone(), what, remedy: remedy.to_owned() })
        };
        let frame = u32::from(config.mtu).saturating_add(FRAME);
        if !self.options.mrg_rxbuf && frame > u32::from(pool.data_room()) {
            let what = format!("an mtu of {} in buffers of {} bytes", config.mtu, pool.data_room());
            return unsupported(what, "use mrg_rxbuf=1, larger buffers (--mbuf-size) or a smaller mtu");
        }
        let header = header_len(config.offloads.rx.contains(RxOffloads::RSS_HASH));
        if u32::from(pool.headroom()) < header {
            let what = format!("a pool with {} bytes of headroom", pool.headroom());
            return unsupported(what, &format!("leave room for the header of {header} bytes"));
        }
        Ok(())
    }

    /// Creates the rings of `pairs` queue pairs, with the sizes in `options`, in a domain that holds nothing
    /// else.
    fn rings(&self, pairs: u16, options: &Options) -> Result<(Arc<Domain>, Vec<RingZone>), PmdError> {
        let name = &self.options.name;
        let failed = |error| match error {
            RingError::Memory(source) => PmdError::Memory { port: name.clone(), source },
            RingError::Event(source) => system(name, "making an eventfd", source),
        };
        let ids = (0..pairs).flat_map(|q| [RingId::receive(q), RingId::transmit(q)]);
        let ids: Vec<_> = ids.chain([RingId::CONTROL]).collect();
        let size = |id: RingId| RingZone::size(options, id.role());
        let bytes = |id: &RingId| RingZone::bytes(size(*id), id.role());
        let all = ids.iter().map(bytes).fold(0_usize, usize::saturating_add);
        let domain = self.memory.separate(&format!("{name} rings"), all);
        let domain = domain.and_then(|domain| domain.reserve(all).map(|()| domain));
        let domain = domain.map_err(|source| failed(RingError::Memory(source)))?;
        let ring =
            |id: RingId| RingZone::new(&domain, &label(name, id), id, size(id), &self.ledger.signal_budget);
        let rings: Result<_, _> = ids.into_iter().map(|id| ring(id).map_err(failed)).collect();
        Ok((domain.clone(), rings?))
    }

    /// Creates everything that a started port needs. On failure `self` is unchanged.
    fn begin(&mut self, config: &PortConfig, pool: &Pool) -> Result<DeviceQueues, PmdError> {
        self.check_pool(config, pool)?;
        if self.thread.is_stuck() {
            // A dropped thread is left running; what it holds cannot be recovered.
            self.thread = control_thread(&self.options.name)?;
        }
        self.ledger.own.cover(config.rx_queues.max(config.tx_queues));
        let options = self.options.with_depths(config.rx_depth, config.tx_depth);
        let options = Options { offloads: config.offloads, ..options };
        let (domain, rings) = self.rings(config.rx_queues.max(config.tx_queues), &options)?;
        let notifications = rings.iter().map(|ring| (ring.id(), ring.notifications.clone())).collect();
        let state = State::new(
            options,
            Identity::new(&self.options.name, self.mac, config.mtu),
            (config.rx_queues, config.tx_queues),
            self.filter.clone(),
            notifications,
            self.ledger.log.clone(),
        );
        state.defer(&config.deferred);
        let state = Arc::new(state);
        let relay = Arc::new(Relay::new(&short_name(&self.options.name), config.rx_queues.into()));
        let (rx, rx_inside) = receive_queues(&state, &relay);
        let (tx, tx_inside) = transmit_queues(&state, pool);
        let waiter = self.thread.waiter().clone();
        self.follow_filter(&state);
        state.served_by(&waiter);
        let (started, outcome) = mpsc::channel();
        let session = Session {
            state: state.clone(),
            pool: pool.clone(),
            connect: self.connect.clone(),
            shared_domains: SharedDomains::follow(domain, pool, waiter.clone()),
            trouble: Arc::new(Trouble::of(waiter.clone())),
            relay,
            rx: rx_inside,
            tx: tx_inside,
            rings,
            started,
            pace: self.ledger.pace.clone(),
            charged: Duration::ZERO,
            first: self.first.take(),
            waiter,
        };
        self.life = Some(self.thread.spawn(move |_| session.live()));
        match self.thread.await_within(START + GRACE, &Pending::of(outcome)).flatten() {
            Ok(()) => Ok(DeviceQueues { rx, tx, state }),
            Err(error) => {
                self.end();
                Err(error.of_port(&self.options.name))
            }
        }
    }

    /// Notifies the receive queues and the device of every change of the filter.
    fn follow_filter(&self, state: &State) {
        let waiter = self.thread.waiter().clone();
        let queues = state.rx_names.len();
        let stats: Vec<_> = (0..queues).map(|queue| state.counters().rx(queue)).collect();
        let told = stats.clone();
        self.filter.on_change(move |on| {
            told.iter().for_each(|queue| queue.inspect(Inspections::FILTER, on));
            waiter.notify();
        });
        // Changes from now on reach the callback; the counters are new, so nothing needs clearing.
        if self.filter.is_on() {
            stats.iter().for_each(|queue| queue.inspect(Inspections::FILTER, true));
        }
    }

    /// Ends the session, if any. All buffers are back in the pool afterwards, unless its thread is stuck.
    fn end(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.thread.waiter().stop();
        if self.thread.is_stuck() {
            return;
        }
        if let Err(error @ Error::Stuck { .. }) = self.thread.await_within(GRACE, &life) {
            tracing::error!("{}: {error}; its thread is left behind with what it has", self.options.name);
        }
    }
}

impl Drop for VirtioDevice {
    fn drop(&mut self) {
        self.end();
        // A thread that was left running may still hold the socket.
        self.connect.withdraw();
        // The thread closes this connection, as it closes all others.
        if let Some(first) = self.first.take() {
            self.thread.spawn(move |_| drop(first));
        }
    }
}

/// Returns a random locally administered unicast address.
fn random_mac() -> [u8; 6] {
    let mut mac = crate::sys::random_bytes();
    mac[0] = (mac[0] & !1) | 2;
    mac
}

/// Returns the name of a ring's memory.
fn label(port: &str, ring: RingId) -> String {
    match ring.role() {
        Role::Receive => format!("{port} rx ring {}", ring.queue()),
        Role::Transmit => format!("{port} tx ring {}", ring.queue()),
        Role::Control => format!("{port} control ring"),
    }
}

/// Returns a system error on behalf of a port.
pub(crate) fn system(port: &str, action: &str, source: std::io::Error) -> PmdError {
    let remedy = "check the limits of this process (ulimit -a)".to_owned();
    PmdError::System { port: port.to_owned(), action: action.to_owned(), source, remedy }
}

/// Starts the control thread of a port.
fn control_thread(port: &str) -> Result<ControlThread, PmdError> {
    ControlThread::start(port).map_err(|source| system(port, "starting a control thread", source))
}

/// The application's sides of the gates, and the control thread's.
type Gates<Queue, Path> = (Vec<Box<Queue>>, Vec<Inside<Path>>);

fn receive_queues(state: &State, relay: &Arc<Relay>) -> Gates<dyn RxQueue, dyn RxPath> {
    let queue = |(index, name): (usize, &Arc<PathName>)| {
        let (gate, controller) = gate(None);
        let (relay, filter) = (relay.clone(), FilterView::new(state.filter()));
        let classes = state.rx_classes.get(index).cloned().unwrap_or_default();
        let queue = Receive {
            gate,
            name: name.clone(),
            relay,
            index,
            filter,
            stats: state.counters().rx(index),
            classes,
        };
        (Box::new(queue) as Box<dyn RxQueue>, controller)
    };
    state.rx_names.iter().enumerate().map(queue).unzip()
}

fn transmit_queues(state: &State, pool: &Pool) -> Gates<dyn TxQueue, dyn TxPath> {
    let work = state.options.offloads.tx.intersects(TxOffloads::WORK);
    let queue = |(index, name): (usize, &Arc<PathName>)| {
        let (gate, controller) = gate(None);
        let soft = work.then(|| SoftTx::counting(pool.clone(), state.counters().tx(index)));
        let missing = state.missing.get(index).cloned().unwrap_or_default();
        let classes = state.tx_classes.get(index).cloned().unwrap_or_default();
        (
            Box::new(Transmit {
                gate,
                name: name.clone(),
                soft,
                missing,
                stats: state.counters().tx(index),
                classes,
            }) as Box<dyn TxQueue>,
            controller,
        )
    };
    state.tx_names.iter().enumerate().map(queue).unzip()
}

/// The result of `begin`.
struct DeviceQueues {
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    state: Arc<State>,
}

impl Device for VirtioDevice {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn stops_queues(&self) -> bool {
        true
    }

    fn queues_argument(&self) -> Option<&'static str> {
        Some("queues")
    }

    fn most_queue_pairs(&self) -> u16 {
        // More than the backend has cannot be requested.
        self.first.as_ref().map_or(MAX_PAIRS, |first| first.offer().pairs.min(MAX_PAIRS))
    }

    fn info(&self) -> DeviceInfo {
        let longest = u16::try_from(LONGEST.saturating_sub(FRAME)).unwrap_or(u16::MAX);
        let pairs = self.max_pairs();
        DeviceInfo::new(self.options.driver, self.mac)
            .max_rx_queues(pairs)
            .max_tx_queues(pairs)
            // Any depth is accepted. A depth above the ring size is cut to it, as DPDK's driver does. (DPDK
            // keeps the larger ring and uses only `depth` descriptors of it; here the ring itself is
            // smaller.)
            .depth(1..=linecard_virtio::layout::MAX_SIZE)
            .default_depth(self.options.rx_queue_size.max(self.options.tx_queue_size))
            .mtu(MIN_MTU..=self.max_mtu.map_or(longest, |max| max.clamp(MIN_MTU, longest)))
            .offloads(Offloads { rx: RxOffloads::VIRTIO.union(RxOffloads::RSS_HASH), ..Offloads::VIRTIO })
    }

    fn start(mut self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        match self.begin(config, pool) {
            Ok(DeviceQueues { rx, tx, state }) => {
                let control = state.clone();
                let running = Box::new(Started { device: self, state });
                Ok(Port { rx, tx, control, running })
            }
            Err(error) => Err(StartError { device: self, error }),
        }
    }
}

/// A started port, which turns back into a device when it is stopped.
struct Started {
    device: Box<VirtioDevice>,
    state: Arc<State>,
}

impl Running for Started {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        use linecard_pmd::PortControl;
        let Self { mut device, state } = *self;
        device.end();
        device.mac = state.mac();
        // Queues that the application still holds find their gates closed; their buffers are in the pool
        // again.
        drop((rx, tx));
        device
    }
}
