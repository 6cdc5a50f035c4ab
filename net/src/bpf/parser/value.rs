//! Addresses, networks, ports and numbers, and the conditions for them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::tree::{Node, ether_host, kind, protocol};
use super::{Error, Parser, Qualifiers};
use crate::mac::MacAddr;

/// Parses a decimal number, or a hexadecimal one with `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Services that are commonly filtered by name.
const PORTS: [(&str, u32); 14] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("http", 80),
    ("ntp", 123),
    ("snmp", 161),
    ("bgp", 179),
    ("https", 443),
    ("syslog", 514),
];

/// Parses a port number or name.
pub(super) fn port(text: &str) -> Option<u32> {
    let named = PORTS.iter().find(|(name, _)| *name == text).map(|(_, port)| *port);
    named.or_else(|| number(text)).filter(|port| *port <= 65_535)
}

/// The number of a named protocol, of Ethernet or of IP.
pub(super) fn protocol(name: &str, of: Option<&str>) -> Option<u32> {
    Some(match (name, of) {
        ("ip", Some("ether")) => kind::IP,
        ("ip6", Some("ether")) => kind::IP6,
        ("arp", Some("ether")) => kind::ARP,
        ("rarp", Some("ether")) => kind::RARP,
        (_, Some("ether")) => return None,
        ("icmp", _) => protocol::ICMP,
        ("igmp", _) => protocol::IGMP,
        ("tcp", _) => protocol::TCP,
        ("udp", _) => protocol::UDP,
        ("sctp", _) => protocol::SCTP,
        ("icmp6", _) => protocol::ICMP6,
        _ => return None,
    })
}

/// Parses `10`, `192.168` or a complete address; returns the address and the number of bits given.
fn short_ip(text: &str) -> Option<(Ipv4Addr, u32)> {
    let mut octets = [0; 4];
    let mut count = 0;
    for (place, part) in octets.iter_mut().zip(text.split('.')) {
        *place = part.parse().ok()?;
        count += 1;
    }
    (text.split('.').count() == count).then_some((octets.into(), 8 * count as u32))
}

/// A mask of the upper `prefix` bits.
fn mask(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

impl<'a> Parser<'a> {
    pub(super) fn host(&mut self, qualifiers: Qualifiers<'a>) -> Result<Node, Error> {
        let (word, way) = (self.peek(), qualifiers.way);
        if qualifiers.protocol == Some("ether") {
            let mac: Option<MacAddr> = word.parse().ok();
            let mac = mac.ok_or_else(|| self.expected("an address as in 02:00:00:00:00:01"))?;
            self.at += 1;
            return Ok(ether_host(way, mac.into()));
        }
        if let Ok(address) = word.parse::<Ipv4Addr>() {
            self.at += 1;
            return self.ip_node(qualifiers, address, u32::MAX);
        }
        if let Ok(address) = word.parse::<Ipv6Addr>() {
            self.at += 1;
            return self.ip6_node(qualifiers, address, 128);
        }
        Err(self.expected("an address, as names of hosts are not looked up"))
    }

    pub(super) fn net(&mut self, qualifiers: Qualifiers<'a>) -> Result<Node, Error> {
        let word = self.peek();
        let (address, prefix) = word.split_once('/').map_or((word, None), |(a, p)| (a, Some(p)));
        let bits = prefix.map(|prefix| prefix.parse::<u32>().ok());
        if let Ok(address) = address.parse::<Ipv6Addr>() {
            let bits = bits.unwrap_or(Some(128)).filter(|bits| *bits <= 128);
            let bits = bits.ok_or_else(|| self.expected("a network with at most 128 bits"))?;
            let rest = u128::from(address) & u128::MAX.checked_shr(bits).unwrap_or(0);
            self.whole_net(rest == 0)?;
            self.at += 1;
            return self.ip6_node(qualifiers, address, bits);
        }
        let example = "a network as in 10.0.0.0/8, 192.168 or fe80::/10";
        let (address, written) = short_ip(address).ok_or_else(|| self.expected(example))?;
        let mut mask = match bits {
            None => mask(written),
            Some(bits) => mask(
                bits.filter(|bits| *bits <= 32)
                    .ok_or_else(|| self.expected("a network with at most 32 bits"))?,
            ),
        };
        if prefix.is_none() && self.peek_behind(1) == "mask" {
            self.at += 2;
            let asked: Option<Ipv4Addr> = self.peek().parse().ok();
            mask = asked.ok_or_else(|| self.expected("a mask as in 255.255.0.0"))?.into();
        }
        self.whole_net(u32::from(address) & !mask == 0)?;
        self.at += 1;
        self.ip_node(qualifiers, address, mask)
    }

    /// As tcpdump, rejects a network address with bits outside of its mask.
    fn whole_net(&self, whole: bool) -> Result<(), Error> {
        if whole { Ok(()) } else { Err(self.expected("a network, without bits that its mask leaves out")) }
    }

    fn ip_node(&self, qualifiers: Qualifiers<'a>, address: Ipv4Addr, mask: u32) -> Result<Node, Error> {
        let (way, shift) = (qualifiers.way, self.shift);
        let ip = || shift.ip_net(way, address, mask);
        let arp = |kind| shift.arp_net(kind, way, address, mask);
        Ok(match qualifiers.protocol {
            None => ip().or(arp(kind::ARP)).or(arp(kind::RARP)),
            Some("ip") => ip(),
            Some("arp") => arp(kind::ARP),
            Some("rarp") => arp(kind::RARP),
            Some(other) => return Err(address_of(other)),
        })
    }

    fn ip6_node(&self, qualifiers: Qualifiers<'a>, address: Ipv6Addr, prefix: u32) -> Result<Node, Error> {
        match qualifiers.protocol {
            None | Some("ip6") => Ok(self.shift.ip6_net(qualifiers.way, address, prefix)),
            Some(other) => Err(address_of(other)),
        }
    }

    pub(super) fn ports(&mut self, qualifiers: Qualifiers<'a>, low: u32, high: u32) -> Result<Node, Error> {
        self.at += 1;
        let all = [protocol::SCTP, protocol::TCP, protocol::UDP];
        let (versions, protocols): (_, &[u32]) = match qualifiers.protocol {
            None => ([true, true], &all),
            Some("ip") => ([true, false], &all),
            Some("ip6") => ([false, true], &all),
            Some("tcp") => ([true, true], &all[1..2]),
            Some("udp") => ([true, true], &all[2..]),
            Some("sctp") => ([true, true], &all[..1]),
            Some(other) => {
                return Err(Error::new(format!(
                    "'{other} port' is not possible; write tcp, udp or sctp port"
                )));
            }
        };
        let node = self.shift.ports(versions, protocols, qualifiers.way, low, high);
        node.ok_or_else(|| self.expected("a port"))
    }
}

fn address_of(protocol: &str) -> Error {
    Error::new(format!(
        "'{protocol}' has no such addresses; write 'host', 'ip host', 'ip6 host' or 'arp host'"
    ))
}
