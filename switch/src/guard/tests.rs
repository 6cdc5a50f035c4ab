use linecard_net::MacAddr;

use super::*;
use crate::api::{PortKind, PortSpec};
use crate::rules::Defaults;

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
        ("link-local", frame(IPV6, &ipv6("fe80::1", 17, &[])), true),
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

#[test]
fn what_is_cut_off_does_not_pass() {
    let rules = rules();
    let whole = [
        frame(IPV4, &ipv4([10, 0, 0, 1]))[..14 + 16].to_vec(),
        frame(ARP, &arp([2, 0, 0, 0, 0, 1], [10, 0, 0, 1]))[..14 + 18].to_vec(),
        frame(IPV6, &ipv6("fd00::1", 58, &advertisement("fd00::1"))),
    ];
    for whole in whole {
        assert_eq!(allows(&rules, &whole), Some(true));
        for len in 0..whole.len() {
            // So a front of a frame never says what all of it would not.
            assert_eq!(allows(&rules, &whole[..len]), None, "{len} of {}", whole.len());
        }
    }
}
