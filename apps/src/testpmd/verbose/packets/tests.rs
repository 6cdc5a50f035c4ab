use linecard::mempool::{Offload, TxOffload};
use linecard::net::PacketType;

use super::*;
use crate::testpmd::soft::tests::{packet, pool, udp};

const STREAM: Stream = Stream { rx_port: 3, rx_queue: 1, tx_port: 4, tx_queue: 2 };

/// The lines that dpdk-testpmd 22.11 prints about the same packet.
#[test]
fn lines_are_dpdks() {
    let pool = pool();
    let mut packet = packet(&pool, &udp(9));
    let head = "  src=02:00:00:00:00:01 - dst=02:00:00:00:00:02 - pool=mb_pool_0 - type=0x0800 - length=64 - nb_segs=1";
    let soft = " - sw ptype: L2_ETHER L3_IPV4 L4_UDP  - l2_len=14 - l3_len=20 - l4_len=8";
    let unknown =
        "RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN RTE_MBUF_F_RX_OUTER_L4_CKSUM_UNKNOWN ";
    assert_eq!(
        received(&STREAM, std::slice::from_ref(&packet)),
        format!(
            "\nport 3/queue 1: received 1 packets\n{head}{soft} - Receive queue=0x1\n  ol_flags: {unknown}\n"
        )
    );
    packet.set_hash(0xabc);
    packet.set_vlan_tci(5);
    let vlan = Offload::RX_VLAN | Offload::RX_VLAN_STRIPPED;
    packet.set_offload(packet.offload() | vlan | Offload::RX_L4_CKSUM_GOOD | Offload::RX_IP_CKSUM_BAD);
    packet.set_packet_type(PacketType::L2_ETHER | PacketType::L3_IPV4);
    let flags = "RTE_MBUF_F_RX_VLAN RTE_MBUF_F_RX_RSS_HASH RTE_MBUF_F_RX_L4_CKSUM_GOOD RTE_MBUF_F_RX_IP_CKSUM_BAD \
                 RTE_MBUF_F_RX_VLAN_STRIPPED RTE_MBUF_F_RX_OUTER_L4_CKSUM_UNKNOWN ";
    let text = received(&STREAM, std::slice::from_ref(&packet));
    assert!(
        text.contains(&format!(
            "{head} - RSS hash=0xabc - RSS queue=0x1 - VLAN tci=0x5 - hw ptype: L2_ETHER L3_IPV4 {soft} - Receive"
        )),
        "{text}"
    );
    assert!(text.ends_with(&format!("  ol_flags: {flags}\n")), "{text}");
    packet.set_mark(0x7);
    let text = received(&STREAM, std::slice::from_ref(&packet));
    assert!(text.contains(" - FDIR matched ID=0x7 - VLAN") && text.contains("RX_FDIR_ID "), "{text}");
    packet.set_tx_offload(
        Offload::TX_IPV4 | Offload::TX_IP_CKSUM | Offload::TX_UDP_CKSUM,
        TxOffload::new(14, 20, 8),
    );
    let text = sent(&STREAM, std::slice::from_ref(&packet));
    assert!(
        text.starts_with("\nport 4/queue 2: sent 1 packets\n") && text.contains(" - Send queue=0x2\n"),
        "{text}"
    );
    let flags = "  ol_flags: RTE_MBUF_F_TX_IP_CKSUM RTE_MBUF_F_TX_UDP_CKSUM RTE_MBUF_F_TX_IPV4 \n";
    assert!(text.ends_with(flags), "{text}");
    packet.set_offload(packet.offload() | Offload::RX_IP_CKSUM_MASK);
    assert!(received(&STREAM, std::slice::from_ref(&packet)).contains("RTE_MBUF_F_RX_IP_CKSUM_NONE "));
    drop(packet);
    assert_eq!(sent(&STREAM, &[]), "\nport 4/queue 2: sent 0 packets\n");
}

/// DPDK names the absence of a layer 4 checksum, because parsers expect at least one name.
#[test]
fn a_plain_sent_packet_has_a_flag() {
    let pool = pool();
    let mut packet = packet(&pool, &udp(9));
    let text = sent(&STREAM, std::slice::from_ref(&packet));
    assert!(text.ends_with("  ol_flags: RTE_MBUF_F_TX_L4_NO_CKSUM \n"), "{text}");
    packet.set_tx_offload(Offload::TX_IPV4 | Offload::TX_IP_CKSUM, TxOffload::new(14, 20, 0));
    let text = sent(&STREAM, std::slice::from_ref(&packet));
    let flags = "  ol_flags: RTE_MBUF_F_TX_IP_CKSUM RTE_MBUF_F_TX_L4_NO_CKSUM RTE_MBUF_F_TX_IPV4 \n";
    assert!(text.ends_with(flags), "{text}");
}

#[test]
fn levels_above_two_show_both_directions() {
    let shown = [0, 1, 2, 3, 4, 5, u16::MAX].map(|level| (shows_received(level), shows_sent(level)));
    let both = (true, true);
    assert_eq!(shown, [(false, false), (true, false), (false, true), both, both, both, both]);
}
