//! The port contract over a device in the same process (`device.rs`), many queues, and what a session asks of any device, in
//! which order.

#[path = "../support/control_ring.rs"]
#[allow(dead_code, unreachable_pub, reason = "others use the rest of it")]
mod control_ring;
mod device;
mod rss;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use linecard_eal::memory::{Memory, MemoryConfig, PagePolicy};
use linecard_lab::contract::{Ends, FarEnd, Limits, Link, Peer};
use linecard_lab::wait_until;
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::{Armed, DevArgs, Device, Port, PortConfig, ProbeContext, configure};
use linecard_virtio::Features;
use linecard_virtio_user::VirtioUser;
use linecard_virtio_user::backend::{RingId, status};

use device::{InProcess, MAC, Machine};

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
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let memory = Memory::new(config).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let pool = PoolConfig::default().packets(packets).cache(32);
        let pool = Pool::new(&domain, pool).expect("a pool");
        let context = ProbeContext::new(memory, domain, Duration::from_millis(200));
        Self { context, pool, driver: VirtioUser::new() }
    }

    fn probe(&self, device: &InProcess, args: &str) -> Result<Box<dyn Device>, String> {
        let args = DevArgs::parse(&format!("net_virtio_user0,{args}")).expect("well formed");
        let device = self.driver.probe_over(&self.context, &args, Arc::new(device.clone()));
        device.map_err(|error| error.to_string())
    }

    fn open(&self, device: &InProcess, args: &str, queues: u16) -> Result<Port, String> {
        let config = PortConfig::default().rx_queues(queues).tx_queues(queues);
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
    bench.pool.get_bulk(&mut burst, 1).unwrap();
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
    let config = PortConfig::default().rx_queues(2).tx_queues(1);
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
    let config = PortConfig::default().mtu(1400);
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
        let more = PoolConfig::default().packets(4096).cache(32);
        let more = Pool::new(&bench.context.domain, more).expect("a pool");
        wait_until("the device knows more", || device.now().shared.segments().len() > before);
        let mut burst = Burst::new();
        more.get_bulk(&mut burst, 1).unwrap();
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
