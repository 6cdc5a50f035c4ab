//! VLAN tags: filtered and taken out of what is received, put into what is sent.

use std::collections::BTreeMap;

use linecard::mempool::{Burst, Offload, Packet, TxOffload};
use linecard::pmd::TxQueue;
use linecard::pmd::filter::VlanSet;

use crate::testpmd::modes::Mode;

/// Highest VLAN identifier; 0 tags a priority alone.
pub(crate) const MAX_VLAN: u16 = 4095;

const TAG_LEN: usize = 4;
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// What is done with the tags of received frames: `vlan set …`, `rx_vlan …`.
#[derive(Clone, Debug)]
pub(crate) struct RxVlan {
    pub(crate) strip: bool,
    /// Queues that differ from the port.
    pub(crate) strip_queues: BTreeMap<u16, bool>,
    pub(crate) qinq_strip: bool,
    /// Tagged frames of other VLANs than `allowed` are dropped.
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
    /// Whether anything is done.
    pub(crate) fn active(&self) -> bool {
        self.strip || self.qinq_strip || self.filter || self.strip_queues.values().any(|on| *on)
    }

    /// Does it to a frame received on `queue`; false when the frame is not to be received.
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

/// The outermost tag: its protocol and its control information.
fn tag(frame: &[u8]) -> Option<(u16, u16)> {
    let protocol = field(frame, 12).filter(|kind| matches!(*kind, CUSTOMER_TAG | SERVICE_TAG))?;
    Some((protocol, field(frame, 14)?))
}

/// Takes the outermost tag out of the frame and into the packet's metadata; false when there is none.
fn strip(packet: &mut Packet) -> bool {
    let Some((_, tci)) = tag(packet.data()) else { return false };
    let Some(front) = packet.data_mut().and_then(|data| data.first_chunk_mut::<16>()) else { return false };
    front.copy_within(..12, TAG_LEN);
    if packet.adj(TAG_LEN).is_err() {
        return false;
    }
    packet.set_vlan_tci(tci);
    packet.set_offload(packet.offload() | Offload::RX_VLAN | Offload::RX_VLAN_STRIPPED);
    true
}

/// The tags of frames that leave a port, outermost first: `tx_vlan set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TxTags {
    pub(crate) outer: Option<u16>,
    pub(crate) inner: u16,
}

impl TxTags {
    /// Puts them in; a frame without room for them leaves as it is.
    fn insert(self, packet: &mut Packet) {
        let inner = (CUSTOMER_TAG, self.inner);
        for (protocol, tci) in [Some(inner), self.outer.map(|tci| (SERVICE_TAG, tci))].into_iter().flatten() {
            if packet.len() < 12 || packet.prepend(TAG_LEN).is_none() {
                return;
            }
            let Some(front) = packet.data_mut().and_then(|data| data.first_chunk_mut::<16>()) else { return };
            front.copy_within(TAG_LEN.., 0);
            front[12..14].copy_from_slice(&protocol.to_be_bytes());
            front[14..].copy_from_slice(&tci.to_be_bytes());
            if packet.offload().intersects(Offload::TX_OFFLOAD_MASK) {
                let was = packet.tx_offload();
                let lengths = TxOffload::new(was.l2_len() + TAG_LEN as u16, was.l3_len(), was.l4_len());
                packet.set_tx_offload(Offload::empty(), lengths.with_tso_segsz(was.tso_segsz()));
            }
        }
    }
}

/// A mode whose packets leave with tags. A type of its own, so that modes without tags ask for none.
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
