//! Ethernet II and VLAN tags (IEEE 802.3, 802.1Q).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::Header;
use crate::mac::MacAddr;

/// EtherType values (IANA, IEEE 802 Numbers).
pub mod ether_type {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
    /// Customer VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Internet Protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// Service VLAN tag (802.1ad).
    pub const QINQ: u16 = 0x88a8;
    /// Service VLAN tag as used before 802.1ad.
    pub const QINQ_OLD: u16 = 0x9100;
}

/// The length of the shortest frame on a wire, without FCS.
pub const MIN_FRAME: usize = 60;
/// The length of the longest possible frame in bytes: the largest IP packet, and an Ethernet header with two
/// tags. A packet may be this long before it is segmented.
pub const LONGEST_FRAME: usize = 65_535 + 22;
/// The number of bytes that Ethernet adds to an MTU, without FCS and without tags.
pub const OVERHEAD: usize = 14;

/// The 14-byte Ethernet II header.
///
/// ```
/// use linecard_net::{Header, MacAddr, ether::{Ethernet, ether_type}};
/// let mut ethernet = Ethernet::new(MacAddr::local(2), MacAddr::local(1), ether_type::IPV4);
/// ethernet.swap_addresses();
/// assert_eq!(ethernet.destination, MacAddr::local(1));
/// assert_eq!(Ethernet::LEN, 14);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// The receiver's address.
    pub destination: MacAddr,
    /// The sender's address.
    pub source: MacAddr,
    /// The type of the payload; see [`ether_type`].
    pub ether_type: U16,
}

impl Header for Ethernet {}

impl Ethernet {
    /// A header for a frame from `source` to `destination`.
    #[must_use]
    pub const fn new(destination: MacAddr, source: MacAddr, ether_type: u16) -> Self {
        Self { destination, source, ether_type: U16::new(ether_type) }
    }

    /// Swaps source and destination.
    #[inline]
    pub fn swap_addresses(&mut self) {
        std::mem::swap(&mut self.destination, &mut self.source);
    }
}

/// The four bytes of a VLAN tag that follow an EtherType of `VLAN` or `QINQ`.
///
/// ```
/// use linecard_net::ether::{Vlan, ether_type};
/// let tag = Vlan::new(5, 100, ether_type::IPV4);
/// assert_eq!((tag.priority(), tag.vid()), (5, 100));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Vlan {
    /// Tag control information: priority (3 bits), drop eligible (1), VLAN id (12).
    pub tci: U16,
    /// The type of the payload; see [`ether_type`].
    pub ether_type: U16,
}

impl Header for Vlan {}

impl Vlan {
    /// A tag; only the low 3 bits of `priority` and 12 of `vid` count.
    #[must_use]
    pub const fn new(priority: u8, vid: u16, ether_type: u16) -> Self {
        let tci = ((priority & 7) as u16) << 13 | (vid & 0xfff);
        Self { tci: U16::new(tci), ether_type: U16::new(ether_type) }
    }

    /// The VLAN identifier, 0 to 4095.
    #[inline]
    #[must_use]
    pub fn vid(&self) -> u16 {
        self.tci.get() & 0xfff
    }

    /// Priority code point, 0 to 7.
    #[inline]
    #[must_use]
    pub fn priority(&self) -> u8 {
        (self.tci.get() >> 13) as u8
    }
}
