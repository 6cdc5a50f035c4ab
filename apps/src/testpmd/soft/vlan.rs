//! VLAN tags in software: filtering and stripping on receive, insertion on transmit.

use std::collections::BTreeMap;

use linecard::mempool::{Burst, Offload, Packet, TxOffload};
use linecard::pmd::TxQueue;
use linecard::pmd::filter::VlanSet;

use crate::testpmd::modes::Mode;

/// Highest VLAN identifier; identifier 0 marks a tag that carries only a priority.
pub(crate) const MAX_VLAN: u16 = 4095;

const TAG_LEN: usize = 4;
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// The handling of tags in received frames: `vlan set …`, `rx_vlan …`.
#[derive(Clone, Debug)]
pub(crate) struct RxVlan {
    pub(crate) strip: bool,
    /// Settings of queues that differ from the port's.
    pub(crate) strip_queues: BTreeMap<u16, bool>,
    pub(crate) qinq_strip: bool,
    /// Drops tagged frames of VLANs that are not in `allowed`.
    pub(crate) filter: bool,
    pub(crate) allowed: VlanSet,
}

impl Default for RxVlan {
    fn default() -> Self {
        Self {
            strip: false,
            strip_queues: BTreeMap::new(),
            qinq_strip: false,
            filter: false,
            allowed: VlanSet::NONE,
        }
    }
}

impl RxVlan {
    /// Whether any setting is on.
    pub(crate) fn active(&self) -> bool {
        self.strip || self.qinq_strip || self.filter || self.strip_queues.values().any(|on| *on)
    }

    /// Filters and strips the tags of a frame received on `queue`; false when the frame is to be dropped.
    pub(super) fn apply(&self, queue: u16, packet: &mut Packet) -> bool {
        let Some((_, tci)) = tag(packet.data()) else { return true };
        if self.filter && !self.allowed.has(tci & MAX_VLAN) {
            return false;
        }
        if self.qinq_strip {
            while strip(packet) {}
        } else if self.strip_queues.get(&queue).copied().unwrap_or(self.strip) {
            strip(packet);
        }
        true
    }
}

fn field(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Whether a frame with this type has a tag next.
pub(super) const fn is_tag(protocol: u16) -> bool {
    matches!(protocol, CUSTOMER_TAG | SERVICE_TAG)
}

/// Returns the outermost tag: its protocol and its control information.
fn tag(frame: &[u8]) -> Option<(u16, u16)> {
    let protocol = field(frame, 12).filter(|kind| is_tag(*kind))?;
    Some((protocol, field(frame, 14)?))
}

/// Moves the outermost tag from the frame to the packet's metadata; false when there is none.
fn strip(packet: &mut Packet) -> bool {
    let Some(tci) = take_out(packet) else { return false };
    packet.set_vlan_tci(tci);
    packet.set_offload(packet.offload() | Offload::RX_VLAN | Offload::RX_VLAN_STRIPPED);
    true
}

/// Removes the outermost tag from the frame; returns its control information.
fn take_out(packet: &mut Packet) -> Option<u16> {
    let (_, tci) = tag(packet.data())?;
    let front = packet.data_mut()?.first_chunk_mut::<16>()?;
    front.copy_within(..12, TAG_LEN);
    packet.adj(TAG_LEN).ok()?;
    Some(tci)
}

/// Inserts a tag in front of the frame's other tags; false, without a change, when there is no room.
fn push(packet: &mut Packet, protocol: u16, tci: u16) -> bool {
    if packet.len() < 12 || packet.prepend(TAG_LEN).is_none() {
        return false;
    }
    let Some(front) = packet.data_mut().and_then(|data| data.first_chunk_mut::<16>()) else {
        let _ = packet.adj(TAG_LEN);
        return false;
    };
    front.copy_within(TAG_LEN.., 0);
    front[12..14].copy_from_slice(&protocol.to_be_bytes());
    front[14..].copy_from_slice(&tci.to_be_bytes());
    if packet.offload().intersects(Offload::TX_OFFLOAD_MASK) {
        let was = packet.tx_offload();
        let lengths = TxOffload::new(was.l2_len() + TAG_LEN as u16, was.l3_len(), was.l4_len());
        packet.set_tx_offload(Offload::empty(), lengths.with_tso_segsz(was.tso_segsz()));
    }
    true
}

/// A change of a received frame's outermost tag: the `of_…_vlan…` actions of flow rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagEdit {
    Pop,
    /// Inserts a tag of this protocol, with control information 0.
    Push(u16),
    Vid(u16),
    Pcp(u8),
}

impl TagEdit {
    /// Applies the change to a frame; one without a tag has none to change or remove. Returns false when there is no room for a new
    /// tag: later changes would then be made to another one.
    pub(super) fn apply(self, packet: &mut Packet) -> bool {
        match self {
            Self::Pop => {
                take_out(packet);
            }
            Self::Push(protocol) => return push(packet, protocol, 0),
            Self::Vid(vid) => set_tci(packet, MAX_VLAN, vid),
            Self::Pcp(pcp) => set_tci(packet, 0xe000, u16::from(pcp) << 13),
        }
        true
    }
}

/// Sets those bits of the outermost tag's control information that `mask` selects.
fn set_tci(packet: &mut Packet, mask: u16, bits: u16) {
    let Some((_, tci)) = tag(packet.data()) else { return };
    let changed = tci & !mask | bits;
    if let Some(place) = packet.data_mut().and_then(|data| data.get_mut(14..16)) {
        place.copy_from_slice(&changed.to_be_bytes());
    }
}

/// The tags to insert into frames that leave a port: `tx_vlan set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TxTags {
    pub(crate) outer: Option<u16>,
    pub(crate) inner: u16,
}

impl TxTags {
    /// Inserts the tags; a packet without headroom for them stays as it is.
    fn insert(self, packet: &mut Packet) {
        let Some(outer) = self.outer else {
            push(packet, CUSTOMER_TAG, self.inner);
            return;
        };
        // A shared packet is copied first, because the copy may have less room. Room for one tag is not
        // enough.
        if packet.data_mut().is_some()
            && packet.headroom() >= 2 * TAG_LEN
            && push(packet, CUSTOMER_TAG, self.inner)
        {
            push(packet, SERVICE_TAG, outer);
        }
    }
}

/// A mode whose packets leave with tags. A separate type, so that modes without tags have no branch for them.
pub(crate) struct Tagged<M> {
    pub(crate) mode: M,
    pub(crate) tags: TxTags,
}

impl<M: Mode> Mode for Tagged<M> {
    const RECEIVES: bool = M::RECEIVES;
    const HOLDS_BACK: bool = M::HOLDS_BACK;
    const GENERATES: bool = M::GENERATES;

    fn step(&mut self, packets: &mut Burst) {
        self.mode.step(packets);
        self.before_first(packets);
    }

    fn before_first(&mut self, packets: &mut Burst) {
        packets.iter_mut().for_each(|packet| self.tags.insert(packet));
    }

    fn send(&mut self, tx: &mut dyn TxQueue, packets: &mut Burst) -> usize {
        self.mode.send(tx, packets)
    }

    fn lost(&mut self) -> usize {
        self.mode.lost()
    }

    fn came(&self) -> &[u64] {
        self.mode.came()
    }

    fn held(&self) -> usize {
        self.mode.held()
    }

    fn not_sent(&mut self, dropped: usize) {
        self.mode.not_sent(dropped);
    }
}
