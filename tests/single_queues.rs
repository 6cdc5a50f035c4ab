//! Single queues of a started port: stopped, started later, counted; rings of a size for each direction. Our two ends, every kind of
//! ring. (`virtio-user/tests/dpdk.rs` has DPDK's backend.)

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use linecard::eal::memory::{Domain, Memory, MemoryConfig, PagePolicy};
use linecard::mempool::{Burst, Pool, PoolConfig};
use linecard::pmd::{Armed, DevArgs, Driver, Port, PortConfig, ProbeContext, QueueId, configure};
use linecard::vhost_user::VhostDriver;
use linecard::virtio_user::VirtioUser;
use linecard_lab::{PATIENCE, wait_until};

static VHOST: VhostDriver = VhostDriver::new();
static VIRTIO_USER: VirtioUser = VirtioUser::new();

const KINDS: [&str; 4] = ["in_order=0", "in_order=1", "packed_vq=1,in_order=0", "packed_vq=1,in_order=1"];
const RX0: QueueId = QueueId::Receive(0);
const RX1: QueueId = QueueId::Receive(1);
const TX0: QueueId = QueueId::Transmit(0);
const TX1: QueueId = QueueId::Transmit(1);

/// A folder of a test's own, removed with what is in it.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("linecard-queues-{test}-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    fn join(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Bench {
    memory: Memory,
    domain: Arc<Domain>,
    pool: Pool,
}

impl Bench {
    fn new() -> Self {
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let memory = Memory::new(config).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let pool = PoolConfig::default().packets(4096).cache(32);
        let pool = Pool::new(&domain, pool).expect("a pool");
        Self { memory, domain, pool }
    }

    fn start(&self, driver: &dyn Driver, args: &str, config: PortConfig) -> Port {
        let context = ProbeContext::new(self.memory.clone(), self.domain.clone(), PATIENCE);
        let device = driver.probe(&context, &DevArgs::parse(args).expect("well formed")).expect("a device");
        configure(device, config).and_then(|made| made.start(&self.pool)).expect("a port")
    }

    /// Puts `count` frames into a transmit queue, of which none is left.
    fn send(&self, port: &mut Port, queue: usize, count: usize) {
        let mut burst = Burst::new();
        self.pool.get_bulk(&mut burst, count).expect("packets");
        for packet in burst.iter_mut() {
            packet.append(60).expect("room").fill(queue as u8);
        }
        wait_until("they are sent", || {
            port.tx[queue].tx_burst(&mut burst);
            burst.is_empty()
        });
        port.tx[queue].reclaim();
    }

    fn two_queues() -> PortConfig {
        PortConfig::default().rx_queues(2).tx_queues(2)
    }
}

/// Receives exactly `count` frames, each of that queue.
fn receive(port: &mut Port, queue: usize, count: usize) {
    let (mut burst, mut came) = (Burst::new(), 0);
    wait_until("they come", || {
        port.rx[queue].rx_burst(&mut burst);
        assert!(burst.iter().all(|packet| packet.data() == [queue as u8; 60]));
        came += burst.clear();
        came >= count
    });
    assert_eq!(came, count);
}

fn used(port: &Port, queue: QueueId) -> u16 {
    port.control.used_descriptors(queue).expect("it can be counted")
}

/// A frontend and a backend with two queues each.
fn ends(bench: &Bench, socket: &Path, options: &str) -> (Port, Port) {
    let back =
        bench.start(&VHOST, &format!("net_vhost0,iface={},queues=2", socket.display()), Bench::two_queues());
    let args = format!("net_virtio_user0,path={},queues=2,{options}", socket.display());
    let front = bench.start(&VIRTIO_USER, &args, Bench::two_queues());
    wait_until("both up", || front.control.link().up && back.control.link().up);
    (front, back)
}

/// As many as wait, on each queue, however they got there: in one burst or several, around the end of a ring too.
#[test]
fn descriptors_are_counted() {
    for options in KINDS {
        let (bench, scratch) = (Bench::new(), Scratch::new("counted"));
        let (mut front, mut back) = ends(&bench, &scratch.join("s"), &format!("{options},queue_size=64"));
        for round in 0..20 {
            for (queue, counts) in [(0, [1, 30]), (1, [17, 3])] {
                let (rx, tx, all) =
                    (QueueId::Receive(queue as u16), QueueId::Transmit(queue as u16), counts[0] + counts[1]);
                assert_eq!((used(&front, rx), used(&front, tx), used(&back, rx)), (0, 0, 0));
                for count in counts {
                    bench.send(&mut front, queue, count);
                }
                assert_eq!(
                    usize::from(used(&back, rx)),
                    all,
                    "{options} {round}: what the backend has to receive"
                );
                assert_eq!(
                    usize::from(used(&front, tx)),
                    all,
                    "{options} {round}: what it has not finished with"
                );
                receive(&mut back, queue, all);
                assert_eq!((used(&back, rx), used(&front, tx)), (0, 0), "{options} {round}");
                for count in counts {
                    bench.send(&mut back, queue, count);
                }
                assert_eq!(
                    usize::from(used(&front, rx)),
                    all,
                    "{options} {round}: what the frontend has to receive"
                );
                receive(&mut front, queue, all);
                assert_eq!(used(&front, rx), 0, "{options} {round}");
            }
        }
        // What a backend sends is its frontend's at once.
        let refused = back.control.used_descriptors(TX0).expect_err("nobody knows").to_string();
        assert!(
            refused.contains("counting the descriptors of transmit queue 0 is not supported; "),
            "{refused}"
        );
        let none =
            front.control.used_descriptors(QueueId::Receive(2)).expect_err("there are two").to_string();
        assert_eq!(none, "net_virtio_user0: there is no receive queue 2, and 2 of these, from 0 on");
        drop(back.stop());
        wait_until("it is gone", || !front.control.link().up);
        assert_eq!((used(&front, RX0), used(&front, TX0)), (0, 0), "nobody is there");
        drop(front.stop());
    }
}

/// A queue is counted while a thread polls it and packets pass: none is lost by that.
#[test]
fn queues_that_are_polled_are_counted() {
    let (bench, scratch) = (Bench::new(), Scratch::new("polled"));
    let (mut front, mut back) = ends(&bench, &scratch.join("s"), "");
    let (counted, control, far) = (AtomicUsize::new(0), front.control.clone(), back.control.clone());
    let passed = std::thread::scope(|scope| {
        let poller = scope.spawn(|| {
            let mut passed = 0;
            while counted.load(Ordering::Acquire) < 100 {
                bench.send(&mut front, 0, 8);
                receive(&mut back, 0, 8);
                passed += 8;
            }
            passed
        });
        while counted.load(Ordering::Acquire) < 100 && !poller.is_finished() {
            let all =
                [control.used_descriptors(TX0), control.used_descriptors(RX0), far.used_descriptors(RX0)];
            assert!(all.into_iter().all(|used| used.expect("it can be counted") <= 8));
            counted.fetch_add(1, Ordering::AcqRel);
        }
        poller.join().expect("no packet is lost")
    });
    assert_eq!((front.control.stats().opackets, back.control.stats().ipackets), (passed, passed));
    drop((front.stop(), back.stop()));
}

/// One queue of the frontend stops and starts again; the other one goes on, and nothing is lost on either.
#[test]
fn queues_of_a_frontend_stop_alone() {
    for options in KINDS {
        let (bench, scratch) = (Bench::new(), Scratch::new("front"));
        let (mut front, mut back) = ends(&bench, &scratch.join("s"), options);
        let control = front.control.clone();
        for _ in 0..3 {
            // What is under way stays in the queue.
            bench.send(&mut back, 0, 5);
            control.stop_queue(RX0).expect("it can be stopped");
            control.stop_queue(TX0).expect("it can be stopped");
            assert!(!control.queue_started(RX0) && !control.queue_started(TX0));
            assert!(control.queue_started(RX1) && control.queue_started(TX1) && control.link().up);
            let mut burst = Burst::new();
            assert_eq!(front.rx[0].rx_burst(&mut burst), 0, "{options}");
            bench.pool.get_bulk(&mut burst, 3).expect("packets");
            burst.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(0));
            assert_eq!((front.tx[0].tx_burst(&mut burst), burst.len()), (0, 3), "{options}");
            bench.send(&mut front, 1, 20);
            receive(&mut back, 1, 20);
            bench.send(&mut back, 1, 20);
            receive(&mut front, 1, 20);
            // The backend was told: it gives nothing to a ring that is disabled.
            let mut kept = Burst::new();
            bench.pool.get_bulk(&mut kept, 1).expect("packets");
            kept[0].append(60).expect("room").fill(0);
            assert_eq!(back.tx[0].tx_burst(&mut kept), 0, "{options}");
            control.start_queue(RX0).expect("it can be started");
            control.start_queue(TX0).expect("it can be started");
            receive(&mut front, 0, 5);
            assert_eq!(front.tx[0].tx_burst(&mut burst), 3);
            receive(&mut back, 0, 3);
            bench.send(&mut back, 0, 1);
            receive(&mut front, 0, 1);
        }
        control.start_queue(RX0).expect("it is started already");
        assert!(control.stop_queue(QueueId::Transmit(7)).is_err(), "there is none");
        drop((front.stop(), back.stop()));
        let stats = bench.pool.stats();
        assert_eq!(stats.free + stats.cached, stats.total);
    }
}

/// A backend that comes anew finds the queue stopped; it is started then. A port that starts anew has all its queues.
#[test]
fn a_stopped_queue_outlives_its_backend() {
    let (bench, scratch) = (Bench::new(), Scratch::new("outlives"));
    let socket = scratch.join("s");
    let (mut front, back) = ends(&bench, &socket, "");
    front.control.stop_queue(RX1).expect("it can be stopped");
    drop(back.stop());
    wait_until("it is gone", || !front.control.link().up);
    front.control.stop_queue(TX0).expect("also while nobody is there");
    let args = format!("net_vhost0,iface={},queues=2", socket.display());
    let mut back = bench.start(&VHOST, &args, Bench::two_queues());
    wait_until("both up", || front.control.link().up && back.control.depth(RX1).is_some());
    assert!(!front.control.queue_started(RX1) && !front.control.queue_started(TX0));
    bench.send(&mut front, 1, 4);
    receive(&mut back, 1, 4);
    let mut burst = Burst::new();
    bench.pool.get_bulk(&mut burst, 2).expect("packets");
    burst.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(0));
    assert_eq!(front.tx[0].tx_burst(&mut burst), 0);
    front.control.start_queue(TX0).expect("it can be started");
    front.control.start_queue(RX1).expect("it can be started");
    assert_eq!(front.tx[0].tx_burst(&mut burst), 2);
    receive(&mut back, 0, 2);
    bench.send(&mut back, 1, 2);
    receive(&mut front, 1, 2);
    front.control.stop_queue(RX0).expect("it can be stopped");
    let device = front.stop();
    let front =
        configure(device, Bench::two_queues()).and_then(|made| made.start(&bench.pool)).expect("a port");
    assert!([RX0, RX1, TX0, TX1].into_iter().all(|queue| front.control.queue_started(queue)));
    drop((front.stop(), back.stop()));
}

/// The same of the backend: it moves nothing on a queue that is stopped, and tells the frontend nothing of that.
#[test]
fn queues_of_a_backend_stop_alone() {
    for options in KINDS {
        let (bench, scratch) = (Bench::new(), Scratch::new("back"));
        let (mut front, mut back) = ends(&bench, &scratch.join("s"), options);
        let control = back.control.clone();
        for _ in 0..3 {
            control.stop_queue(RX0).expect("it can be stopped");
            control.stop_queue(TX1).expect("it can be stopped");
            assert!(!control.queue_started(RX0) && control.queue_started(RX1) && control.link().up);
            bench.send(&mut front, 0, 6);
            bench.send(&mut front, 1, 6);
            receive(&mut back, 1, 6);
            let mut burst = Burst::new();
            assert_eq!(back.rx[0].rx_burst(&mut burst), 0, "{options}");
            assert_eq!(used(&back, RX0), 6, "{options}: they wait");
            bench.pool.get_bulk(&mut burst, 2).expect("packets");
            burst.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(1));
            assert_eq!(back.tx[1].tx_burst(&mut burst), 0, "{options}");
            bench.send(&mut back, 0, 4);
            receive(&mut front, 0, 4);
            control.start_queue(RX0).expect("it can be started");
            control.start_queue(TX1).expect("it can be started");
            receive(&mut back, 0, 6);
            assert_eq!(back.tx[1].tx_burst(&mut burst), 2);
            receive(&mut front, 1, 2);
        }
        drop((front.stop(), back.stop()));
    }
}

/// Queues that are deferred start when they are told to; a port that cannot says so.
#[test]
fn queues_start_later() {
    let (bench, scratch) = (Bench::new(), Scratch::new("later"));
    let socket = scratch.join("s");
    let deferred = |queues: &[QueueId]| Bench::two_queues().deferred(queues.to_vec());
    let args = format!("net_vhost0,iface={},queues=2", socket.display());
    let mut back = bench.start(&VHOST, &args, deferred(&[RX1]));
    let args = format!("net_virtio_user0,path={},queues=2", socket.display());
    let mut front = bench.start(&VIRTIO_USER, &args, deferred(&[TX0, RX0]));
    wait_until("both up", || front.control.link().up && back.control.link().up);
    assert!(!front.control.queue_started(TX0) && !front.control.queue_started(RX0));
    assert!(front.control.queue_started(TX1) && !back.control.queue_started(RX1));
    bench.send(&mut front, 1, 3);
    let mut burst = Burst::new();
    assert_eq!(back.rx[1].rx_burst(&mut burst), 0);
    assert_eq!(used(&back, RX1), 3);
    back.control.start_queue(RX1).expect("it can be started");
    receive(&mut back, 1, 3);
    [TX0, RX0].into_iter().for_each(|queue| front.control.start_queue(queue).expect("it can be started"));
    bench.send(&mut front, 0, 3);
    receive(&mut back, 0, 3);
    bench.send(&mut back, 0, 2);
    receive(&mut front, 0, 2);
    // Stopped and started anew without a word about it, it has all its queues.
    let device = back.stop();
    let back =
        configure(device, Bench::two_queues()).and_then(|made| made.start(&bench.pool)).expect("a port");
    assert!(back.control.queue_started(RX1));
    drop((front.stop(), back.stop()));
    let context = ProbeContext::new(bench.memory.clone(), bench.domain.clone(), PATIENCE);
    let null = linecard::drivers().probe(&context, "net_null0").expect("a device");
    let refused = configure(null, PortConfig::default().deferred(vec![RX0]));
    let refused = refused.err().expect("it cannot").to_string();
    assert_eq!(
        refused,
        "net_null0: a deferred start of receive queue 0 is not supported; have it start with the port"
    );
}

/// Who sleeps over a queue that is stopped wakes when it is started and has packets.
#[test]
fn a_sleeper_over_a_stopped_queue_wakes_when_it_starts() {
    let (bench, scratch) = (Bench::new(), Scratch::new("sleeps"));
    let (mut front, mut back) = ends(&bench, &scratch.join("s"), "");
    bench.send(&mut back, 0, 1);
    front.control.stop_queue(RX0).expect("it can be stopped");
    assert_eq!(front.rx[0].arm(), Armed::Asleep, "nothing comes");
    front.control.start_queue(RX0).expect("it can be started");
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let event = front.rx[0].event().expect("it was armed");
    let bound = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    assert!(poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], Some(&bound)).expect("poll") > 0);
    front.rx[0].disarm();
    receive(&mut front, 0, 1);
    drop((front.stop(), back.stop()));
}

/// Descriptors of each direction, as many as the frontend's arguments and its configuration allow.
const SIZES: [(&str, u16, u16, u16, u16); 6] = [
    ("queue_size=256", 1024, 1024, 256, 256),
    ("rx_queue_size=512,tx_queue_size=64", 1024, 1024, 512, 64),
    ("queue_size=1024", 128, 512, 128, 512),
    ("queue_size=512,packed_vq=1", 100, 512, 64, 512),
    ("rx_queue_size=300,tx_queue_size=77,packed_vq=1", 0, 0, 300, 77),
    ("queue_size=256", 1, 2, 1, 2),
];

/// Sends until the first ring is full; how many frames it took.
fn fill(bench: &Bench, port: &mut Port) -> usize {
    let mut sent = 0;
    loop {
        let mut burst = Burst::new();
        bench.pool.get_bulk(&mut burst, 32).expect("packets");
        burst.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(0));
        match port.tx[0].tx_burst(&mut burst) {
            32 => sent += 32,
            last => return sent + last,
        }
    }
}

#[test]
fn rings_have_a_size_for_each_direction() {
    for (options, rx_depth, tx_depth, rx, tx) in SIZES {
        let (bench, scratch) = (Bench::new(), Scratch::new("sizes"));
        let socket = scratch.join("s");
        let mut back =
            bench.start(&VHOST, &format!("net_vhost0,iface={}", socket.display()), PortConfig::default());
        let args = format!("net_virtio_user0,path={},{options}", socket.display());
        let config = PortConfig::default().rx_depth(rx_depth).tx_depth(tx_depth);
        let mut front = bench.start(&VIRTIO_USER, &args, config);
        wait_until("both up", || front.control.link().up && back.control.link().up);
        assert_eq!((front.control.depth(RX0), front.control.depth(TX0)), (Some(rx), Some(tx)), "{options}");
        assert_eq!((back.control.depth(TX0), back.control.depth(RX0)), (Some(rx), Some(tx)), "{options}");
        let sent = fill(&bench, &mut front);
        assert_eq!(sent, usize::from(tx), "{options}: until the ring is full");
        receive(&mut back, 0, sent);
        for _ in 0..3 * rx.min(100) {
            bench.send(&mut back, 0, 1);
            receive(&mut front, 0, 1);
        }
        drop((front.stop(), back.stop()));
    }
}
