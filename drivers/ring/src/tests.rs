//! The contract, for a ring with itself and for a pair; and what only rings do.

use std::time::Duration;

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::PoolConfig;

use super::*;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link as Subject};
use linecard_pmd::config::configure;

struct Loop;

impl Subject for Loop {
    fn open(&self, context: &ProbeContext, _: &ProbeContext) -> Ends {
        let args = DevArgs::parse("net_ring0").expect("well formed");
        Ends { near: RingDriver.probe(context, &args).expect("probes"), far: FarEnd::Loop }
    }

    fn limits(&self) -> Limits {
        Limits { queues: 3, segments: 8, ..Limits::default() }
    }
}

struct Pair;

impl Subject for Pair {
    fn open(&self, _: &ProbeContext, _: &ProbeContext) -> Ends {
        let (near, far) = pair("net_ring0", "net_ring1");
        Ends { near, far: FarEnd::port(far) }
    }
}

mod with_itself {
    linecard_lab::contract_tests!(super::Loop);
}

mod with_another {
    linecard_lab::contract_tests!(super::Pair);
}

fn pool() -> (Pool, ProbeContext) {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("test").expect("a domain");
    let pool = Pool::new(&domain, PoolConfig::default().packets(512)).expect("a pool");
    (pool, ProbeContext::new(memory, domain, Duration::ZERO))
}

fn start(device: Box<dyn Device>, pool: &Pool, depth: u16) -> Port {
    let config = PortConfig::default().rx_depth(depth).tx_depth(depth);
    configure(device, config).and_then(|port| port.start(pool)).expect("starts")
}

fn send(port: &mut Port, pool: &Pool, count: usize) -> usize {
    let mut burst = Burst::new();
    pool.get_bulk(&mut burst, count).unwrap();
    port.tx[0].tx_burst(&mut burst)
}

#[test]
fn a_lane_is_as_deep_as_asked() {
    let (pool, _) = pool();
    let (mut a, _b) = pair("a", "b");
    for depth in [1, 5, 64, 100] {
        let mut near = start(a, &pool, depth);
        let sent: usize = (0..4).map(|_| send(&mut near, &pool, 32)).sum();
        assert_eq!(sent, usize::from(depth).min(128));
        a = near.stop();
        assert_eq!(pool.stats().in_use, 0, "nobody will receive them");
    }
}

#[test]
fn the_link_follows_the_other_side() {
    let (pool, _) = pool();
    let (a, b) = pair("a", "b");
    let a = start(a, &pool, 16);
    assert!(!a.control.link().up);
    let b = start(b, &pool, 16);
    assert!(a.control.link().up && b.control.link().up);
    let b = b.stop();
    assert!(!a.control.link().up);
    drop((a, b));
}

#[test]
fn what_is_sent_to_a_stopped_port_waits_for_it() {
    let (pool, _) = pool();
    let (a, b) = pair("a", "b");
    let mut a = start(a, &pool, 16);
    assert_eq!(send(&mut a, &pool, 20), 16, "until the lane is full");
    let mut b = start(b, &pool, 256);
    let mut got = Burst::new();
    assert_eq!(b.rx[0].rx_burst(&mut got), 16);
    drop((a.stop(), got, b.stop()));
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn dropped_ports_lose_no_packet() {
    let (pool, _) = pool();
    for order in 0..2 {
        let (a, b) = pair("a", "b");
        let (mut a, mut b) = (start(a, &pool, 64), start(b, &pool, 64));
        assert_eq!((send(&mut a, &pool, 30), send(&mut b, &pool, 7)), (30, 7));
        if order == 0 {
            drop((a, b))
        } else {
            drop((b, a))
        }
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn a_queue_in_use_is_not_lent_again() {
    let (pool, context) = pool();
    let device =
        RingDriver.probe(&context, &DevArgs::parse("net_ring0").expect("well formed")).expect("probes");
    let mut port = start(device, &pool, 64);
    let rx = port.rx.remove(0);
    let refused =
        configure(port.stop(), PortConfig::default()).and_then(|port| port.start(&pool)).expect_err("in use");
    assert_eq!(
        refused.error.to_string(),
        "net_ring0: starting while receive queue 0 of an earlier start is in use is not supported; \
         drop that queue, or give it back to the port before it stops"
    );
    drop(rx);
    start(refused.device, &pool, 32).stop();
}

/// Two devices joined by their arguments.
struct Named([&'static str; 2]);

impl Subject for Named {
    fn open(&self, near: &ProbeContext, _: &ProbeContext) -> Ends {
        let open = |text| RingDriver.probe(near, &DevArgs::parse(text).expect("well formed")).expect(text);
        let near = open(self.0[0]);
        Ends { near, far: FarEnd::port(open(self.0[1])) }
    }
}

mod with_a_peer {
    linecard_lab::contract_tests!(super::Named(["net_ring0,peer=net_ring1", "net_ring1"]));
}

mod by_a_node {
    linecard_lab::contract_tests!(super::Named([
        "net_ring0,nodeaction=r:0:CREATE",
        "net_ring1,nodeaction=r:0:ATTACH"
    ]));
}

fn probe(context: &ProbeContext, text: &str) -> Result<Box<dyn Device>, Error> {
    RingDriver.probe(context, &DevArgs::parse(text).expect("well formed"))
}

#[test]
fn peers_find_each_other_in_either_order() {
    let (pool, context) = pool();
    for [first, second] in [
        ["net_ring0,peer=net_ring1", "net_ring1,peer=net_ring0"],
        ["net_ring1,peer=net_ring0", "net_ring0,peer=net_ring1"],
        ["net_ring8,peer=net_ring9", "net_ring9"],
    ] {
        let (a, b) = (probe(&context, first).expect(first), probe(&context, second).expect(second));
        let (mut a, mut b) = (start(a, &pool, 16), start(b, &pool, 16));
        assert_eq!(send(&mut a, &pool, 5), 5);
        assert_eq!((b.rx[0].rx_burst(&mut Burst::new()), a.rx[0].rx_burst(&mut Burst::new())), (5, 0));
        // One may go and come back.
        drop(b.stop());
        let mut b = start(probe(&context, second).expect(second), &pool, 16);
        assert_eq!(send(&mut b, &pool, 3), 3);
        assert_eq!(a.rx[0].rx_burst(&mut Burst::new()), 3);
    }
    // Another program in this process has names of its own.
    let (_, other) = self::pool();
    let _here = probe(&context, "net_ring0").expect("here");
    let _there = probe(&other, "net_ring1,peer=net_ring0").expect("there");
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn arguments_are_refused() {
    let (_, context) = pool();
    let refused = |text| probe(&context, text).err().expect(text).to_string();
    assert_eq!(refused("net_ring0,size=1"), "net_ring0: unknown argument 'size'; known: peer, nodeaction");
    let _loop = probe(&context, "net_ring5").expect("a loop");
    assert_eq!(
        refused("net_ring0,peer=net_ring5"),
        "net_ring0: 'net_ring5' is joined with another device, or with itself; \
         name net_ring0 before it, or give it peer=net_ring0"
    );
    let _create = probe(&context, "net_ring1,nodeaction=x:0:CREATE").expect("creates");
    for (text, want) in [
        ("net_ring0,peer=net_ring0", "'peer=net_ring0' is no other net_ring device"),
        ("net_ring0,peer=net_tap0", "'peer=net_tap0' is no other net_ring device"),
        ("net_ring0,nodeaction=x:0:CREATE", "has a device; close that device"),
        ("net_ring0,nodeaction=y:0:ATTACH", "nobody created the pair that 'y:0:ATTACH' names"),
        ("net_ring0,nodeaction=x:0", "write nodeaction=NAME:NODE:CREATE"),
        ("net_ring0,nodeaction=x:0:attach", "write nodeaction=NAME:NODE:CREATE"),
        ("net_ring0,nodeaction=x:0:ATTACH,peer=net_ring1", "exclude each other"),
    ] {
        let said = refused(text);
        assert!(said.contains(want), "{text}: {said}");
    }
}
