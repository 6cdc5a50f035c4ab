//! The contract for the three kinds of null port, and their arguments.

use std::time::Duration;

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::PoolConfig;

use super::*;
use linecard_lab::contract::{Ends, FarEnd, Link as Subject};
use linecard_pmd::config::configure;

struct As(&'static str);

impl Subject for As {
    fn open(&self, context: &ProbeContext, _: &ProbeContext) -> Ends {
        let args = DevArgs::parse(self.0).expect("well formed");
        Ends { near: NullDriver.probe(context, &args).expect("probes"), far: FarEnd::Nothing }
    }
}

mod free {
    linecard_lab::contract_tests!(super::As("net_null0"));
}

mod copy {
    linecard_lab::contract_tests!(super::As("net_null0,size=1500,copy=1"));
}

mod chains {
    linecard_lab::contract_tests!(super::As("net_null0,size=9000,copy=1"));
}

mod no_rx {
    linecard_lab::contract_tests!(super::As("net_null0,no-rx=1"));
}

fn context() -> ProbeContext {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("test").expect("a domain");
    ProbeContext::new(memory, domain, Duration::ZERO)
}

fn probe(context: &ProbeContext, text: &str) -> Result<Box<dyn Device>, Error> {
    NullDriver.probe(context, &DevArgs::parse(text)?)
}

fn pool(context: &ProbeContext, packets: u32) -> Pool {
    Pool::new(&context.domain, PoolConfig::default().packets(packets).cache(0)).expect("a pool")
}

#[test]
fn packets_are_as_asked() {
    let context = context();
    let pool = pool(&context, 256);
    for (text, size, copy) in [("net_null0", 64, false), ("net_null0,size=200,copy=1", 200, true)] {
        let device = probe(&context, text).expect("probes");
        let mut port =
            configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect("starts");
        let mut burst = Burst::new();
        assert_eq!(port.rx[0].rx_burst(&mut burst), 64, "as many as there is room for");
        assert_eq!(port.rx[0].rx_burst(&mut burst), 0, "no room, no packets");
        assert!(burst.iter().all(|packet| packet.data().len() == size));
        assert!(!copy || burst.iter().all(|packet| packet.data().iter().all(|byte| *byte == 0)));
        assert_eq!(port.tx[0].tx_burst(&mut burst), 64);
        assert!(burst.is_empty());
        let (_, stats) = (port.rx[0].path(), port.control.stats());
        assert_eq!((stats.ipackets, stats.ibytes), (64, 64 * size as u64));
        assert_eq!(stats.ibytes, stats.obytes);
        port.stop();
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn an_empty_pool_is_counted() {
    let context = context();
    let pool = pool(&context, 32);
    let device = probe(&context, "net_null0").expect("probes");
    let mut port =
        configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect("starts");
    assert_eq!(port.rx[0].rx_burst(&mut Burst::new()), 0);
    assert_eq!(port.control.stats().rx_nombuf, 1);
    assert!(port.control.xstats().contains(&("rx_q0_no_buffer".to_owned(), 1)));
}

#[test]
fn bad_arguments_are_refused() {
    let context = context();
    for (text, want) in [
        ("net_null0,size=0", "net_null0: 'size=0' is not possible; give size a number from 1 to 65535"),
        ("net_null0,copy=2", "net_null0: 'copy=2' is not possible; give copy 0 or 1"),
        (
            "net_null0,copy=1,no-rx=1",
            "net_null0: 'copy=1' and 'no-rx=1' exclude each other; leave one of them out",
        ),
        (
            "net_null0,no_rx=1",
            "net_null0: unknown argument 'no_rx'; did you mean 'no-rx'? known: size, copy, no-rx",
        ),
    ] {
        assert_eq!(probe(&context, text).err().expect(text).to_string(), want);
    }
}

#[test]
fn a_size_beyond_a_buffer_is_a_chain() {
    let context = context();
    let pool = pool(&context, 256);
    for text in ["net_null0,size=9000", "net_null0,size=9000,copy=1"] {
        let device = probe(&context, text).expect("probes");
        let mut port =
            configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect("starts");
        let mut burst = Burst::with_capacity(8);
        assert_eq!(port.rx[0].rx_burst(&mut burst), 8);
        assert!(burst.iter().all(|packet| (packet.len(), packet.nb_segs()) == (9000, 5)));
        assert_eq!(port.control.stats().ibytes, 8 * 9000);
        port.tx[0].tx_burst(&mut burst);
        assert_eq!(port.control.stats().obytes, 8 * 9000);
        // 256 packets are 51 chains.
        let mut all = Burst::new();
        assert_eq!((port.rx[0].rx_burst(&mut all), port.control.stats().rx_nombuf), (51, 1));
        drop(all);
        port.stop();
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn a_size_that_fits_no_packet_brings_the_device_back() {
    let context = context();
    let config = PoolConfig::default().packets(32).cache(0).data_room(64);
    let pool = Pool::new(&context.domain, config).expect("a pool");
    let device = probe(&context, "net_null0,size=20000").expect("probes");
    let refused =
        configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect_err("too large");
    assert_eq!(refused.device.name(), "net_null0");
    assert_eq!(
        refused.error.to_string(),
        "net_null0: size=20000 does not fit into a packet of at most 16320 bytes; \
         ask for a smaller size or a pool with larger buffers"
    );
}
