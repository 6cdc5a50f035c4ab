//! smoltcp's [`phy::Device`](smoltcp::phy::Device) on any port of Linecard: TCP and UDP sockets in this process, without the
//! kernel, over a vhost-user socket, a tap, a network card.
//!
//! ```text
//!   sockets ─ smoltcp::iface::Interface ─ PortDevice ─ rx_burst / tx_burst ─ any driver
//! ```
//! A program polls the interface, then has the device [wait](PortDevice::wait) for packets or for the interface's next
//! deadline:
//!
//! ```
//! use linecard::pmd::Offloads;
//! use linecard::prelude::*;
//! use linecard_smoltcp::PortDevice;
//! use smoltcp::iface::{Config, Interface, SocketSet};
//! use smoltcp::time::Instant;
//!
//! let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
//! let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
//! let port = linecard::open(&eal, &pool, "net_ring0")?;
//! let mut device = PortDevice::new(port, &pool, Offloads::default());
//! let config = Config::new(device.hardware_address().into());
//! let mut interface = Interface::new(config, &mut device, Instant::now());
//! let mut sockets = SocketSet::new(vec![]);
//! for _ in 0..3 {
//!     interface.poll(Instant::now(), &mut device, &mut sockets);
//!     device.wait(interface.poll_delay(Instant::now(), &sockets));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! `examples/http.rs` of the repository is an HTTP server in about 90 lines.
//!
//! **Checksums**: what the port was configured to do ([`Offloads`]) is left to it, both ways; smoltcp does the rest. A port that tells
//! the state of checksums (`RxOffloads::CHECKSUM`) may hand over packets whose sender left them unfinished; those are taken
//! as they are, and packets of which nothing is known are checked here. A UDP datagram that is put together from fragments
//! is not checked then.
//!
//! **Segmentation**: a port that was configured to cut TCP packets (`TxOffloads::TCP_TSO`, with `TCP_CKSUM`) gets up to 64 KiB of a
//! connection as one packet. It leaves large towards a peer that takes it so, and is cut by the port otherwise. A port that hands
//! over merged packets (`RxOffloads::TCP_LRO`) may do so: smoltcp takes whatever length a packet has. The MTU is the link's in
//! either case, so the largest segment that a connection agrees on fits the wire.
//!
//! **Not possible with smoltcp 0.14**: segmentation of UDP, for which it has no request; the checksums of IPv4 headers and of
//! ICMP are always its own, because they cost little (of a packet to be cut, the port makes those of IPv4).
//!
//! **Not supported**: several queues (the first of each is used).
#![forbid(unsafe_code)]

mod token;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use linecard_mempool::{Burst, Packet, Pool};
use linecard_net::offload::{Verdict, verify_transport};
use linecard_net::{Offload, parse};
use linecard_pmd::offload::{RxOffloads, TxOffloads};
use linecard_pmd::wake::ArmBudget;
use linecard_pmd::{Armed, Offloads, Port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use token::Sending;
pub use token::{RxToken, TxToken};

/// Ethernet header.
const HEADER: usize = 14;
/// Longest frame that a port is given to cut: what IPv4 can say of its length.
const LARGEST: usize = 65_535;
/// Longest sleep: a peer that forgets to signal costs its own packets this.
const LONGEST: Duration = Duration::from_millis(50);
/// How long a queue is left alone that cannot wake, or one that has no room.
const NAP: Duration = Duration::from_millis(1);

/// A started port as smoltcp's device. It uses the port's first queue in each direction.
///
/// The [crate](self) has an example.
#[derive(Debug)]
pub struct PortDevice {
    port: Port,
    rx_offloads: RxOffloads,
    /// Received, and not asked for yet.
    received: VecDeque<Packet>,
    sending: Sending,
    /// Where a packet of several segments lies in one piece.
    scratch: Vec<u8>,
    bad_checksums: u64,
    budget: ArmBudget,
}

impl PortDevice {
    /// A device on `port`, which was configured with these `offloads`; what is sent lies in packets of `pool`.
    #[must_use]
    pub fn new(mut port: Port, pool: &Pool, offloads: Offloads) -> Self {
        port.rx.first_mut().into_iter().for_each(|queue| queue.prepare_arm());
        let sending =
            Sending { out: Burst::new(), pool: pool.clone(), offloads: offloads.tx, large: Vec::new() };
        Self {
            port,
            rx_offloads: offloads.rx,
            received: VecDeque::new(),
            sending,
            scratch: Vec::new(),
            bad_checksums: 0,
            budget: ArmBudget::new(),
        }
    }

    /// The port's address, for `smoltcp::iface::Config`.
    #[must_use]
    pub fn hardware_address(&self) -> EthernetAddress {
        EthernetAddress(self.port.control.mac())
    }

    /// Packets dropped here because their checksum was wrong; with receive checksum offload only.
    #[must_use]
    pub fn bad_checksums(&self) -> u64 {
        self.bad_checksums
    }

    /// The port, for its counters and link.
    #[must_use]
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// The port again; what was received and not asked for is dropped.
    #[must_use]
    pub fn into_port(mut self) -> Port {
        self.flush();
        self.port
    }

    /// Sends what the interface has written since the last time. [`wait`](Self::wait) does it, too.
    pub fn flush(&mut self) {
        if let Some(tx) = self.port.tx.first_mut() {
            tx.tx_burst(&mut self.sending.out);
            tx.reclaim();
        }
    }

    /// Sends what was written, then sleeps until packets come, `delay` is over (as `Interface::poll_delay` says it), or 50 ms
    /// have passed. Returns at once if it has slept as often as an [`ArmBudget`] allows.
    pub fn wait(&mut self, delay: Option<smoltcp::time::Duration>) {
        self.flush();
        let mut longest = delay.map_or(LONGEST, Into::into).min(LONGEST);
        if !self.sending.out.is_empty() {
            longest = longest.min(NAP);
        }
        let Some(rx) = self.port.rx.first_mut().filter(|_| self.received.is_empty() && !longest.is_zero())
        else {
            return;
        };
        if !self.budget.take(std::time::Instant::now()) {
            return;
        }
        match rx.arm() {
            Armed::Ready => {}
            Armed::Unable => std::thread::sleep(longest.min(NAP)),
            Armed::Asleep => {
                let Some(event) = rx.event() else { return };
                let mut entries = [PollFd::new(&event, PollFlags::IN)];
                let nanos = i64::from(longest.subsec_nanos());
                // At most 50 ms. An interrupted sleep is a short one.
                let _ = poll(&mut entries, Some(&Timespec { tv_sec: 0, tv_nsec: nanos }));
            }
        }
        rx.disarm();
    }

    /// The next packet that was received and is not known to be damaged.
    fn next(&mut self) -> Option<Packet> {
        loop {
            if self.received.is_empty() {
                let mut packets = Burst::new();
                self.port.rx.first_mut()?.rx_burst(&mut packets);
                let count = packets.len();
                self.received.extend(packets.drain(..count));
            }
            let packet = self.received.pop_front()?;
            if self.is_whole(&packet) {
                return Some(packet);
            }
            self.bad_checksums += 1;
        }
    }

    /// Whether a packet may be handed to a stack that does not check TCP and UDP itself.
    fn is_whole(&mut self, packet: &Packet) -> bool {
        if !self.rx_offloads.intersects(RxOffloads::CHECKSUM) {
            return true;
        }
        let state = packet.offload() & Offload::RX_L4_CKSUM_MASK;
        if state == Offload::RX_L4_CKSUM_BAD {
            return false;
        }
        if !state.is_empty() {
            return true;
        }
        let frame = token::in_one_piece(packet, &mut self.scratch);
        verify_transport(frame, &parse(frame)) != Verdict::Bad
    }
}

/// Who does a checksum: smoltcp, or the port in a direction.
fn checksum(port_receives: bool, port_sends: bool) -> Checksum {
    match (port_receives, port_sends) {
        (false, false) => Checksum::Both,
        (false, true) => Checksum::Rx,
        (true, false) => Checksum::Tx,
        (true, true) => Checksum::None,
    }
}

impl Device for PortDevice {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        // The answer has to have a place before the question is taken.
        let answer = self.place()?;
        let packet = self.next()?;
        let Self { scratch, sending, .. } = self;
        Some((RxToken::new(packet, scratch), TxToken::new(answer, sending)))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        let packet = self.place()?;
        Some(TxToken::new(packet, &mut self.sending))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit =
            (usize::from(self.port.control.mtu()) + HEADER).min(usize::from(self.sending.pool.data_room()));
        let tx = self.sending.offloads;
        let receives = self.rx_offloads.intersects(RxOffloads::CHECKSUM);
        capabilities.checksum.tcp = checksum(receives, tx.contains(TxOffloads::TCP_CKSUM));
        capabilities.checksum.udp = checksum(receives, tx.contains(TxOffloads::UDP_CKSUM));
        // Whoever cuts a packet makes the checksums of its pieces.
        if tx.contains(TxOffloads::TCP_TSO | TxOffloads::TCP_CKSUM) {
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(LARGEST);
            capabilities.segmentation.tcpv6 = NonZeroUsize::new(LARGEST);
        }
        capabilities
    }
}

impl PortDevice {
    /// A packet to be written and room to send it.
    fn place(&mut self) -> Option<Packet> {
        if self.sending.out.room() == 0 {
            self.flush();
        }
        if self.sending.out.room() == 0 { None } else { self.sending.pool.get() }
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
