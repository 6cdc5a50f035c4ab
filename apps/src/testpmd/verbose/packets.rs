//! The text of one burst for `set verbose`: field by field that of dpdk-testpmd 22.11, because scripts parse
//! it.

use std::fmt::Write as _;

use linecard::mempool::{Offload, Packet};
use linecard::net::{Layers, PacketType, parse};

use crate::testpmd::settings::Mac;
use crate::testpmd::topology::Stream;

/// Whether a level displays received packets: 1 does, 2 displays sent packets only, and higher levels both,
/// as in DPDK.
pub(crate) fn shows_received(level: u16) -> bool {
    level == 1 || level > 2
}

/// Whether a level displays sent packets.
pub(crate) fn shows_sent(level: u16) -> bool {
    level >= 2
}

/// The text of a received burst.
pub(crate) fn received(stream: &Stream, packets: &[Packet]) -> String {
    let Stream { rx_port, rx_queue, .. } = stream;
    let mut text = format!("\nport {rx_port}/queue {rx_queue}: received {} packets\n", packets.len());
    for packet in packets {
        one(&mut text, packet, ("Receive", *rx_queue));
        let _ = writeln!(text, "  ol_flags: {}", rx_flags(packet.offload()));
    }
    text
}

/// The text of a burst that is about to be sent.
pub(crate) fn sent(stream: &Stream, packets: &[Packet]) -> String {
    let Stream { tx_port, tx_queue, .. } = stream;
    let mut text = format!("\nport {tx_port}/queue {tx_queue}: sent {} packets\n", packets.len());
    for packet in packets {
        one(&mut text, packet, ("Send", *tx_queue));
        let _ = writeln!(text, "  ol_flags: {}", tx_flags(packet.offload()));
    }
    text
}

fn one(text: &mut String, packet: &Packet, (side, queue): (&str, u16)) {
    let frame = packet.data();
    let mac =
        |at: usize| frame.get(at..at + 6).and_then(|b| b.first_chunk()).map_or(Mac([0; 6]), |b| Mac(*b));
    let kind = frame.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let _ = write!(
        text,
        "  src={} - dst={} - pool=mb_pool_0 - type=0x{kind:04x} - length={} - nb_segs={}",
        mac(6),
        mac(0),
        packet.len(),
        packet.nb_segs()
    );
    if let Some(hash) = packet.hash() {
        let _ = write!(text, " - RSS hash=0x{hash:x} - RSS queue=0x{queue:x}");
    }
    if let Some(mark) = packet.mark() {
        let _ = write!(text, " - FDIR matched ID=0x{mark:x}");
    }
    if packet.offload().contains(Offload::RX_VLAN_STRIPPED) {
        let _ = write!(text, " - VLAN tci=0x{:x}", packet.vlan_tci());
    }
    if packet.packet_type() != PacketType::UNKNOWN {
        let _ = write!(text, " - hw ptype: {} ", packet.packet_type());
    }
    let layers = parse(frame);
    let _ = write!(text, " - sw ptype: {} ", layers.packet_type);
    lengths(text, &layers);
    let _ = writeln!(text, " - {side} queue=0x{queue:x}");
}

fn lengths(text: &mut String, layers: &Layers) {
    for (name, kind, len) in [
        ("l2", layers.packet_type.l2(), layers.l2_len),
        ("l3", layers.packet_type.l3(), layers.l3_len),
        ("l4", layers.packet_type.l4(), layers.l4_len),
    ] {
        if kind != PacketType::UNKNOWN {
            let _ = write!(text, " - {name}_len={len}");
        }
    }
}

/// The names of `rte_get_rx_ol_flag_list`, each followed by a space.
fn rx_flags(flags: Offload) -> String {
    let l4 = match flags & Offload::RX_L4_CKSUM_MASK {
        Offload::RX_L4_CKSUM_BAD => "RX_L4_CKSUM_BAD",
        Offload::RX_L4_CKSUM_GOOD => "RX_L4_CKSUM_GOOD",
        Offload::RX_L4_CKSUM_NONE => "RX_L4_CKSUM_NONE",
        _ => "RX_L4_CKSUM_UNKNOWN",
    };
    let ip = match flags & Offload::RX_IP_CKSUM_MASK {
        Offload::RX_IP_CKSUM_BAD => "RX_IP_CKSUM_BAD",
        Offload::RX_IP_CKSUM_GOOD => "RX_IP_CKSUM_GOOD",
        Offload::RX_IP_CKSUM_MASK => "RX_IP_CKSUM_NONE",
        _ => "RX_IP_CKSUM_UNKNOWN",
    };
    let fdir = flags.contains(Offload::RX_FDIR_ID);
    list([
        (flags.contains(Offload::RX_VLAN), "RX_VLAN"),
        (flags.contains(Offload::RX_RSS_HASH), "RX_RSS_HASH"),
        (fdir, "RX_FDIR"),
        (true, l4),
        (true, ip),
        (flags.contains(Offload::RX_VLAN_STRIPPED), "RX_VLAN_STRIPPED"),
        (fdir, "RX_FDIR_ID"),
        (flags.contains(Offload::RX_LRO), "RX_LRO"),
        (true, "RX_OUTER_L4_CKSUM_UNKNOWN"),
    ])
}

/// The names of `rte_get_tx_ol_flag_list`.
fn tx_flags(flags: Offload) -> String {
    let l4 = flags & Offload::TX_L4_MASK;
    list([
        (flags.contains(Offload::TX_VLAN), "TX_VLAN"),
        (flags.contains(Offload::TX_IP_CKSUM), "TX_IP_CKSUM"),
        (l4 == Offload::TX_TCP_CKSUM, "TX_TCP_CKSUM"),
        (l4 == Offload::TX_SCTP_CKSUM, "TX_SCTP_CKSUM"),
        (l4 == Offload::TX_UDP_CKSUM, "TX_UDP_CKSUM"),
        // Not a flag of its own: present if none of the three is set, so that the list is never empty.
        (l4 == Offload::empty(), "TX_L4_NO_CKSUM"),
        (flags.contains(Offload::TX_TCP_SEG), "TX_TCP_SEG"),
        (flags.contains(Offload::TX_IPV4), "TX_IPV4"),
        (flags.contains(Offload::TX_IPV6), "TX_IPV6"),
        (flags.contains(Offload::TX_UDP_SEG), "TX_UDP_SEG"),
    ])
}

fn list<const N: usize>(flags: [(bool, &str); N]) -> String {
    let set = flags.iter().filter(|(set, _)| *set);
    set.map(|(_, name)| format!("RTE_MBUF_F_{name} ")).collect()
}

#[cfg(test)]
mod tests;
