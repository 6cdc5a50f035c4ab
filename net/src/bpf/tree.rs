//! The meaning of an expression as a tree of single comparisons; constructors only, no text.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A condition on a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// A comparison of a number in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) load: Load,
    pub(super) mask: Option<u32>,
    pub(super) compare: Compare,
    pub(super) value: u32,
}

/// The location of a number; sizes in bytes are 1, 2 or 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// At an offset.
    At { size: u8, offset: u32 },
    /// At an offset behind an IPv4 header, which starts at `header`.
    Behind { size: u8, header: u32, offset: u32 },
    /// The frame's length.
    Len,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Above,
    AtLeast,
}

/// The ends of a flow to which a condition applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qualifier {
    Source,
    Destination,
    Either,
    Both,
}

/// IP protocol numbers as 32-bit words of a program.
pub(super) mod protocol {
    use crate::ip::protocol as ip;

    pub(in super::super) const ICMP: u32 = ip::ICMP as u32;
    pub(in super::super) const IGMP: u32 = ip::IGMP as u32;
    pub(in super::super) const TCP: u32 = ip::TCP as u32;
    pub(in super::super) const UDP: u32 = ip::UDP as u32;
    pub(in super::super) const ICMP6: u32 = ip::ICMPV6 as u32;
    pub(in super::super) const SCTP: u32 = ip::SCTP as u32;
    /// The IPv6 fragment header.
    pub(super) const FRAGMENT: u32 = ip::FRAGMENT as u32;
}

/// EtherTypes as 32-bit words of a program.
pub(super) mod kind {
    use crate::ether::ether_type;

    pub(in super::super) const IP: u32 = ether_type::IPV4 as u32;
    pub(in super::super) const ARP: u32 = ether_type::ARP as u32;
    pub(in super::super) const RARP: u32 = 0x8035;
    /// The EtherTypes of VLAN tags.
    pub(super) const TAGS: [u32; 3] =
        [ether_type::VLAN as u32, ether_type::QINQ as u32, ether_type::QINQ_OLD as u32];
    pub(in super::super) const IP6: u32 = ether_type::IPV6 as u32;
}

impl Node {
    pub(super) fn and(self, other: Self) -> Self {
        Self::And(Box::new(self), Box::new(other))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self::Or(Box::new(self), Box::new(other))
    }

    pub(super) fn not(self) -> Self {
        Self::Not(Box::new(self))
    }
}

fn test(size: u8, offset: u32, compare: Compare, value: u32) -> Node {
    Node::Test(Test { load: Load::At { size, offset }, mask: None, compare, value })
}

fn equal(size: u8, offset: u32, value: u32) -> Node {
    test(size, offset, Compare::Equal, value)
}

fn masked(offset: u32, value: u32, mask: u32) -> Option<Node> {
    let load = Load::At { size: 4, offset };
    let all = (mask != u32::MAX).then_some(mask);
    (mask != 0).then_some(Node::Test(Test { load, mask: all, compare: Compare::Equal, value: value & mask }))
}

/// Applies a condition to the ends that `way` selects.
fn ends(way: Qualifier, of: impl Fn(bool) -> Node) -> Node {
    match way {
        Qualifier::Source => of(true),
        Qualifier::Destination => of(false),
        Qualifier::Either => of(true).or(of(false)),
        Qualifier::Both => of(true).and(of(false)),
    }
}

/// Conditions on frames whose EtherType is behind this many bytes of VLAN tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift(pub(super) u32);

impl Shift {
    /// The start of the layer-3 header.
    pub(super) const fn layer3(self) -> u32 {
        14 + self.0
    }

    pub(super) fn ether_type(self, kind: u32) -> Node {
        equal(2, 12 + self.0, kind)
    }

    /// IPv4 with this protocol.
    pub(super) fn ip_protocol(self, number: u32) -> Node {
        self.ether_type(kind::IP).and(equal(1, self.layer3() + 9, number))
    }

    /// IPv6 with this protocol next, or directly behind a fragment header.
    pub(super) fn ip6_protocol(self, number: u32) -> Node {
        let next = self.layer3() + 6;
        let behind = equal(1, next, protocol::FRAGMENT).and(equal(1, self.layer3() + 40, number));
        self.ether_type(kind::IP6).and(equal(1, next, number).or(behind))
    }

    pub(super) fn protocol(self, number: u32) -> Node {
        self.ip6_protocol(number).or(self.ip_protocol(number))
    }

    /// A tag, with this VLAN if given; frames behind it are [`Shift`]ed by four more bytes.
    pub(super) fn vlan(self, id: Option<u32>) -> Node {
        let [first, second, third] = kind::TAGS.map(|tag| self.ether_type(tag));
        let tag = first.or(second).or(third);
        let Some(id) = id else { return tag };
        let load = Load::At { size: 2, offset: self.layer3() };
        tag.and(Node::Test(Test { load, mask: Some(0xfff), compare: Compare::Equal, value: id }))
    }

    pub(super) fn ip_net(self, way: Qualifier, address: Ipv4Addr, mask: u32) -> Node {
        let first = self.layer3() + 12;
        self.net_in(kind::IP, way, [first, first + 4], address, mask)
    }

    /// Addresses in requests and replies of ARP or RARP.
    pub(super) fn arp_net(self, kind: u32, way: Qualifier, address: Ipv4Addr, mask: u32) -> Node {
        let first = self.layer3() + 14;
        self.net_in(kind, way, [first, first + 10], address, mask)
    }

    fn net_in(self, kind: u32, way: Qualifier, at: [u32; 2], address: Ipv4Addr, mask: u32) -> Node {
        let kind = self.ether_type(kind);
        match masked(at[0], address.into(), mask).zip(masked(at[1], address.into(), mask)) {
            // A network of all addresses imposes no condition.
            None => kind,
            Some((source, destination)) => {
                kind.and(ends(way, |is_source| if is_source { source.clone() } else { destination.clone() }))
            }
        }
    }

    pub(super) fn ip6_net(self, way: Qualifier, address: Ipv6Addr, prefix: u32) -> Node {
        let kind = self.ether_type(kind::IP6);
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        let words = |first: u32| {
            let word = |i: u32| {
                let down = |number: u128| (number >> (96 - 32 * i)) as u32;
                masked(first + 4 * i, down(address.into()), down(mask))
            };
            (0..4).filter_map(word).reduce(Node::and)
        };
        let first = self.layer3() + 8;
        match words(first).zip(words(first + 16)) {
            None => kind,
            Some((source, destination)) => {
                kind.and(ends(way, |is_source| if is_source { source.clone() } else { destination.clone() }))
            }
        }
    }

    /// Ports from `low` to `high` of the protocols, over IPv4 and IPv6.
    pub(super) fn ports(
        self,
        versions: [bool; 2],
        protocols: &[u32],
        way: Qualifier,
        low: u32,
        high: u32,
    ) -> Option<Node> {
        let header = self.layer3();
        let range = |load: Load| {
            let one = |compare, value| Node::Test(Test { load, mask: None, compare, value });
            if low == high {
                one(Compare::Equal, low)
            } else {
                one(Compare::AtLeast, low).and(one(Compare::Above, high).not())
            }
        };
        let ip = || {
            let protocols = protocols.iter().map(|number| equal(1, header + 9, *number)).reduce(Node::or)?;
            let port = |is_source| {
                range(Load::Behind { size: 2, header, offset: header + if is_source { 0 } else { 2 } })
            };
            Some(self.ether_type(kind::IP).and(protocols).and(self.first_fragment()).and(ends(way, port)))
        };
        let ip6 = || {
            let protocols = protocols.iter().map(|number| equal(1, header + 6, *number)).reduce(Node::or)?;
            let port =
                |is_source| range(Load::At { size: 2, offset: header + if is_source { 40 } else { 42 } });
            Some(self.ether_type(kind::IP6).and(protocols).and(ends(way, port)))
        };
        let [v4, v6] = versions;
        let all = [v6.then(ip6).flatten(), v4.then(ip).flatten()];
        all.into_iter().flatten().reduce(Node::or)
    }

    /// An IPv4 packet that contains its layer-4 header.
    pub(super) fn first_fragment(self) -> Node {
        let load = Load::At { size: 2, offset: self.layer3() + 6 };
        Node::Test(Test { load, mask: Some(0x1fff), compare: Compare::Equal, value: 0 })
    }

    pub(super) fn ip_multicast(self) -> Node {
        self.ether_type(kind::IP).and(test(1, self.layer3() + 16, Compare::AtLeast, 224))
    }

    pub(super) fn ip6_multicast(self) -> Node {
        self.ether_type(kind::IP6).and(equal(1, self.layer3() + 24, 0xff))
    }
}

pub(super) fn ether_host(way: Qualifier, mac: [u8; 6]) -> Node {
    let [a, b, c, d, e, f] = mac;
    ends(way, |is_source| {
        let first = if is_source { 6 } else { 0 };
        let low = equal(4, first + 2, u32::from_be_bytes([c, d, e, f]));
        low.and(equal(2, first, u16::from_be_bytes([a, b]).into()))
    })
}

/// The lowest bit of the first byte of the destination.
pub(super) fn ether_group() -> Node {
    let load = Load::At { size: 1, offset: 0 };
    Node::Test(Test { load, mask: Some(1), compare: Compare::Equal, value: 1 })
}
