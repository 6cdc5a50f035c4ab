use std::sync::atomic::{AtomicU32, Ordering};

use linecard_mempool::Pool;
use linecard_net::ether::{Ethernet, ether_type};
use linecard_net::ip::{Ipv4, protocol};
use linecard_net::offload::fill_transport;
use linecard_net::transport::Udp;
use linecard_net::{Header, MacAddr};

use super::TapDriver;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link, Peer};
use linecard_lab::{Lab, Wire};
use linecard_netdev::Interface;
use linecard_pmd::{DevArgs, Driver, PortConfig, PortStats, ProbeContext};

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
        Ends {
            near,
            far: FarEnd::Peer(Box::new(Kernel { wire: lab.wire(&name), interface, sent: 0, base: 0 })),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            len: 14..=self.longest,
            queues: 1,
            quiet: false,
            window: UNDER_WAY as usize,
            ..Limits::default()
        }
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
        self.interface.info().map_or(0, |info| info.stats.tx_packets + info.stats.tx_dropped)
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

    fn set_link(&mut self, up: bool) -> bool {
        self.interface.set_up(up).is_ok()
    }

    fn remove(&mut self) -> bool {
        self.interface.remove().is_ok()
    }

    fn counters(&self) -> Option<PortStats> {
        let stats = self.interface.info().ok()?.stats;
        Some(PortStats {
            ipackets: stats.tx_packets,
            ibytes: stats.tx_bytes,
            opackets: stats.rx_packets,
            obytes: stats.rx_bytes,
            ..PortStats::default()
        })
    }
}

mod plain {
    linecard_lab::contract_tests!(super::Tap::new("", 1514));
}

mod jumbo {
    linecard_lab::contract_tests!(super::Tap::new("", 9014));
}

/// A datagram from 10.9.0.2 (02:…:02) to 10.9.0.1 (02:…:01).
fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 42 + payload.len()];
    frame[42..].copy_from_slice(payload);
    let len = payload.len() as u16;
    let (to, from) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let ethernet = Ethernet { destination: to, source: from, ether_type: ether_type::IPV4.into() };
    ethernet.store(&mut frame).expect("room");
    let ip = Ipv4::new([10, 9, 0, 2], [10, 9, 0, 1], protocol::UDP, 8 + len);
    ip.store(&mut frame[14..]).expect("room");
    Udp::new(source, destination, len).store(&mut frame[34..]).expect("room");
    let layers = linecard_net::parse(&frame);
    fill_transport(&mut frame, &layers).expect("it has a checksum");
    frame
}

mod again;
mod behaviour;
mod refused;
