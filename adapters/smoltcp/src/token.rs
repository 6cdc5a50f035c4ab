//! smoltcp's tokens: one packet each.

use std::num::NonZeroU16;

use linecard_mempool::{Burst, Packet, Pool, TxOffload};
use linecard_net::offload::prepare;
use linecard_net::{Offload, PacketType, parse};
use linecard_pmd::offload::TxOffloads;
use smoltcp::phy::{self, PacketMeta};

/// A received packet, for smoltcp.
#[derive(Debug)]
pub struct RxToken<'a> {
    packet: Packet,
    scratch: &'a mut Vec<u8>,
}

impl<'a> RxToken<'a> {
    pub(crate) fn new(packet: Packet, scratch: &'a mut Vec<u8>) -> Self {
        Self { packet, scratch }
    }
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(in_one_piece(&self.packet, self.scratch))
    }
}

/// The bytes of a packet, copied to `scratch` if they lie in several segments.
pub(crate) fn in_one_piece<'a>(packet: &'a Packet, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if packet.nb_segs() == 1 {
        return packet.data();
    }
    scratch.resize(packet.len(), 0);
    let _ = packet.read_at(0, scratch);
    scratch
}

/// What a device sends with.
#[derive(Debug)]
pub(crate) struct Sending {
    /// To be sent at the next flush.
    pub(crate) out: Burst,
    pub(crate) pool: Pool,
    pub(crate) offloads: TxOffloads,
    /// Where a frame that the port cuts is written, in one piece.
    pub(crate) large: Vec<u8>,
}

/// A packet to be written, for smoltcp.
#[derive(Debug)]
pub struct TxToken<'a> {
    packet: Packet,
    sending: &'a mut Sending,
    /// Payload bytes of each segment of a frame that the port is to cut.
    segment: Option<NonZeroU16>,
}

impl<'a> TxToken<'a> {
    /// There is room for the packet in the burst.
    pub(crate) fn new(packet: Packet, sending: &'a mut Sending) -> Self {
        Self { packet, sending, segment: None }
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, f: F) -> R {
        if let Some(segment) = self.segment {
            return self.sending.cut(len, segment, f);
        }
        let Some(frame) = self.packet.append(len) else {
            // Longer than the device said it takes: nothing is sent, as on a wire.
            return f(&mut vec![0; len]);
        };
        let done = f(frame);
        ask(&mut self.packet, self.sending.offloads);
        let _ = self.sending.out.push(self.packet);
        done
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}

impl Sending {
    /// Sends a frame of several buffers, for the port to cut. Without buffers it is lost, as on a wire.
    fn cut<R>(&mut self, len: usize, segment: NonZeroU16, f: impl FnOnce(&mut [u8]) -> R) -> R {
        self.large.clear();
        self.large.resize(len, 0);
        let done = f(&mut self.large);
        let layers = parse(&self.large);
        if layers.packet_type.l4() == PacketType::L4_TCP
            && prepare(&mut self.large, &layers).is_some()
            && let Some(mut packet) = self.pool.packet_of(&self.large, usize::MAX)
        {
            let version = if layers.packet_type.is_ipv4() {
                // The header of each segment has a sum of its own.
                Offload::TX_IPV4 | Offload::TX_IP_CKSUM
            } else {
                Offload::TX_IPV6
            };
            let lengths = TxOffload::new(layers.l2_len, layers.l3_len, layers.l4_len);
            let asked = Offload::TX_TCP_SEG | Offload::TX_TCP_CKSUM | version;
            packet.set_tx_offload(asked, lengths.with_tso_segsz(segment.get()));
            let _ = self.out.push(packet);
        }
        done
    }
}

/// Asks the port for the checksum that smoltcp left out.
fn ask(packet: &mut Packet, offloads: TxOffloads) {
    if !offloads.intersects(TxOffloads::CHECKSUM) {
        return;
    }
    let layers = parse(packet.data());
    let (asked, offload) = match layers.packet_type.l4() {
        PacketType::L4_TCP => (Offload::TX_TCP_CKSUM, TxOffloads::TCP_CKSUM),
        PacketType::L4_UDP => (Offload::TX_UDP_CKSUM, TxOffloads::UDP_CKSUM),
        _ => return,
    };
    if offloads.contains(offload) && packet.data_mut().and_then(|data| prepare(data, &layers)).is_some() {
        let version = if layers.packet_type.is_ipv4() { Offload::TX_IPV4 } else { Offload::TX_IPV6 };
        packet.set_tx_offload(asked | version, TxOffload::new(layers.l2_len, layers.l3_len, layers.l4_len));
    }
}
