//! Checksums of passing packets, computed here or left to the port.

use linecard::mempool::{Burst, Offload, Packet, Pool, TxOffload};
use linecard::net::{Layers, PacketType, parse};
use linecard::pmd::offload::{TxOffloads, do_now};

use super::Mode;
use crate::testpmd::frames;
use crate::testpmd::settings::Mac;

/// What a port that sends does about checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksums {
    /// What the port does itself; the rest is done here.
    pub(crate) tx: TxOffloads,
    /// Payload bytes of a TCP segment; 0 leaves large packets as they are.
    pub(crate) segment: u16,
    /// Addresses become those of the transmit port and its peer.
    pub(crate) rewrite: bool,
}

impl Default for Checksums {
    fn default() -> Self {
        Self { tx: TxOffloads::NONE, segment: 0, rewrite: true }
    }
}

/// DPDK's csumonly: every IPv4, UDP and TCP checksum is made anew.
pub(crate) struct Csum {
    pub(crate) pool: Pool,
    pub(crate) rule: Checksums,
    pub(crate) dst: Mac,
    pub(crate) src: Mac,
}

impl Mode for Csum {
    fn step(&mut self, packets: &mut Burst) {
        // What cannot be finished, for want of a buffer, must not leave with a wrong checksum.
        packets.retain(|packet| self.one(packet));
    }
}

impl Csum {
    fn one(&self, packet: &mut Packet) -> bool {
        if self.rule.rewrite {
            frames::set_macs(packet.data_mut(), self.dst, self.src);
        }
        // A packet that came large says all there is to say to the port that sends it.
        if packet.offload().contains(Offload::RX_LRO) {
            return true;
        }
        let layers = parse(packet.data());
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
            packet.set_tx_offload(port | version, lengths.with_tso_segsz(self.rule.segment));
        }
        true
    }

    /// What the port is asked to do, and what is to be done here.
    fn shares(&self, packet: &Packet, layers: &Layers) -> (Offload, Offload) {
        let (mut port, mut here) = (Offload::NONE, Offload::NONE);
        let mut share = |flag, offload| {
            let side = if self.rule.tx.contains(offload) { &mut port } else { &mut here };
            *side |= flag;
        };
        if layers.packet_type.is_ipv4() {
            share(Offload::TX_IP_CKSUM, TxOffloads::IPV4_CKSUM);
        }
        let payload = packet.len().saturating_sub(layers.payload_start());
        let large = self.rule.segment > 0 && payload > usize::from(self.rule.segment);
        match layers.packet_type.l4() {
            PacketType::L4_TCP if large && self.rule.tx.contains(TxOffloads::TCP_TSO) => {
                port |= Offload::TX_TCP_SEG | Offload::TX_TCP_CKSUM;
            }
            PacketType::L4_TCP => share(Offload::TX_TCP_CKSUM, TxOffloads::TCP_CKSUM),
            PacketType::L4_UDP if has_checksum(packet, layers) => {
                share(Offload::TX_UDP_CKSUM, TxOffloads::UDP_CKSUM);
            }
            _ => {}
        }
        (port, here)
    }
}

/// UDP over IPv4 may go without; 0 says so (RFC 768).
fn has_checksum(packet: &Packet, layers: &Layers) -> bool {
    let at = layers.l4_start() + 6;
    packet.data().get(at..at + 2).is_some_and(|field| field != [0, 0])
}
