//! A driver that panics when told to, beside one that does not.

use std::time::Duration;

use linecard_eal::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Pool, PoolConfig};

use linecard_net_null as null;
use linecard_net_ring as ring;
use linecard_pmd::contain::*;
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::{Port, PortConfig, ProbeContext, Registry, RxQueue, TxQueue, configure};

struct Bench {
    context: ProbeContext,
    pool: Pool,
}

impl Bench {
    fn new() -> Self {
        let memory = Memory::new(MemoryConfig::default()).unwrap();
        let domain = memory.domain("packets").unwrap();
        let pool = Pool::new(&domain, PoolConfig::default().packets(4096)).unwrap();
        Self { context: ProbeContext::new(memory, domain, Duration::from_secs(1)), pool }
    }

    fn port(&self, device: &str) -> Port {
        let registry = Registry::new(&[&null::NullDriver, &ring::RingDriver]);
        let device = registry.probe(&self.context, device).unwrap();
        configure(device, PortConfig::default()).unwrap().start(&self.pool).unwrap()
    }
}

/// Bursts that go well, and then a panic in the middle of one.
struct Faulty<Q> {
    queue: Q,
    good: u32,
}

impl<Q> Faulty<Q> {
    fn last(&mut self) -> bool {
        let last = self.good == 0;
        self.good = self.good.saturating_sub(1);
        last
    }
}

impl RxQueue for Faulty<Box<dyn RxQueue>> {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let count = self.queue.rx_burst(packets);
        assert!(!self.last(), "a chain of {count} was not expected");
        count
    }

    fn path(&self) -> &'static str {
        self.queue.path()
    }
}

impl TxQueue for Faulty<Box<dyn TxQueue>> {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        assert!(!self.last(), "no room where there must be some");
        self.queue.tx_burst(packets)
    }

    fn reclaim(&mut self) {
        assert!(!self.last(), "a completion that nobody asked for");
    }

    fn path(&self) -> &'static str {
        self.queue.path()
    }
}

fn faulty(port: Port, good: u32) -> Port {
    let rx = port.rx.into_iter().map(|queue| Box::new(Faulty { queue, good }) as Box<dyn RxQueue>).collect();
    let tx = port.tx.into_iter().map(|queue| Box::new(Faulty { queue, good }) as Box<dyn TxQueue>).collect();
    Port { rx, tx, ..port }
}

fn xstat(port: &Port, name: &str) -> u64 {
    port.control.xstats().into_iter().find(|(known, _)| known == name).map(|(_, value)| value).expect(name)
}

#[test]
fn a_receive_queue_that_panics_is_not_polled_again_and_its_neighbour_loses_nothing() {
    let bench = Bench::new();
    let (mut faulty, mut healthy) =
        (contain(faulty(bench.port("net_null0"), 2)), contain(bench.port("net_ring0")));
    let (mut packets, mut back, mut received, mut returned) = (Burst::new(), Burst::new(), 0, 0);
    for _ in 0..10 {
        received += faulty.rx[0].rx_burst(&mut packets);
        packets.clear();
        bench.pool.get_bulk(&mut packets, 32).unwrap();
        assert_eq!(healthy.tx[0].tx_burst(&mut packets), 32);
        returned += healthy.rx[0].rx_burst(&mut back);
        back.clear();
    }
    assert_eq!((received, returned), (2 * 64, 320), "two good bursts of the one, all of the other");
    assert_eq!((xstat(&faulty, "rx_q0_panics"), xstat(&faulty, "tx_q0_panics")), (1, 0));
    assert_eq!(xstat(&healthy, "rx_q0_panics"), 0);
    assert!(faulty.control.paths().contains("receive queue 0 panicked"), "{}", faulty.control.paths());
    assert_eq!(faulty.rx[0].path(), "panicked");

    bench.pool.get_bulk(&mut packets, 8).unwrap();
    assert_eq!(faulty.tx[0].tx_burst(&mut packets), 8, "the other queue of that port goes on");
    healthy.stop();
    let device = faulty.stop();
    assert_eq!(bench.pool.stats().in_use, 64, "the burst that panicked is given up, nothing else");
    let mut again = configure(device, PortConfig::default()).unwrap().start(&bench.pool).unwrap();
    assert_eq!(again.rx[0].rx_burst(&mut packets), 64, "a new start has new queues");
}

#[test]
fn packets_that_were_there_before_stay_the_callers() {
    let bench = Bench::new();
    let mut port = contain(faulty(bench.port("net_null0"), 0));
    let mut packets = Burst::with_capacity(40);
    bench.pool.get_bulk(&mut packets, 10).unwrap();
    assert_eq!((port.rx[0].rx_burst(&mut packets), packets.len(), packets.capacity()), (0, 10, 40));
    packets.clear();
    port.stop();
    assert_eq!(bench.pool.stats().in_use, 30);
}

#[test]
fn a_transmit_queue_that_panics_counts_what_it_had_and_takes_nothing_more() {
    let bench = Bench::new();
    let mut port = contain(faulty(bench.port("net_null0"), 1));
    let mut packets = Burst::with_capacity(32);
    let mut send = |port: &mut Port, count| {
        bench.pool.get_bulk(&mut packets, count).unwrap();
        let taken = port.tx[0].tx_burst(&mut packets);
        (taken, packets.clear())
    };
    assert_eq!(send(&mut port, 32), (32, 0));
    assert_eq!(send(&mut port, 20), (20, 0), "taken, dropped and counted");
    assert_eq!(send(&mut port, 32), (0, 32), "left to the application");
    port.tx[0].reclaim();
    let stats = port.control.stats();
    assert_eq!((stats.opackets, stats.oerrors, port.control.queue_stats(0).oerrors), (32, 20, 20));
    assert_eq!((xstat(&port, "tx_errors"), xstat(&port, "tx_q0_panics")), (20, 1));
    port.control.reset_stats();
    assert_eq!((port.control.stats().oerrors, xstat(&port, "tx_q0_panics")), (0, 1));
    port.stop();
    assert_eq!(bench.pool.stats().in_use, 20);
}

#[test]
fn a_panic_outside_of_a_burst_is_contained_too() {
    let bench = Bench::new();
    let mut port = contain(faulty(bench.port("net_null0"), 0));
    port.tx[0].reclaim();
    assert_eq!(xstat(&port, "tx_q0_panics"), 1);
    let mut packets = Burst::new();
    bench.pool.get_bulk(&mut packets, 5).unwrap();
    assert_eq!((port.tx[0].tx_burst(&mut packets), packets.len()), (0, 5));
}

/// A queue that shows frames before they become packets, and counts what was taken.
struct Showing {
    taken: u64,
    panics: bool,
}

impl RxQueue for Showing {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        0
    }

    fn rx_direct(&mut self, _: &mut Burst, sink: &mut Sink<'_>) -> usize {
        assert!(!self.panics, "before frames are shown");
        self.taken = sink(&[Frame::of(&[0; 60]), Frame::of(&[1; 200])]);
        assert_ne!(self.taken, 1, "behind the frames");
        2
    }

    fn path(&self) -> &'static str {
        if self.taken == 3 { "all taken" } else { "showing" }
    }
}

impl TxQueue for Showing {
    fn tx_burst(&mut self, _: &mut Burst) -> usize {
        0
    }

    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        assert!(!self.panics, "in the middle of frames");
        Some(frames.len())
    }

    fn path(&self) -> &'static str {
        "showing"
    }
}

#[test]
fn a_panic_over_shown_frames_is_told_from_one_of_the_queue() {
    let bench = Bench::new();
    let queue = |panics| Showing { taken: 0, panics };
    let rx = vec![queue(false), queue(false), queue(true)];
    let (port, mut rx, mut tx) = contain_queues(bench.port("net_null0"), rx, vec![queue(false), queue(true)]);
    let mut packets = Burst::new();
    // Whoever is shown frames panics: that is not the queue's fault, and it has taken them off its ring.
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rx[0].rx_direct(&mut packets, &mut |_| panic!("over a frame"));
    }));
    assert_eq!(message(&*panic.expect_err("it goes on")), "over a frame");
    assert_eq!((rx[0].path(), xstat(&port, "rx_q0_panics")), ("all taken", 0));
    assert_eq!(rx[0].rx_direct(&mut packets, &mut |frames| frames.len() as u64), 2);
    // The queue itself does, behind the frames or before.
    assert_eq!(rx[1].rx_direct(&mut packets, &mut |_| 1), 0);
    assert_eq!(rx[2].rx_direct(&mut packets, &mut |_| 0), 0);
    assert_eq!(rx[2].rx_direct(&mut packets, &mut |_| unreachable!("it is not polled")), 0);
    assert_eq!(["rx_q1_panics", "rx_q2_panics"].map(|name| xstat(&port, name)), [1, 1]);

    let frames = [Frame::of(&[0; 60]), Frame::of(&[1; 200])];
    assert_eq!(tx[0].tx_direct(&frames), Some(2));
    assert_eq!((tx[1].tx_direct(&frames), tx[1].tx_direct(&frames)), (Some(2), Some(0)));
    assert_eq!((port.control.stats().oerrors, xstat(&port, "tx_q1_panics")), (2, 1));
}

/// A queue that panics once more when it is dropped.
struct Bomb;

impl RxQueue for Bomb {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        panic!("in a burst")
    }

    fn path(&self) -> &'static str {
        "bomb"
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("at the end");
    }
}

#[test]
fn dropping_a_queue_that_panicked_does_not_panic() {
    let bench = Bench::new();
    let port = bench.port("net_null0");
    let (port, mut rx, tx) = contain_queues(port, vec![Bomb], Vec::<Box<dyn TxQueue>>::new());
    assert_eq!(rx[0].rx_burst(&mut Burst::new()), 0);
    drop((rx, tx));
    port.stop();
}
