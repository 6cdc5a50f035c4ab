//! From a fresh connection to agreed features.
//!
//! ```text
//!   greet      GET_FEATURES · GET/SET_PROTOCOL_FEATURES · SET_OWNER · GET_QUEUE_NUM · GET_MAX_MEM_SLOTS
//!   agree      SET_STATUS acknowledge, driver · SET_FEATURES · SET_STATUS features-ok · GET_STATUS
//!   (rings)    SET_VRING_CALL · SET_MEM_TABLE · SET_VRING_{NUM,BASE,ADDR,KICK,ENABLE} · SET_STATUS driver-ok
//! ```
//! (QEMU `docs/interop/vhost-user.rst`; virtio 1.3, Device Initialization.)

use std::os::fd::{AsFd, BorrowedFd};

use linecard_eal::eventfd::EventFd;
use linecard_pmd::Offloads;
use linecard_pmd::offload::{RxOffloads, TxOffloads};
use linecard_virtio::{Features, Layout, RingAddrs};
use linecard_wire::payload::{PackedBase, Payload, VringAddr, VringFd, VringState};
use linecard_wire::{FrontendReq, ProtocolFeatures};

use crate::args::Options;
use crate::dialogue::Dialogue;
use crate::error::Error;

/// Device status bits (virtio 1.3, Device Status Field).
mod status {
    pub(super) const ACKNOWLEDGE: u64 = 1;
    pub(super) const DRIVER: u64 = 2;
    pub(super) const DRIVER_OK: u64 = 4;
    pub(super) const FEATURES_OK: u64 = 8;
    pub(super) const NEEDS_RESET: u64 = 64;
    pub(super) const FAILED: u64 = 128;
}

/// A backend that said what it can do.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) dialogue: Dialogue,
    pub(crate) offered: Features,
    pub(crate) protocol: ProtocolFeatures,
    /// Queue pairs it has.
    pub(crate) pairs: u16,
    /// Memory regions it takes one by one; 0 when it takes tables only.
    pub(crate) slots: usize,
}

fn wanted_protocol() -> ProtocolFeatures {
    ProtocolFeatures::MQ
        | ProtocolFeatures::REPLY_ACK
        | ProtocolFeatures::STATUS
        | ProtocolFeatures::CONFIGURE_MEM_SLOTS
}

/// Asks the backend what it can do.
pub(crate) fn greet(mut dialogue: Dialogue) -> Result<Greeted, Error> {
    let offered = Features::from_bits(dialogue.ask(FrontendReq::GET_FEATURES, &[])?);
    let mut protocol = ProtocolFeatures::empty();
    if offered.contains(Features::PROTOCOL_FEATURES) {
        let theirs: u64 = dialogue.ask(FrontendReq::GET_PROTOCOL_FEATURES, &[])?;
        protocol = ProtocolFeatures::from_bits_truncate(theirs) & wanted_protocol();
        dialogue.tell(FrontendReq::SET_PROTOCOL_FEATURES, &protocol.bits().to_bytes(), &[])?;
        dialogue.set_acks(protocol.contains(ProtocolFeatures::REPLY_ACK));
    }
    dialogue.tell(FrontendReq::SET_OWNER, &[], &[])?;
    let mut greeted = Greeted { dialogue, offered, protocol, pairs: 1, slots: 0 };
    if protocol.contains(ProtocolFeatures::MQ) {
        let pairs: u64 = greeted.dialogue.ask(FrontendReq::GET_QUEUE_NUM, &[])?;
        greeted.pairs = u16::try_from(pairs).unwrap_or(u16::MAX);
    }
    if protocol.contains(ProtocolFeatures::CONFIGURE_MEM_SLOTS) {
        let slots: u64 = greeted.dialogue.ask(FrontendReq::GET_MAX_MEM_SLOTS, &[])?;
        greeted.slots = usize::try_from(slots).unwrap_or(usize::MAX);
    }
    Ok(greeted)
}

/// The features both sides have, of those the user wants.
pub(crate) fn choose(offered: Features, options: &Options, pairs: u16) -> Result<Features, Error> {
    let wanted = Features::VERSION_1
        .union(Features::INDIRECT_DESC)
        .union(Features::PROTOCOL_FEATURES)
        .with(Features::NET_MRG_RXBUF, options.mrg_rxbuf)
        .with(Features::IN_ORDER, options.in_order)
        .with(Features::RING_PACKED, options.packed_vq)
        .with(Features::NET_MQ, pairs > 1);
    let features = (offered & wanted.union(offloads(options))).without_orphans();
    if !features.contains(Features::VERSION_1) {
        return Err(Error::Feature { name: "VIRTIO_F_VERSION_1" });
    }
    if pairs > 1 && !features.contains(Features::NET_MQ) {
        return Err(Error::Feature { name: "VIRTIO_NET_F_MQ (several queues)" });
    }
    Layout::check_size(layout(features), u32::from(options.queue_size))
        .map_err(|_| Error::RingSize { asked: options.queue_size })?;
    Ok(features)
}

/// The features that the offloads asked for stand for. A large packet takes several of our buffers.
fn offloads(options: &Options) -> Features {
    let Offloads { rx, tx } = options.offloads;
    let large = rx.contains(RxOffloads::TCP_LRO) && options.mrg_rxbuf;
    Features::NONE
        .with(Features::NET_GUEST_CSUM, large || rx.intersects(RxOffloads::CHECKSUM))
        .with(Features::GUEST_SEGMENTS, large)
        .with(Features::NET_CSUM, tx.intersects(TxOffloads::CHECKSUM.union(TxOffloads::SEGMENT)))
        .with(Features::NET_HOST_TSO4, tx.contains(TxOffloads::TCP_TSO))
        .with(Features::NET_HOST_TSO6, tx.contains(TxOffloads::TCP_TSO))
        .with(Features::NET_HOST_ECN, tx.contains(TxOffloads::TCP_TSO))
        .with(Features::NET_HOST_USO, tx.contains(TxOffloads::UDP_TSO))
}

/// The ring format that `features` stand for.
pub(crate) fn layout(features: Features) -> Layout {
    if features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split }
}

impl Greeted {
    fn has(&self, feature: ProtocolFeatures) -> bool {
        self.protocol.contains(feature)
    }

    /// Settles on features, and makes sure that the backend agrees.
    pub(crate) fn agree(&mut self, options: &Options, pairs: u16) -> Result<Features, Error> {
        if pairs > self.pairs {
            return Err(Error::Queues { asked: pairs, offered: u64::from(self.pairs) });
        }
        let features = choose(self.offered, options, pairs)?;
        self.set_status(status::ACKNOWLEDGE)?;
        self.set_status(status::ACKNOWLEDGE | status::DRIVER)?;
        self.dialogue.tell(FrontendReq::SET_FEATURES, &features.bits().to_bytes(), &[])?;
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK)?;
        if self.has(ProtocolFeatures::STATUS) {
            let got: u64 = self.dialogue.ask(FrontendReq::GET_STATUS, &[])?;
            let bad = got & (status::NEEDS_RESET | status::FAILED) != 0 || got & status::FEATURES_OK == 0;
            if bad {
                return Err(Error::Status { features: features.to_string(), status: got });
            }
        }
        Ok(features)
    }

    /// The device status, where the backend keeps one.
    fn set_status(&mut self, status: u64) -> Result<(), Error> {
        if self.has(ProtocolFeatures::STATUS) {
            self.dialogue.tell(FrontendReq::SET_STATUS, &status.to_bytes(), &[])?;
        }
        Ok(())
    }

    /// The driver is ready: the backend may use the rings.
    pub(crate) fn driver_ok(&mut self) -> Result<(), Error> {
        use status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)?;
        self.dialogue.barrier()
    }

    /// The device is reset: the backend forgets the rings.
    pub(crate) fn reset(&mut self) -> Result<(), Error> {
        self.set_status(0)
    }

    /// A message about one ring with a descriptor.
    fn ring_fd(&mut self, request: FrontendReq, index: u8, event: &EventFd) -> Result<(), Error> {
        let payload = VringFd { index, has_fd: true }.to_bytes();
        let fds: [BorrowedFd<'_>; 1] = [event.as_fd()];
        self.dialogue.tell(request, &payload, &fds)
    }

    /// The first message about a ring: DPDK's backends make the ring when they hear of it.
    pub(crate) fn ring_call(&mut self, index: u8, call: &EventFd) -> Result<(), Error> {
        self.ring_fd(FrontendReq::SET_VRING_CALL, index, call)
    }

    /// Where a fresh ring is, and what wakes the backend.
    pub(crate) fn ring_start(&mut self, ring: &RingPlace<'_>) -> Result<(), Error> {
        let index = u32::from(ring.index);
        let state = |num| VringState { index, num }.to_bytes();
        let base = match ring.layout {
            Layout::Split => 0,
            Layout::Packed => PackedBase { avail: 0, avail_wrap: true, used: 0, used_wrap: true }.to_u32(),
        };
        let RingAddrs { desc, driver, device } = ring.addrs;
        let addr = VringAddr { index, flags: 0, desc, used: device, avail: driver, log: 0 };
        let dialogue = &mut self.dialogue;
        dialogue.tell(FrontendReq::SET_VRING_NUM, &state(u32::from(ring.size)), &[])?;
        dialogue.tell(FrontendReq::SET_VRING_BASE, &state(base), &[])?;
        dialogue.tell(FrontendReq::SET_VRING_ADDR, &addr.to_bytes(), &[])?;
        self.ring_fd(FrontendReq::SET_VRING_KICK, ring.index, ring.kick)
    }

    /// Lets the backend use a ring; without protocol features rings start enabled.
    pub(crate) fn ring_enable(&mut self, index: u8) -> Result<(), Error> {
        if self.offered.contains(Features::PROTOCOL_FEATURES) {
            let state = VringState { index: u32::from(index), num: 1 };
            self.dialogue.tell(FrontendReq::SET_VRING_ENABLE, &state.to_bytes(), &[])?;
        }
        Ok(())
    }

    /// Stops a ring: when this returns the backend does not touch it any more.
    pub(crate) fn ring_stop(&mut self, index: u8) -> Result<(), Error> {
        let state = VringState { index: u32::from(index), num: 0 };
        self.dialogue.ask::<VringState>(FrontendReq::GET_VRING_BASE, &state.to_bytes()).map(drop)
    }
}

/// One ring as the backend has to know it.
pub(crate) struct RingPlace<'a> {
    pub(crate) index: u8,
    pub(crate) layout: Layout,
    pub(crate) size: u16,
    pub(crate) addrs: RingAddrs,
    pub(crate) kick: &'a EventFd,
}
