//! Internet Protocol versions 4 (RFC 791) and 6 (RFC 8200).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum;
use crate::header::Header;

/// Protocol numbers (IANA), used by IPv4's protocol and IPv6's next header.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Internet Control Message Protocol for IPv4.
    pub const ICMP: u8 = 1;
    /// Internet Group Management Protocol.
    pub const IGMP: u8 = 2;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// Internet Control Message Protocol for IPv6.
    pub const ICMPV6: u8 = 58;
    /// No header follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// The fixed 20 bytes of an IPv4 header.
///
/// ```
/// use linecard_net::ip::{Ipv4, protocol};
/// let mut ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], protocol::UDP, 8);
/// assert_eq!((ip.version(), ip.header_len(), ip.total_length.get()), (4, 20, 28));
/// assert!(ip.is_checksum_good());
/// ip.time_to_live -= 1;
/// assert!(!ip.is_checksum_good());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (high 4 bits, 4) and header length in 32-bit words (low 4 bits).
    pub version_ihl: u8,
    /// Differentiated services and congestion bits (RFC 2474, 3168).
    pub dscp_ecn: u8,
    /// The length of header and data in bytes.
    pub total_length: U16,
    /// The datagram that a fragment belongs to.
    pub identification: U16,
    /// Flags (high 3 bits) and fragment offset in 8-byte units (low 13 bits).
    pub flags_fragment_offset: U16,
    /// The remaining number of hops.
    pub time_to_live: u8,
    /// The protocol of the data; see [`protocol`].
    pub protocol: u8,
    /// The checksum of the header including options.
    pub header_checksum: U16,
    /// The sender's address.
    pub source: [u8; 4],
    /// The receiver's address.
    pub destination: [u8; 4],
}

impl Header for Ipv4 {}

impl Ipv4 {
    /// The flag "don't fragment" of [`flags_fragment_offset`](Self::flags_fragment_offset).
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// The flag "more fragments".
    pub const MORE_FRAGMENTS: u16 = 0x2000;

    /// A header without options for `payload_len` bytes, time to live 64, checksum filled in.
    #[must_use]
    pub fn new(source: [u8; 4], destination: [u8; 4], protocol: u8, payload_len: u16) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            dscp_ecn: 0,
            total_length: U16::new(payload_len.saturating_add(20)),
            identification: U16::ZERO,
            flags_fragment_offset: U16::ZERO,
            time_to_live: 64,
            protocol,
            header_checksum: U16::ZERO,
            source,
            destination,
        };
        header.header_checksum = U16::new(checksum::checksum(header.as_bytes()));
        header
    }

    /// 4 in a valid header.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// The length of the header with options, 0 to 60 bytes; less than 20 is invalid.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 15) as usize * 4
    }

    /// Whether this is a part of a larger datagram.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.flags_fragment_offset.get() & (Self::MORE_FRAGMENTS | 0x1fff) != 0
    }

    /// Whether this fragment does not begin its datagram: the data behind the header is not a transport
    /// header then.
    #[inline]
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.flags_fragment_offset.get() & 0x1fff != 0
    }

    /// Whether the checksum matches these 20 bytes; meaningless if there are options.
    #[must_use]
    pub fn is_checksum_good(&self) -> bool {
        checksum::checksum(self.as_bytes()) == 0
    }
}

/// The 40 bytes of an IPv6 header.
///
/// ```
/// use linecard_net::ip::{Ipv6, protocol};
/// let ip = Ipv6::new([1; 16], [2; 16], protocol::UDP, 8);
/// assert_eq!((ip.version(), ip.payload_length.get(), ip.hop_limit), (6, 8, 64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits, 6), traffic class (8), flow label (20).
    pub version_class_flow: U32,
    /// The number of bytes after this header, including extension headers.
    pub payload_length: U16,
    /// The protocol of the data; see [`protocol`].
    pub next_header: u8,
    /// The remaining number of hops.
    pub hop_limit: u8,
    /// The sender's address.
    pub source: [u8; 16],
    /// The receiver's address.
    pub destination: [u8; 16],
}

impl Header for Ipv6 {}

impl Ipv6 {
    /// A header for `payload_len` bytes, with a hop limit of 64.
    #[must_use]
    pub const fn new(source: [u8; 16], destination: [u8; 16], next_header: u8, payload_len: u16) -> Self {
        Self {
            version_class_flow: U32::new(6 << 28),
            payload_length: U16::new(payload_len),
            next_header,
            hop_limit: 64,
            source,
            destination,
        }
    }

    /// 6 in a valid header.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }
}
