//! Mode csum: checksums of forwarded packets, computed in software or left to the port; and TCP segmentation,
//! likewise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use linecard::mempool::{Burst, Offload, Packet, Pool, TxOffload};
use linecard::net::crc32c::Crc32c;
use linecard::net::{Layers, PacketType, parse};
use linecard::pmd::TxQueue;
use linecard::pmd::offload::{AcceptedOffloads, SoftLoss, SoftTx, TxOffloads, do_now};

use super::{Mode, tunnel};
use crate::testpmd::counters::LaneCounters;
use crate::testpmd::frames;
use crate::testpmd::settings::Mac;

/// The checksum and segmentation settings of a transmit port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksums {
    /// The offloads that the port performs; the others are done in software.
    pub(crate) tx: TxOffloads,
    /// Payload bytes of a TCP segment; 0 leaves large packets as they are.
    pub(crate) segment: u16,
    /// The longest packet to send, in bytes: longer TCP packets are segmented in software.
    pub(crate) gso: Option<u16>,
    /// Rewrites the addresses to those of the transmit port and its peer.
    pub(crate) rewrite: bool,
    /// Recomputes the inner checksums of tunnelled packets too.
    pub(crate) parse_tunnel: bool,
}

impl Default for Checksums {
    fn default() -> Self {
        Self { tx: TxOffloads::empty(), segment: 0, gso: None, rewrite: true, parse_tunnel: false }
    }
}

impl Checksums {
    /// The offloads that may be left to the port: segmentation only unless GSO does it in software.
    fn accepted(&self) -> AcceptedOffloads {
        let csum = self.tx.contains(TxOffloads::CHECKSUM);
        let tcp = self.gso.is_none() && self.tx.contains(TxOffloads::TCP_TSO);
        let udp = self.tx.contains(TxOffloads::UDP_TSO);
        // A port that segments packets completes their checksums too.
        AcceptedOffloads { csum: csum || tcp || udp, tso4: tcp, tso6: tcp, ecn: tcp, uso4: udp, uso6: udp }
    }
}

/// DPDK's csumonly: recomputes every IPv4, UDP, TCP and SCTP checksum.
pub(crate) struct Csum {
    pool: Pool,
    rule: Checksums,
    dst: Mac,
    src: Mac,
    accepted: AcceptedOffloads,
    soft: SoftTx,
    /// Packets that could not be completed or segmented, since they were last counted.
    lost: Arc<AtomicU64>,
    counters: Arc<LaneCounters>,
}

impl Csum {
    pub(crate) fn new(
        pool: Pool,
        rule: Checksums,
        [dst, src]: [Mac; 2],
        counters: Arc<LaneCounters>,
    ) -> Self {
        let lost = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&lost);
        let own = Arc::clone(&counters);
        let soft = SoftTx::new(pool.clone(), move |loss, packets| match loss {
            // Segments that still wait when the mode is dropped: nobody asks for `lost` any more.
            SoftLoss::Stopped => own.add_dropped(packets),
            _ => _ = heard.fetch_add(packets, Ordering::Relaxed),
        });
        Self { accepted: rule.accepted(), pool, rule, dst, src, soft, lost, counters }
    }
}

impl Mode for Csum {
    const HOLDS_BACK: bool = true;

    fn step(&mut self, packets: &mut Burst) {
        // A packet that could not be completed for lack of a buffer must not be sent with a wrong checksum.
        packets.retain(|packet| {
            let whole = self.one(packet);
            if !whole {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            whole
        });
    }

    fn send(&mut self, tx: &mut dyn TxQueue, packets: &mut Burst) -> usize {
        let mut sent = 0;
        self.soft.burst(packets, self.accepted, |ready| {
            let now = tx.tx_burst(ready);
            sent += now;
            now
        });
        sent
    }

    fn lost(&mut self) -> usize {
        usize::try_from(self.lost.swap(0, Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

impl Csum {
    fn one(&self, packet: &mut Packet) -> bool {
        self.count_bad(packet.offload());
        if self.rule.rewrite
            && let Some(data) = packet.data_mut()
        {
            frames::set_macs(data, self.dst, self.src);
        }
        // The offload metadata of a merged packet already describes it completely, for the port and for
        // software segmentation.
        if packet.offload().contains(Offload::RX_LRO) {
            return true;
        }
        let layers = parse(packet.data());
        if self.rule.parse_tunnel
            && packet.linearize().is_ok()
            && packet.data_mut().and_then(|data| tunnel::finish(data, &layers)).is_some()
        {
            return true;
        }
        if layers.packet_type.l4() == PacketType::L4_SCTP && !fill_sctp(packet, &layers) {
            return false;
        }
        let (port, here) = self.shares(packet, &layers);
        let lengths = TxOffload::new(layers.l2_len, layers.l3_len, layers.l4_len);
        let version = if layers.packet_type.is_ipv4() { Offload::TX_IPV4 } else { Offload::TX_IPV6 };
        if (port | here).is_empty() {
            return true;
        }
        if (port | here).intersects(Offload::TX_L4_MASK) {
            packet.set_offload(packet.offload() & !Offload::RX_L4_CKSUM_MASK);
        }
        if !here.is_empty() {
            packet.set_tx_offload(here | version, lengths);
            if do_now(packet, &self.pool).is_err() {
                return false;
            }
        }
        if !port.is_empty() {
            let size = self.segment_size(&layers);
            packet.set_tx_offload(port | version, lengths.with_tso_segsz(size));
        }
        true
    }

    fn count_bad(&self, flags: Offload) {
        let ip = flags & Offload::RX_IP_CKSUM_MASK == Offload::RX_IP_CKSUM_BAD;
        let l4 = flags & Offload::RX_L4_CKSUM_MASK == Offload::RX_L4_CKSUM_BAD;
        if ip || l4 {
            self.counters.bad_checksums(ip, l4);
        }
    }

    /// Payload bytes per segment of a TCP packet; 0 if it must not be segmented.
    fn segment_size(&self, layers: &Layers) -> u16 {
        let headers = u16::try_from(layers.payload_start()).unwrap_or(u16::MAX);
        match self.rule.gso {
            Some(longest) => longest.saturating_sub(headers),
            None if self.rule.tx.contains(TxOffloads::TCP_TSO) => self.rule.segment,
            None => 0,
        }
    }

    /// Returns the offloads left to the port, and those done in software.
    fn shares(&self, packet: &Packet, layers: &Layers) -> (Offload, Offload) {
        let (mut port, mut here) = (Offload::empty(), Offload::empty());
        let mut share = |flag, offload| {
            let side = if self.rule.tx.contains(offload) { &mut port } else { &mut here };
            *side |= flag;
        };
        if layers.packet_type.is_ipv4() {
            share(Offload::TX_IP_CKSUM, TxOffloads::IPV4_CKSUM);
        }
        let payload = packet.len().saturating_sub(layers.payload_start());
        match layers.packet_type.l4() {
            PacketType::L4_TCP => {
                let size = self.segment_size(layers);
                if size > 0 && payload > usize::from(size) {
                    port |= Offload::TX_TCP_SEG | Offload::TX_TCP_CKSUM;
                } else {
                    share(Offload::TX_TCP_CKSUM, TxOffloads::TCP_CKSUM);
                }
            }
            PacketType::L4_UDP if has_checksum(packet, layers) => {
                share(Offload::TX_UDP_CKSUM, TxOffloads::UDP_CKSUM);
            }
            _ => {}
        }
        (port, here)
    }
}

/// Returns whether a UDP packet has a checksum: over IPv4 it may be 0, meaning none (RFC 768).
fn has_checksum(packet: &Packet, layers: &Layers) -> bool {
    let at = layers.l4_start() + 6;
    packet.data().get(at..at + 2).is_some_and(|field| field != [0, 0])
}

/// Writes the checksum of an SCTP packet (RFC 9260, section 6.8); false if the packet is truncated.
fn fill_sctp(packet: &mut Packet, layers: &Layers) -> bool {
    let (start, len) = (layers.l4_start(), layers.transport_len as usize);
    let at = start + 8..start + 12;
    let Some(field) = packet.data_mut().and_then(|data| data.get_mut(at.clone())) else { return false };
    field.fill(0);
    if start + len > packet.len() {
        return false;
    }
    let (mut skip, mut left) = (start, len);
    let crc = packet.segments().fold(Crc32c::new(), |crc, segment| {
        let bytes = segment.get(skip.min(segment.len())..).unwrap_or_default();
        skip = skip.saturating_sub(segment.len());
        let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
        left -= bytes.len();
        crc.add_bytes(bytes)
    });
    match packet.data_mut().and_then(|data| data.get_mut(at)) {
        Some(field) => field.copy_from_slice(&crc.value().to_le_bytes()),
        None => return false,
    }
    true
}
