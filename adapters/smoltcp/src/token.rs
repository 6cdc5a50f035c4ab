//! smoltcp's tokens: one packet each.

use linecard_mempool::{Burst, Packet, TxOffload};
use linecard_net::offload::prepare;
use linecard_net::{Offload, PacketType, parse};
use linecard_pmd::offload::TxOffloads;
use smoltcp::phy;

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

/// A packet to be written, for smoltcp.
#[derive(Debug)]
pub struct TxToken<'a> {
    packet: Packet,
    out: &'a mut Burst,
    offloads: TxOffloads,
}

impl<'a> TxToken<'a> {
    /// `out` has room for the packet.
    pub(crate) fn new(packet: Packet, out: &'a mut Burst, offloads: TxOffloads) -> Self {
        Self { packet, out, offloads }
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, f: F) -> R {
        let Some(frame) = self.packet.append(len) else {
            // Longer than the device said it takes: nothing is sent, as on a wire.
            return f(&mut vec![0; len]);
        };
        let done = f(frame);
        ask(&mut self.packet, self.offloads);
        let _ = self.out.push(self.packet);
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
    if offloads.contains(offload) && prepare(packet.data_mut(), &layers).is_some() {
        let version = if layers.packet_type.is_ipv4() { Offload::TX_IPV4 } else { Offload::TX_IPV6 };
        packet.set_tx_offload(asked | version, TxOffload::new(layers.l2_len, layers.l3_len, layers.l4_len));
    }
}
