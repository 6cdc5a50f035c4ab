use linecard_net::MacAddr;

use super::*;
use crate::api::{PortKind, PortSpec};
use crate::rules::Defaults;

/// What a host makes of the address 02:00:00:00:00:01.
const LINK_LOCAL: &str = "fe80::ff:fe00:1";

fn rules() -> Rules {
    let spec = PortSpec {
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        ips: ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().expect("an address")).into(),
        ..PortSpec::new("a", PortKind::Tap { name: "a".into(), netns: None })
    };
    Rules::of(&spec, Defaults::default()).expect("it makes sense")
}

fn frame(kind: u16, rest: &[u8]) -> Vec<u8> {
    [&[0xff; 6], &[2, 0, 0, 0, 0, 1][..], &kind.to_be_bytes(), rest].concat()
}

fn ipv4(source: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45; 20];
    packet[12..16].copy_from_slice(&source);
    packet
}

fn arp(mac: [u8; 6], source: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &source, &[0; 10]].concat()
}

fn ipv6(source: &str, next: u8, rest: &[u8]) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().expect("an address");
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 255];
    packet.extend(source.octets());
    packet.extend([0; 16]);
    packet.extend(rest);
    packet
}

fn advertisement(target: &str) -> Vec<u8> {
    let target: std::net::Ipv6Addr = target.parse().expect("an address");
    [&[136, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat()
}

#[test]
fn only_the_ports_own_sources_pass() {
    let rules = rules();
    let own = [2, 0, 0, 0, 0, 1];
    for (what, frame, want) in [
        ("its IPv4", frame(IPV4, &ipv4([10, 0, 0, 1])), true),
        ("another IPv4", frame(IPV4, &ipv4([10, 0, 0, 2])), false),
        ("no IPv4 yet", frame(IPV4, &ipv4([0; 4])), true),
        ("its ARP", frame(ARP, &arp(own, [10, 0, 0, 1])), true),
        ("an ARP probe", frame(ARP, &arp(own, [0; 4])), true),
        ("an ARP for another", frame(ARP, &arp(own, [10, 0, 0, 254])), false),
        ("an ARP from another", frame(ARP, &arp([2, 0, 0, 0, 0, 2], [10, 0, 0, 1])), false),
        ("its IPv6", frame(IPV6, &ipv6("fd00::1", 17, &[])), true),
        ("another IPv6", frame(IPV6, &ipv6("fd00::2", 17, &[])), false),
        ("its link-local", frame(IPV6, &ipv6(LINK_LOCAL, 17, &[])), true),
        ("another link-local", frame(IPV6, &ipv6("fe80::1", 17, &[])), false),
        ("no IPv6 yet", frame(IPV6, &ipv6("::", 58, &[135, 0, 0, 0])), true),
        ("it advertises itself", frame(IPV6, &ipv6("fd00::1", 58, &advertisement("fd00::1"))), true),
        ("it advertises another", frame(IPV6, &ipv6("fd00::1", 58, &advertisement("fd00::2"))), false),
        (
            "it hides that it advertises another",
            frame(
                IPV6,
                &ipv6("fd00::1", 0, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &advertisement("fd00::2")].concat()),
            ),
            false,
        ),
        ("tagged", frame(TAG, &[&[0, 10, 8, 0][..], &ipv4([10, 0, 0, 2])].concat()), false),
        ("no IP", frame(0x88cc, &[1, 2, 3]), true),
        ("five tags", frame(TAG, &[0, 1, 0x81, 0].repeat(5)), false),
    ] {
        assert_eq!(allows(&rules, &frame).unwrap_or(false), want, "{what}");
    }
}

/// One extension header of `len` bytes, with `next` behind it, in whose length field is `field`.
fn extension(next: u8, field: u8, len: usize, rest: &[u8]) -> Vec<u8> {
    [&[next, field][..], &vec![0; len - 2], rest].concat()
}

#[test]
fn neighbour_discovery_does_not_hide_behind_extension_headers() {
    let rules = rules();
    let of = |target: &str, header: u8, field: u8, len: usize| {
        let behind = extension(58, field, len, &advertisement(target));
        allows(&rules, &frame(IPV6, &ipv6("fd00::1", header, &behind)))
    };
    for (header, field, len) in
        [(0, 0, 8), (43, 1, 16), (60, 2, 24), (135, 0, 8), (139, 0, 8), (140, 0, 8), (51, 4, 24)]
    {
        assert_eq!(of("fd00::1", header, field, len), Some(true), "itself behind {header}");
        assert_eq!(of("fd00::2", header, field, len), Some(false), "another behind {header}");
    }
    // Several, and more than anybody sends.
    let chain = |count: u8| {
        let behind = (0..count)
            .fold((58, advertisement("fd00::2")), |(next, rest), _| (60, extension(next, 0, 8, &rest)));
        allows(&rules, &frame(IPV6, &ipv6("fd00::1", behind.0, &behind.1)))
    };
    for count in 0..60 {
        assert_eq!(chain(count), Some(false), "{count} headers");
    }
    // In pieces there is none; other packets in pieces pass.
    let piece = |offset: u16, next: u8, rest: &[u8]| {
        let [high, low] = (offset << 3 | 1).to_be_bytes();
        let piece = [&[next, 0, high, low, 0, 0, 0, 1][..], rest].concat();
        allows(&rules, &frame(IPV6, &ipv6("fd00::1", 44, &piece)))
    };
    assert_eq!(piece(0, 58, &advertisement("fd00::1")), Some(false));
    assert_eq!(piece(0, 60, &extension(58, 0, 8, &advertisement("fd00::2"))), Some(false));
    assert_eq!(piece(0, 60, &[58, 3]), None, "what it is lies in a later piece");
    assert_eq!(piece(0, 58, &[128, 0, 0, 0]), Some(true));
    assert_eq!(piece(0, 17, &[0; 8]), Some(true));
    assert_eq!(piece(1, 58, &[136]), Some(true));
}

#[test]
fn a_host_is_no_router() {
    let rules = rules();
    for (what, source, kind, want) in [
        ("it asks for routers", LINK_LOCAL, 133, true),
        ("it is a router", LINK_LOCAL, 134, false),
        ("it redirects", LINK_LOCAL, 137, false),
        ("it asks for a neighbour", LINK_LOCAL, 135, true),
        ("it asks in another's name", "fe80::1", 135, false),
        ("it is pinged", "fd00::1", 129, true),
    ] {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 16]].concat();
        assert_eq!(allows(&rules, &frame(IPV6, &ipv6(source, 58, &message))), Some(want), "{what}");
        let behind = extension(58, 0, 8, &message);
        assert_eq!(allows(&rules, &frame(IPV6, &ipv6(source, 60, &behind))), Some(want), "{what}, hidden");
    }
    for (target, want) in [(LINK_LOCAL, true), ("fe80::1", false)] {
        let packet = ipv6(LINK_LOCAL, 58, &advertisement(target));
        assert_eq!(allows(&rules, &frame(IPV6, &packet)), Some(want), "it advertises {target}");
    }
    // One that is listed is its own, too.
    let listed = Rules { ipv6: vec![std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets()], ..rules };
    let packet = ipv6("fe80::1", 58, &advertisement("fe80::1"));
    assert_eq!(allows(&listed, &frame(IPV6, &packet)), Some(true));
}

#[test]
fn what_is_cut_off_does_not_pass() {
    let rules = rules();
    let hidden = extension(58, 0, 8, &advertisement("fd00::1"));
    let whole = [
        frame(IPV4, &ipv4([10, 0, 0, 1]))[..14 + 16].to_vec(),
        frame(ARP, &arp([2, 0, 0, 0, 0, 1], [10, 0, 0, 1]))[..14 + 18].to_vec(),
        frame(IPV6, &ipv6("fd00::1", 58, &advertisement("fd00::1"))),
        frame(IPV6, &ipv6("fd00::1", 60, &hidden)),
    ];
    for whole in whole {
        assert_eq!(allows(&rules, &whole), Some(true));
        for len in 0..whole.len() {
            // So a front of a frame never says what all of it would not.
            assert_eq!(allows(&rules, &whole[..len]), None, "{len} of {}", whole.len());
        }
    }
}
