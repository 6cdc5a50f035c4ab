use super::*;
use crate::mac::MacAddr;
use proptest::prelude::*;

fn ethernet(ether_type: u16) -> Vec<u8> {
    let mut frame = vec![0; 14];
    Ethernet::new(MacAddr::local(2), MacAddr::local(1), ether_type).store(&mut frame).expect("14 bytes");
    frame
}

/// An IPv6 frame whose first next header is `first`, followed by `rest`.
fn ipv6_frame(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(ether_type::IPV6);
    let mut ip = [0; 40];
    Ipv6::new([1; 16], [2; 16], first, rest.len() as u16).store(&mut ip).expect("40 bytes");
    frame.extend(ip);
    frame.extend(rest);
    frame
}

fn tcp_header(words: u8) -> Vec<u8> {
    let mut tcp = vec![0; 60];
    tcp[12] = words << 4;
    tcp
}

#[test]
fn looks_through_two_tags_only() {
    let mut frame = ethernet(ether_type::QINQ);
    frame.extend([0x20, 0x07, 0x81, 0x00, 0x00, 0x08, 0x81, 0x00, 0, 9, 0x08, 0x00]);
    let layers = parse(&frame);
    assert_eq!((layers.l2_len, layers.vlan_tci, layers.ether_type), (22, Some(0x2007), ether_type::VLAN));
    assert_eq!(layers.packet_type, PacketType::L2_ETHER_QINQ);
}

#[test]
fn arp_is_named() {
    assert_eq!(parse(&ethernet(ether_type::ARP)).packet_type, PacketType::L2_ETHER_ARP);
}

#[test]
fn ipv4_options_and_fragments() {
    let mut frame = ethernet(ether_type::IPV4);
    let mut ip = Ipv4::new([1; 4], [2; 4], protocol::UDP, 12);
    ip.version_ihl = 0x46;
    frame.resize(14 + 24 + 8, 0);
    ip.store(&mut frame[14..]).expect("fits");
    let layers = parse(&frame);
    assert_eq!((layers.l3_len, layers.l4_len, layers.transport_len), (24, 8, 8));
    assert_eq!(layers.packet_type.l3(), PacketType::L3_IPV4_EXT);

    for fragment in [Ipv4::MORE_FRAGMENTS, 1, 0x1fff] {
        ip.flags_fragment_offset.set(fragment);
        ip.store(&mut frame[14..]).expect("fits");
        let layers = parse(&frame);
        assert_eq!((layers.packet_type.l4(), layers.l4_len), (PacketType::L4_FRAG, 0));
    }
}

#[test]
fn bad_ipv4_stops_at_the_link() {
    let good = Ipv4::new([1; 4], [2; 4], protocol::UDP, 8);
    type Spoil = fn(&mut Ipv4);
    let bad: [(&str, Spoil); 4] = [
        ("version", |ip| ip.version_ihl = 0x55),
        ("short header", |ip| ip.version_ihl = 0x44),
        ("header past the end", |ip| ip.version_ihl = 0x4f),
        ("total below header", |ip| ip.total_length.set(19)),
    ];
    for (what, spoil) in bad {
        let mut frame = ethernet(ether_type::IPV4);
        frame.resize(42, 0);
        let mut ip = good;
        spoil(&mut ip);
        ip.store(&mut frame[14..]).expect("fits");
        let layers = parse(&frame);
        assert_eq!((layers.packet_type, layers.l3_len), (PacketType::L2_ETHER, 0), "{what}");
    }
}

#[test]
fn tcp_header_length_is_checked() {
    for (words, l4_len) in [(4, 0), (5, 20), (8, 32), (15, 60)] {
        let layers = parse(&ipv6_frame(protocol::TCP, &tcp_header(words)));
        assert_eq!(layers.l4_len, l4_len, "{words}");
        assert_eq!(layers.packet_type.l4() == PacketType::L4_TCP, l4_len != 0);
    }
}

#[test]
fn ipv6_extension_headers() {
    let mut rest = vec![protocol::ROUTING, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop
    rest.extend([protocol::FRAGMENT, 0, 0, 1, 0, 0, 0, 0]); // routing, one segment left
    rest.extend([protocol::UDP, 0, 0, 0, 0, 0, 0, 0]); // atomic fragment
    rest.extend([0; 8]);
    let layers = parse(&ipv6_frame(protocol::HOP_BY_HOP, &rest));
    assert_eq!((layers.l3_len, layers.l4_len, layers.transport_len), (64, 8, 8));
    assert!(layers.source_routed);
    assert_eq!(layers.packet_type.l3(), PacketType::L3_IPV6_EXT);
    assert_eq!(layers.packet_type.l4(), PacketType::L4_UDP);

    rest[19] = 1; // more fragments
    assert_eq!(parse(&ipv6_frame(protocol::HOP_BY_HOP, &rest)).packet_type.l4(), PacketType::L4_FRAG);
}

#[test]
fn extension_chains_are_bounded_and_end() {
    let chain = [protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 3);
    let layers = parse(&ipv6_frame(protocol::DESTINATION_OPTIONS, &chain));
    assert_eq!(usize::from(layers.l3_len), 40 + 8 * MAX_EXTENSIONS);
    assert_eq!(layers.packet_type.l4(), PacketType::UNKNOWN);
    let layers = parse(&ipv6_frame(protocol::NO_NEXT_HEADER, &[]));
    assert_eq!((layers.l3_len, layers.packet_type.l4()), (40, PacketType::UNKNOWN));
}

/// Bytes that often look like something: real type numbers at the places where they count.
fn likely_frame() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806]);
    let protocols = prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132]);
    (prop::collection::vec(any::<u8>(), 0..200), kinds, protocols, 0..4_u8).prop_map(
        |(mut b, kind, next, how)| {
            let mut put = |at: usize, bytes: &[u8]| {
                if let Some(place) = b.get_mut(at..at + bytes.len()) {
                    place.copy_from_slice(bytes);
                }
            };
            put(12, &kind.to_be_bytes());
            match how {
                0 => put(14, &[0x45]),
                1 => put(14, &[0x60]),
                2 => put(16, &0x86dd_u16.to_be_bytes()),
                _ => {}
            }
            put(20, &[next]);
            put(23, &[next]);
            b
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn never_panics_and_stays_inside(frame in prop_oneof![likely_frame(), prop::collection::vec(any::<u8>(), 0..100)]) {
        for layers in [parse(&frame), parse_ip(&frame)] {
            prop_assert!(layers.payload_start() <= frame.len());
            prop_assert_eq!(layers.packet_type.l3() != PacketType::UNKNOWN, layers.l3_len != 0);
            let carries = !matches!(layers.packet_type.l4(), PacketType::UNKNOWN | PacketType::L4_FRAG | PacketType::L4_NONFRAG);
            prop_assert_eq!(carries, layers.l4_len != 0);
            prop_assert!(u32::from(layers.l4_len) <= layers.transport_len);
            let hashed = crate::toeplitz::Toeplitz::DEFAULT.flow(&frame, &layers);
            prop_assert_eq!(hashed.is_some(), layers.packet_type.l3() != PacketType::UNKNOWN);
        }
    }

    #[test]
    fn a_longer_slice_never_says_less(frame in likely_frame(), cut: u8) {
        let whole = parse(&frame);
        let part = parse(&frame[..usize::from(cut).min(frame.len())]);
        prop_assert!(part.l2_len <= whole.l2_len);
        prop_assert!(part.l3_len <= whole.l3_len && part.l4_len <= whole.l4_len);
    }
}

#[test]
fn a_transport_header_ends_where_its_datagram_ends() {
    // The bytes are there (padding, say), but the IP header does not count them as its own.
    for (payload_len, l4_len) in [(0, 0), (7, 0), (8, 8)] {
        let mut frame = ethernet(ether_type::IPV4);
        frame.resize(60, 0);
        Ipv4::new([1; 4], [2; 4], protocol::UDP, payload_len).store(&mut frame[14..]).expect("fits");
        assert_eq!(parse(&frame).l4_len, l4_len, "{payload_len}");
    }
}
