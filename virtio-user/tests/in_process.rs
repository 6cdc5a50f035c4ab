//! A device in the same process as its driver, behind the `Backend` trait and in this file alone: no socket, no
//! messages. The port contract over it, many queues, and what a session asks of any device, in which order.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use linecard_eal::eventfd::EventFd;
use linecard_eal::memory::{Memory, MemoryConfig, PagePolicy, Segment};
use linecard_eal::shared::SharedBytes;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link, Peer};
use linecard_lab::wait_until;
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::{Armed, DevArgs, Device, Port, PortConfig, ProbeContext, configure};
use linecard_virtio::{
    Access, DeviceConfig, DeviceMemory, DeviceQueue, Features, Head, Layout, Lookahead, PeerFault, RingAddrs,
    RingMemory, SegList, Translation, packed, split,
};
use linecard_virtio_user::backend::{
    Backend, Connect, ConnectTimeouts, MemoryUpdate, Offer, Phase, RingId, RingSetup, Waiter, Watched, status,
};
use linecard_virtio_user::{Error, VirtioUser};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// A ring as the device knows it.
struct Ring {
    layout: Layout,
    size: u16,
    addrs: RingAddrs,
    enabled: bool,
}

/// What is shared with the device.
#[derive(Clone, Default)]
struct Shared(Arc<RwLock<Vec<Arc<Segment>>>>);

impl Shared {
    fn segments(&self) -> Vec<Arc<Segment>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn at(&self, addr: u64, len: u64) -> Option<NonNull<u8>> {
        let inside = |segment: &Arc<Segment>| {
            let end = addr.checked_sub(segment.addr() as u64)?.checked_add(len)?;
            (end <= segment.len() as u64).then(|| NonNull::new(addr as *mut u8))?
        };
        self.segments().iter().find_map(inside)
    }

    fn bytes(&self, addr: u64, len: usize) -> SharedBytes {
        let start = self.at(addr, len as u64).expect("a ring lies in what is shared");
        // SAFETY: the port keeps its rings until the device has stopped them, and these tests use them no longer.
        unsafe { SharedBytes::new(start, len) }
    }
}

// SAFETY: every answer lies in a segment that is shared at the moment; both ends are moved by turns.
unsafe impl DeviceMemory for Shared {
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        self.at(addr, u64::from(len))
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

/// Both rings of a queue, moved by hand.
trait Pair: Send {
    fn take(&mut self) -> Option<Vec<u8>>;
    fn give(&mut self, frame: &[u8]) -> bool;
}

struct Rings<T, R> {
    tx: T,
    rx: R,
    memory: Shared,
}

/// Header and frame, in as many buffers as it takes.
const HEADER: usize = 12;

impl<T: DeviceQueue, R: DeviceQueue> Pair for Rings<T, R> {
    fn take(&mut self) -> Option<Vec<u8>> {
        let (mut list, mut bytes) = (SegList::new(), Vec::new());
        let head =
            self.tx.peek_chain(&self.memory, Lookahead::default(), &mut list).expect("a good driver")?;
        for piece in list.pieces() {
            // SAFETY: the chain was translated, and the driver leaves it alone until it is completed.
            let piece =
                unsafe { std::slice::from_raw_parts(piece.ptr.as_ptr().cast_const(), piece.len as usize) };
            bytes.extend_from_slice(piece);
        }
        self.tx.complete(head.used(0));
        self.tx.publish();
        Some(bytes.split_off(HEADER))
    }

    fn give(&mut self, frame: &[u8]) -> bool {
        let (mut chains, mut ahead, mut room): (Vec<(Head, SegList)>, _, _) =
            (Vec::new(), Lookahead::default(), 0);
        while room < HEADER + frame.len() {
            let mut list = SegList::new();
            let head: Result<_, PeerFault> = self.rx.peek_chain(&self.memory, ahead, &mut list);
            let Some(head) = head.expect("a good driver") else { return false };
            ahead = ahead.past(head);
            room += head.len as usize;
            chains.push((head, list));
        }
        let mut bytes = vec![0; 10];
        bytes.extend_from_slice(&(chains.len() as u16).to_le_bytes());
        bytes.extend_from_slice(frame);
        let mut rest = &bytes[..];
        for (head, list) in chains {
            let before = rest.len();
            for piece in list.pieces() {
                let (now, later) = rest.split_at(rest.len().min(piece.len as usize));
                // SAFETY: as in `take`, and the driver lent the bytes to be written.
                unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), piece.ptr.as_ptr(), now.len()) };
                rest = later;
            }
            self.rx.complete(head.used((before - rest.len()) as u32));
        }
        self.rx.publish();
        true
    }
}

/// The device, whoever drives it.
struct Machine {
    offer: Offer,
    /// What it says of its status instead of what it was told.
    claims: Option<u8>,
    features: Features,
    status: u8,
    shared: Shared,
    rings: BTreeMap<u32, Ring>,
    pairs: BTreeMap<u16, Box<dyn Pair>>,
    calls: HashMap<RingId, OwnedFd>,
    /// Every operation, in order.
    asked: Vec<String>,
    /// The driver that was connected has lost it.
    lost: bool,
    connections: u32,
    /// Readable when the device is lost, or its link changes.
    news: Arc<EventFd>,
    link: bool,
    /// Looks until the link changes without further news.
    change: Option<u8>,
    /// The MTU that it was told.
    mtu: u16,
    /// It signals no call.
    silent: bool,
}

/// A device that tests hold on to.
#[derive(Clone)]
struct InProcess(Arc<Mutex<Machine>>);

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcess")
    }
}

impl InProcess {
    fn new(pairs: u16) -> Self {
        let features = Features::VERSION_1
            | Features::NET_MRG_RXBUF
            | Features::IN_ORDER
            | Features::RING_PACKED
            | Features::INDIRECT_DESC
            | Features::NET_MAC
            | Features::NET_MQ;
        Self(Arc::new(Mutex::new(Machine {
            offer: Offer { features, pairs, regions: 64 },
            claims: None,
            features: Features::empty(),
            status: 0,
            shared: Shared::default(),
            rings: BTreeMap::new(),
            pairs: BTreeMap::new(),
            calls: HashMap::new(),
            asked: Vec::new(),
            lost: false,
            connections: 0,
            news: Arc::new(EventFd::new().expect("an eventfd")),
            link: true,
            change: None,
            mtu: 0,
            silent: false,
        })))
    }

    fn now(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver loses the device.
    fn leave(&self) {
        let mut machine = self.now();
        machine.lost = true;
        machine.news.signal();
    }
}

impl Machine {
    fn note(&mut self, what: impl Into<String>) {
        self.asked.push(what.into());
    }

    fn ring(&self, index: u32) -> Option<(RingMemory, DeviceConfig)> {
        let ring = self.rings.get(&index).filter(|ring| ring.enabled)?;
        let [desc, driver, device] = ring.layout.areas(ring.size);
        let memory = RingMemory {
            desc: self.shared.bytes(ring.addrs.desc, desc),
            driver: self.shared.bytes(ring.addrs.driver, driver),
            device: self.shared.bytes(ring.addrs.device, device),
        };
        let indirect = self.features.contains(Features::INDIRECT_DESC);
        let event_idx = self.features.contains(Features::EVENT_IDX);
        Some((memory, DeviceConfig { size: ring.size, event_idx, indirect, base: None }))
    }

    /// Both rings of a queue, once the driver is ready.
    fn pair(&mut self, queue: u16) -> Option<&mut Box<dyn Pair>> {
        if self.status & status::DRIVER_OK == 0 {
            return None;
        }
        if !self.pairs.contains_key(&queue) {
            let pair = self.joined(queue)?;
            self.pairs.insert(queue, pair);
        }
        self.pairs.get_mut(&queue)
    }

    fn joined(&self, queue: u16) -> Option<Box<dyn Pair>> {
        let count = self.offer.pairs;
        let (tx, tx_config) = self.ring(RingId::transmit(queue).index(count))?;
        let (rx, rx_config) = self.ring(RingId::receive(queue).index(count))?;
        macro_rules! rings {
            ($module:ident, $order:literal) => {
                Box::new(Rings {
                    tx: $module::Device::<$order, false>::new(&tx, tx_config).expect("a good ring"),
                    rx: $module::Device::<$order, true>::new(&rx, rx_config).expect("a good ring"),
                    memory: self.shared.clone(),
                })
            };
        }
        let has = |feature| self.features.contains(feature);
        Some(match (has(Features::RING_PACKED), has(Features::IN_ORDER)) {
            (false, false) => rings!(split, false),
            (false, true) => rings!(split, true),
            (true, false) => rings!(packed, false),
            (true, true) => rings!(packed, true),
        })
    }
}

/// One driver's connection with the device.
struct Connected {
    device: InProcess,
    news: Arc<EventFd>,
}

impl Connect for InProcess {
    fn connect(&self, waiter: &Arc<Waiter>, patience: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        assert!(patience.deadline() >= patience.until);
        if waiter.stopped() {
            return Err(Error::Stopped);
        }
        let mut machine = self.now();
        machine.connections += 1;
        machine.lost = false;
        machine.asked.clear();
        machine.news.drain();
        Ok(Box::new(Connected { device: self.clone(), news: machine.news.clone() }))
    }
}

impl Backend for Connected {
    fn offer(&self) -> Offer {
        self.device.now().offer
    }

    fn details(&self) -> String {
        "in this process".to_owned()
    }

    fn has_interrupts(&self) -> bool {
        !self.device.now().silent
    }

    fn enter(&mut self, phase: Phase) {
        let name = match phase {
            Phase::Starting(_) => "starting",
            Phase::Running => "running",
            Phase::Stopping(_) => "stopping",
        };
        self.device.now().note(name);
    }

    fn status(&mut self) -> Result<Option<u8>, Error> {
        let machine = self.device.now();
        Ok(Some(machine.claims.unwrap_or(machine.status)))
    }

    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note(format!("status {status}"));
        machine.status = status;
        Ok(())
    }

    fn set_features(&mut self, features: Features) -> Result<(), Error> {
        let mut machine = self.device.now();
        assert_eq!(features & machine.offer.features, features, "only what was offered");
        machine.note("features");
        machine.features = features;
        Ok(())
    }

    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let told = MAC.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        if let Some(told) = told {
            bytes.copy_from_slice(told);
        }
        Ok(told.is_some())
    }

    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note("memory");
        let mut known = machine.shared.segments();
        let has =
            |list: &[Arc<Segment>], one: &Arc<Segment>| list.iter().any(|other| Arc::ptr_eq(other, one));
        assert!(update.gone.iter().all(|gone| has(&known, gone)), "what goes was there");
        assert!(!update.new.iter().any(|new| has(&known, new)), "what is new was not");
        known.retain(|one| !has(update.gone, one));
        known.extend(update.new.iter().cloned());
        assert!(known.len() == update.all.len() && known.iter().all(|one| has(update.all, one)));
        *machine.shared.0.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error> {
        let call = call.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut machine = self.device.now();
        machine.note(format!("call {ring}"));
        machine.calls.insert(ring, call);
        Ok(())
    }

    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note(format!("start {}", ring.id));
        let index = ring.id.index(machine.offer.pairs);
        let known = Ring { layout: ring.layout, size: ring.size, addrs: ring.addrs, enabled: false };
        assert!(machine.rings.insert(index, known).is_none(), "{} is started twice", ring.id);
        Ok(())
    }

    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note(format!("enable {ring}"));
        let index = ring.index(machine.offer.pairs);
        machine.rings.get_mut(&index).expect("it was started").enabled = on;
        Ok(())
    }

    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error> {
        let mut machine = self.device.now();
        machine.note(format!("stop {ring}"));
        let index = ring.index(machine.offer.pairs);
        machine.pairs.remove(&ring.queue());
        machine.rings.remove(&index).expect("it was started");
        Ok(0)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.device.now().note("sync");
        Ok(())
    }

    fn watched(&self) -> Option<Watched<'_>> {
        Some(Watched::reading(&*self.news))
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        self.device.now().mtu = mtu;
        Ok(())
    }

    fn link_up(&self) -> bool {
        self.device.now().link
    }

    fn look(&mut self) -> Result<(), Error> {
        self.news.drain();
        let mut machine = self.device.now();
        if machine.lost {
            return Err(Error::Absent { what: "it was taken away".to_owned() });
        }
        machine.change = match machine.change {
            Some(0) => {
                machine.link = !machine.link;
                None
            }
            other => other.map(|looks| looks - 1),
        };
        Ok(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut machine = self.device.now();
        machine.note("dropped");
        machine.pairs.clear();
        machine.rings.clear();
        machine.status = 0;
        machine.shared.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

// The port contract.

/// A port over such a device, with these options.
struct Over(&'static str);

impl Link for Over {
    fn open(&self, context: &ProbeContext, _: &ProbeContext) -> Ends {
        let device = InProcess::new(4);
        let args = DevArgs::parse(&format!("net_virtio_user0,queues=4,{}", self.0)).expect("well formed");
        let near = VirtioUser::new().probe_over(context, &args, Arc::new(device.clone()));
        Ends { near: near.expect("a device"), far: FarEnd::Peer(Box::new(device)) }
    }

    fn limits(&self) -> Limits {
        Limits { len: 14..=1514, ..Limits::default() }
    }
}

impl Peer for InProcess {
    fn start(&mut self, _: &PortConfig, _: &Pool) {}

    fn is_up(&self) -> bool {
        self.now().status & status::DRIVER_OK != 0
    }

    fn send(&mut self, queue: usize, frame: &[u8]) -> bool {
        let mut machine = self.now();
        let given = machine.pair(queue as u16).is_some_and(|pair| pair.give(frame));
        // Whether or not it is wanted: who sleeps needs it.
        if let Some(call) = machine.calls.get(&RingId::receive(queue as u16)).filter(|_| given) {
            linecard_eal::eventfd::signal(call.as_fd()).expect("an eventfd");
        }
        given
    }

    fn receive(&mut self, queue: usize) -> Option<Vec<u8>> {
        self.now().pair(queue as u16).and_then(|pair| pair.take())
    }

    fn stop(&mut self) {}
}

mod split_mergeable {
    linecard_lab::contract_tests!(super::Over("in_order=0"));
}

mod packed_in_order {
    linecard_lab::contract_tests!(super::Over("packed_vq=1,mrg_rxbuf=0"));
}

// What a session asks of a device.

struct Bench {
    context: ProbeContext,
    pool: Pool,
    driver: VirtioUser,
}

impl Bench {
    fn new(packets: u32) -> Self {
        let config = MemoryConfig { pages: PagePolicy::NoHuge, ..MemoryConfig::default() };
        let memory = Memory::new(config).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let pool = PoolConfig { packets, cache: 32, ..PoolConfig::default() };
        let pool = Pool::new(&domain, pool).expect("a pool");
        let context = ProbeContext { memory, domain, wait: Duration::from_millis(200) };
        Self { context, pool, driver: VirtioUser::new() }
    }

    fn probe(&self, device: &InProcess, args: &str) -> Result<Box<dyn Device>, String> {
        let args = DevArgs::parse(&format!("net_virtio_user0,{args}")).expect("well formed");
        let device = self.driver.probe_over(&self.context, &args, Arc::new(device.clone()));
        device.map_err(|error| error.to_string())
    }

    fn open(&self, device: &InProcess, args: &str, queues: u16) -> Result<Port, String> {
        let config = PortConfig { rx_queues: queues, tx_queues: queues, ..PortConfig::default() };
        let device = configure(self.probe(device, args)?, config).map_err(|error| error.error.to_string())?;
        device.start(&self.pool).map_err(|error| error.error.to_string())
    }

    fn assert_whole(&self) {
        let stats = self.pool.stats();
        assert_eq!(stats.free + stats.cached, stats.total, "{stats:?}");
    }
}

/// A frame that says which queue it is for.
fn frame(queue: u16) -> Vec<u8> {
    (0..60).map(|at| if at % 2 == 0 { queue as u8 } else { (queue >> 8) as u8 ^ at }).collect()
}

/// Sends a frame over a transmit queue, and has the device send another back.
#[track_caller]
fn round(bench: &Bench, port: &mut Port, device: &InProcess, queue: u16) {
    let mut burst = Burst::new();
    assert!(bench.pool.get_bulk(&mut burst, 1));
    burst[0].append(60).expect("room").copy_from_slice(&frame(queue));
    assert_eq!(port.tx[usize::from(queue)].tx_burst(&mut burst), 1, "queue {queue}");
    let mut machine = device.now();
    let pair = machine.pair(queue).expect("a queue that runs");
    assert_eq!(pair.take(), Some(frame(queue)), "queue {queue}");
    assert!(pair.give(&frame(queue + 1000)), "queue {queue}");
    drop(machine);
    assert_eq!(port.rx[usize::from(queue)].rx_burst(&mut burst), 1, "queue {queue}");
    assert_eq!(burst[0].data(), frame(queue + 1000), "queue {queue}");
    port.tx[usize::from(queue)].reclaim();
}

/// 128 queue pairs, each with its own frames: 256 rings whose numbers no bookkeeping cuts short.
#[test]
fn a_hundred_and_twenty_eight_queue_pairs() {
    const PAIRS: u16 = 128;
    for args in ["queues=128,queue_size=16", "queues=128,queue_size=16,packed_vq=1"] {
        let (bench, device) = (Bench::new(8192), InProcess::new(PAIRS));
        let mut port = bench.open(&device, args, PAIRS).expect("a port");
        let indexes: Vec<u32> = device.now().rings.keys().copied().collect();
        assert_eq!(indexes, (0..256).collect::<Vec<u32>>());
        for _ in 0..20 {
            (0..PAIRS).for_each(|queue| round(&bench, &mut port, &device, queue));
        }
        let stats = port.control.stats();
        assert_eq!((stats.ipackets, stats.opackets), (20 * 128, 20 * 128));
        assert_eq!(port.control.queue_stats(127).opackets, 20);
        (0..PAIRS).for_each(|queue| assert!(device.now().pair(queue).expect("it runs").take().is_none()));
        drop(port.stop());
        bench.assert_whole();
    }
}

/// A queue of a device that has no interrupts cannot be slept over, and says so; what is there already it says as any other.
#[test]
fn a_queue_without_an_interrupt_cannot_be_slept_over() {
    for (silent, want) in [(false, Armed::Asleep), (true, Armed::Unable)] {
        for args in ["queues=1", "queues=1,packed_vq=1"] {
            let (bench, device) = (Bench::new(1024), InProcess::new(1));
            device.now().silent = silent;
            let mut port = bench.open(&device, args, 1).expect("a port");
            assert_eq!(port.rx[0].arm(), want, "{args}");
            assert!(device.now().pair(0).expect("it runs").give(&frame(7)));
            assert_eq!(port.rx[0].arm(), Armed::Ready, "{args}");
            let mut burst = Burst::new();
            port.rx[0].disarm();
            assert_eq!(port.rx[0].rx_burst(&mut burst), 1);
        }
    }
}

/// The order that vDPA and vhost-kernel need: nothing of a ring before features, no ring used before memory.
#[test]
fn a_device_is_asked_in_the_documented_order() {
    let (bench, device) = (Bench::new(1024), InProcess::new(2));
    let port = bench.open(&device, "queues=2", 2).expect("a port");
    let rings = ["receive queue 0", "transmit queue 0", "receive queue 1", "transmit queue 1"];
    let each = |verb: &str| rings.map(|ring| format!("{verb} {ring}")).to_vec();
    let one = |word: &str| vec![word.to_owned()];
    let start = [
        one("starting"),
        one("status 1"),
        one("status 3"),
        one("features"),
        one("status 11"),
        each("call"),
        one("memory"),
        each("start"),
        each("enable"),
        one("status 15"),
        one("sync"),
        one("running"),
    ];
    assert_eq!(device.now().asked, start.concat());
    assert!(port.control.features().ends_with("; in this process"), "{}", port.control.features());
    device.now().asked.clear();
    drop(port.stop());
    let stop = [one("stopping"), each("stop"), one("status 0"), one("dropped")];
    assert_eq!(device.now().asked, stop.concat());
}

/// A ring that the application does not poll is made, and stays disabled.
#[test]
fn only_what_is_polled_is_enabled() {
    let (bench, device) = (Bench::new(1024), InProcess::new(2));
    let config = PortConfig { rx_queues: 2, tx_queues: 1, ..PortConfig::default() };
    let made = configure(bench.probe(&device, "queues=2").expect("a device"), config).expect("it can");
    let port = made.start(&bench.pool).map_err(|error| error.error).expect("a port");
    let enabled: Vec<bool> = device.now().rings.values().map(|ring| ring.enabled).collect();
    assert_eq!(enabled, [true, true, true, false]);
    drop(port.stop());
}

#[test]
fn a_port_has_the_address_that_its_device_says() {
    let (bench, device) = (Bench::new(1024), InProcess::new(1));
    let port = bench.open(&device, "queues=1", 1).expect("a port");
    assert_eq!(port.control.mac(), MAC);
    assert!(device.now().features.contains(Features::NET_MAC));
    drop(port.stop());
    let port = bench.open(&device, "mac=02:00:00:00:00:01", 1).expect("a port");
    assert_eq!(port.control.mac(), [2, 0, 0, 0, 0, 1]);
    assert!(!device.now().features.contains(Features::NET_MAC), "its own is not used");
    drop(port.stop());
}

/// Whichever look finds it: the one that the news wakes, or the one before the next sleep.
#[test]
fn a_link_state_of_the_device_is_the_ports() {
    let (bench, device) = (Bench::new(1024), InProcess::new(1));
    let config = PortConfig { mtu: 1400, ..PortConfig::default() };
    let made = configure(bench.probe(&device, "queues=1").expect("a device"), config).expect("it can");
    let port = made.start(&bench.pool).map_err(|error| error.error).expect("a port");
    assert_eq!(device.now().mtu, 1400);
    let mut up = true;
    for looks in [0, 1, 0, 1, 1, 0] {
        assert_eq!(port.control.link().up, up);
        let mut machine = device.now();
        machine.change = Some(looks);
        machine.news.signal();
        drop(machine);
        up = !up;
        wait_until("the link changes", || port.control.link().up == up);
    }
    drop(port.stop());
}

/// The same life as with a socket: down, everything home, up again with another connection.
#[test]
fn a_lost_device_is_found_again() {
    let (bench, device) = (Bench::new(2048), InProcess::new(1));
    let mut port = bench.open(&device, "queues=1", 1).expect("a port");
    for life in 1..6 {
        assert_eq!(device.now().connections, life);
        round(&bench, &mut port, &device, 0);
        device.leave();
        wait_until("another connection", || {
            device.now().connections == life + 1 && port.control.link().up && device.is_up()
        });
    }
    drop(port.stop());
    bench.assert_whole();
}

/// Memory that comes is told to the device while packets pass, and what is sent from there is reached.
#[test]
fn memory_that_grows_is_shared() {
    let (bench, device) = (Bench::new(1024), InProcess::new(1));
    let mut port = bench.open(&device, "queues=1", 1).expect("a port");
    // All stay: a pool that goes takes its memory back, and the device may hear of that later than of the next one.
    let mut pools = Vec::new();
    for pool in 0..4 {
        let before = device.now().shared.segments().len();
        let more = PoolConfig { packets: 4096, cache: 32, ..PoolConfig::default() };
        let more = Pool::new(&bench.context.domain, more).expect("a pool");
        wait_until("the device knows more", || device.now().shared.segments().len() > before);
        let mut burst = Burst::new();
        assert!(more.get_bulk(&mut burst, 1));
        burst[0].append(60).expect("room").copy_from_slice(&frame(pool));
        assert_eq!(port.tx[0].tx_burst(&mut burst), 1);
        assert_eq!(device.now().pair(0).expect("it runs").take(), Some(frame(pool)));
        port.tx[0].reclaim();
        pools.push(more);
    }
    drop(port.stop());
}

#[test]
fn what_a_device_lacks_is_said() {
    let bench = Bench::new(1024);
    type Change = fn(&mut Machine);
    let cases: [(Change, &str, u16, &str); 7] = [
        (|m| m.offer.pairs = 1, "queues=2", 2, "2 receive queues"),
        (|m| m.offer.regions = 1, "queues=1", 1, "memory segments to share, the backend takes 1"),
        (|m| m.offer.features = Features::NET_MQ, "queues=1", 1, "does not offer VIRTIO_F_VERSION_1"),
        (|m| m.claims = Some(status::DRIVER), "queues=1", 1, "did not accept the features"),
        (|m| m.claims = Some(status::FEATURES_OK | status::NEEDS_RESET), "queues=1", 1, "(status 0x48)"),
        (|m| m.claims = Some(status::FEATURES_OK | status::FAILED), "queues=1", 1, "(status 0x88)"),
        (|_| (), "queues=1,path=/tmp/socket", 1, "path"),
    ];
    for (change, args, queues, part) in cases {
        let device = InProcess::new(2);
        change(&mut device.now());
        let Err(error) = bench.open(&device, args, queues) else { panic!("{part}: it was used") };
        assert!(error.contains(part), "{part}: {error}");
    }
    bench.assert_whole();
}
