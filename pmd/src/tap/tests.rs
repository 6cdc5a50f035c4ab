use std::sync::atomic::{AtomicU32, Ordering};

use linecard_mempool::Pool;

use super::TapDriver;
use crate::contract::{Ends, Far, Limits, Link, Peer};
use crate::netdev::Interface;
use crate::netdev::lab::{Lab, Wire};
use crate::{DevArgs, Driver, PortConfig, ProbeContext};

/// Most frames under way to the device; the kernel drops what its queue has no room for.
const UNDER_WAY: u64 = 512;

/// A tap port and a raw socket on its interface.
struct Tap {
    lab: Option<Lab>,
    extra: &'static str,
    longest: usize,
    number: AtomicU32,
}

impl Tap {
    fn new(extra: &'static str, longest: usize) -> Self {
        Self { lab: Lab::new("the contract of net_tap"), extra, longest, number: AtomicU32::new(0) }
    }
}

impl Link for Tap {
    fn ready(&self) -> bool {
        self.lab.is_some()
    }

    fn open(&self, context: &ProbeContext, _: &ProbeContext) -> Ends {
        let lab = self.lab.as_ref().expect("ready");
        let name = format!("tap{}", self.number.fetch_add(1, Ordering::Relaxed));
        let text = format!("net_tap0,iface={name},netns={}{}", lab.path(), self.extra);
        let args = DevArgs::parse(&text).expect("well formed");
        let near = TapDriver.probe(context, &args).expect("it opens");
        lab.ip(&format!("link set dev {name} addrgenmode none"));
        let interface = lab.interface(&name);
        Ends { near, far: Far::Peer(Box::new(Kernel { wire: lab.wire(&name), interface, sent: 0, base: 0 })) }
    }

    fn limits(&self) -> Limits {
        Limits { len: 14..=self.longest, queues: 1, quiet: false, ..Limits::default() }
    }
}

/// The kernel's side of a tap interface.
struct Kernel {
    wire: Wire,
    interface: Interface,
    sent: u64,
    /// What had passed before.
    base: u64,
}

impl Kernel {
    /// Frames that the device has read, or the kernel dropped.
    fn passed(&self) -> u64 {
        self.interface.facts().map_or(0, |facts| facts.stats.tx_packets + facts.stats.tx_dropped)
    }
}

impl Peer for Kernel {
    fn start(&mut self, _: &PortConfig, _: &Pool) {
        (self.sent, self.base) = (0, self.passed());
    }

    fn is_up(&self) -> bool {
        self.interface.link().up
    }

    fn send(&mut self, _: usize, frame: &[u8]) -> bool {
        if self.sent >= UNDER_WAY {
            let passed = self.passed();
            self.sent = self.sent.saturating_sub(passed - self.base);
            self.base = passed;
        }
        let sent = self.sent < UNDER_WAY && self.wire.send(frame);
        self.sent += u64::from(sent);
        sent
    }

    fn receive(&mut self, _: usize) -> Option<Vec<u8>> {
        self.wire.receive()
    }

    fn stop(&mut self) {}
}

mod plain {
    crate::contract_tests!(super::Tap::new("", 1514));
}

mod jumbo {
    crate::contract_tests!(super::Tap::new("", 9014));
}
