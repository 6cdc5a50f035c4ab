//! What every driver must do: over a veth pair against another port and against the kernel's packet socket, and over a
//! TAP against the program that holds it.

use std::fs::File;
use std::io::{Read, Write};

use linecard_mempool::Pool;

use super::{lab, probe, tap};
use linecard_lab::Cable;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link, Peer};
use linecard_pmd::config::PortConfig;
use linecard_pmd::port::ProbeContext;

/// A port with these options at either end of a veth pair.
struct Veth {
    options: &'static str,
    longest: usize,
    queues: u16,
}

impl Link for Veth {
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends {
        // Its ports hold the namespaces.
        let cable =
            Cable::with_queues("contract of net_af_xdp", 2).expect("present, as the test asked before");
        let options = format!(",queue_count=2,{}", self.options);
        let device = probe(near, &cable.at_near("net_af_xdp0", &options)).expect("an interface");
        let other = probe(far, &cable.at_far("net_af_xdp1", &options)).expect("an interface");
        // Where a program takes them from its ring, a veth counts frames without their Ethernet header.
        let uncounted = if self.options.starts_with("mode=drv") { 14 } else { 0 };
        Ends { near: device, far: FarEnd::Peer(cable.peer(other, uncounted)) }
    }

    fn ready(&self) -> bool {
        ready()
    }

    fn limits(&self) -> Limits {
        // A socket that prefers to be polled has its interrupts put off.
        Limits { wakes: self.options.contains("busy_budget=0"), ..limits(self.longest, self.queues) }
    }
}

/// Whether this machine lets us.
fn ready() -> bool {
    lab("the contract over net_af_xdp").is_some()
}

/// A veth's ring has 256 places, and who finds it full loses the frame.
fn limits(longest: usize, queues: u16) -> Limits {
    Limits { len: 14..=longest, quiet: false, window: 128, queues, wakes: false, ..Limits::default() }
}

/// The program that holds a TAP: what the port's far side is read from and written to.
struct Descriptor(File);

impl Peer for Descriptor {
    fn start(&mut self, _: &PortConfig, _: &Pool) {}

    fn is_up(&self) -> bool {
        true
    }

    fn send(&mut self, _: usize, frame: &[u8]) -> bool {
        self.0.write(frame).is_ok_and(|len| len == frame.len())
    }

    fn receive(&mut self, _: usize) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65536];
        let len = self.0.read(&mut frame).ok()?;
        frame.truncate(len);
        Some(frame)
    }

    fn stop(&mut self) {}
}

/// A port at one end of a veth pair, the kernel's packet socket at the other.
struct Packet;

impl Link for Packet {
    fn open(&self, near: &ProbeContext, _: &ProbeContext) -> Ends {
        let lab = lab("contract of net_af_xdp").expect("present, as the test asked before");
        // The packet socket sends to whichever queue it likes.
        lab.veth("near", "far");
        let args = format!("net_af_xdp0,iface=near,queue_count=1,netns={}", lab.path());
        let near = probe(near, &args).expect("an interface");
        Ends { near, far: FarEnd::Peer(Box::new(lab.wire("far"))) }
    }

    fn ready(&self) -> bool {
        ready()
    }

    fn limits(&self) -> Limits {
        limits(1514, 1)
    }
}

/// A port on a TAP, and the program that holds it.
struct Tap(&'static str);

impl Link for Tap {
    fn open(&self, near: &ProbeContext, _: &ProbeContext) -> Ends {
        let lab = lab("contract of net_af_xdp").expect("present, as the test asked before");
        let program = tap(&lab, "tap0");
        let args = format!("net_af_xdp0,iface=tap0,netns={},{}", lab.path(), self.0);
        let near = probe(near, &args).expect("an interface");
        Ends { near, far: FarEnd::Peer(Box::new(Descriptor(program))) }
    }

    fn ready(&self) -> bool {
        ready()
    }

    fn limits(&self) -> Limits {
        limits(1514, 1)
    }
}

// What takes long or says nothing new is left out of the variants.
macro_rules! some {
    ($link:expr; $($clause:ident)+) => { linecard_lab::contract_tests! { @each $link; $($clause)+ } };
}

mod native {
    linecard_lab::contract_tests!(super::Veth { options: "mode=drv", longest: 1514, queues: 2 });
}

// In the stack, frames of a veth all come by its first queue.
mod generic {
    linecard_lab::contract_tests!(super::Veth {
        options: "mode=skb,busy_budget=0",
        longest: 1514,
        queues: 1
    });
}

mod jumbo {
    some!(super::Veth { options: "mode=drv,busy_budget=0", longest: 9014, queues: 2 }; restarts packet_sizes chains counters full_rings wakes);
}

mod packet {
    linecard_lab::contract_tests!(super::Packet);
}

mod tap_native {
    linecard_lab::contract_tests!(super::Tap("mode=drv"));
}

mod tap_generic {
    some!(super::Tap("mode=skb"); restarts packet_sizes chains counters full_rings);
}
