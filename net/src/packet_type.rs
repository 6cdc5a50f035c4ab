//! The type of each layer of a packet, in DPDK's numbers (`rte_mbuf_ptype.h`).

use std::fmt;

/// The type of a packet, as far as it was parsed: one 4-bit number per layer.
///
/// ```
/// use linecard_net::PacketType;
/// let kind = PacketType::L2_ETHER | PacketType::L3_IPV4 | PacketType::L4_UDP;
/// assert_eq!(kind.l4(), PacketType::L4_UDP);
/// assert!(kind.is_ipv4() && !kind.is_ipv6());
/// assert_eq!(kind.to_string(), "L2_ETHER L3_IPV4 L4_UDP");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PacketType(u32);

macro_rules! packet_types {
    ($($name:ident = $value:literal, $what:literal;)+) => {
        impl PacketType {
            $(#[doc = $what] pub const $name: Self = Self($value);)+
            const NAMES: &[(u32, &str)] = &[$(($value, stringify!($name))),+];
        }
    };
}

packet_types! {
    UNKNOWN = 0x000, "Nothing known, or nobody looked.";
    L2_ETHER = 0x001, "Ethernet without tag.";
    L2_ETHER_ARP = 0x003, "Ethernet with ARP.";
    L2_ETHER_VLAN = 0x006, "Ethernet with one VLAN tag.";
    L2_ETHER_QINQ = 0x007, "Ethernet with two VLAN tags.";
    L3_IPV4 = 0x010, "IPv4 without options.";
    L3_IPV4_EXT = 0x030, "IPv4 with options.";
    L3_IPV4_EXT_UNKNOWN = 0x090, "IPv4, perhaps with options.";
    L3_IPV6 = 0x040, "IPv6 without extension headers.";
    L3_IPV6_EXT = 0x0c0, "IPv6 with extension headers.";
    L3_IPV6_EXT_UNKNOWN = 0x0e0, "IPv6, perhaps with extension headers.";
    L4_TCP = 0x100, "TCP.";
    L4_UDP = 0x200, "UDP.";
    L4_FRAG = 0x300, "A fragment; no transport header can be relied on.";
    L4_SCTP = 0x400, "SCTP.";
    L4_ICMP = 0x500, "ICMP or ICMPv6.";
    L4_NONFRAG = 0x600, "Another protocol, not fragmented.";
    L4_IGMP = 0x700, "IGMP.";
}

impl PacketType {
    /// The type of the link layer only.
    #[inline]
    #[must_use]
    pub const fn l2(self) -> Self {
        Self(self.0 & 0x00f)
    }

    /// The type of the network layer only.
    #[inline]
    #[must_use]
    pub const fn l3(self) -> Self {
        Self(self.0 & 0x0f0)
    }

    /// The type of the transport layer only.
    #[inline]
    #[must_use]
    pub const fn l4(self) -> Self {
        Self(self.0 & 0xf00)
    }

    /// The value stored in a packet's metadata (`packet_type`).
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Converts a value from [`PacketType::bits`].
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether this is IPv4, with or without options (`RTE_ETH_IS_IPV4_HDR`).
    #[inline]
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        self.0 & 0x010 != 0
    }

    /// Whether this is IPv6, with or without extension headers (`RTE_ETH_IS_IPV6_HDR`).
    #[inline]
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.0 & 0x040 != 0
    }
}

impl std::ops::BitOr for PacketType {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            |part: u32| Self::NAMES.iter().find(|(value, _)| *value == part).map_or("?", |(_, name)| name);
        let mut layers = [self.l2(), self.l3(), self.l4()].into_iter().filter(|layer| layer.0 != 0);
        match layers.next() {
            None => f.write_str("UNKNOWN"),
            Some(first) => {
                f.write_str(name(first.0))?;
                layers.try_for_each(|layer| write!(f, " {}", name(layer.0)))
            }
        }
    }
}
