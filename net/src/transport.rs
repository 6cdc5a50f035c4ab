//! UDP (RFC 768), TCP (RFC 9293), ICMP (RFC 792) and ICMPv6 (RFC 4443).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::Header;

/// The 8 bytes of a UDP header.
///
/// ```
/// use linecard_net::transport::Udp;
/// let udp = Udp::new(5000, 9, 12);
/// assert_eq!((udp.destination_port.get(), udp.length.get()), (9, 20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// The length of header and data in bytes.
    pub length: U16,
    /// Over pseudo-header, header and data; 0 = none (IPv4 only).
    pub checksum: U16,
}

impl Header for Udp {}

impl Udp {
    /// The offset of the checksum in the header.
    pub const CHECKSUM_OFFSET: usize = 6;

    /// A header for `payload_len` bytes, no checksum.
    #[must_use]
    pub const fn new(source_port: u16, destination_port: u16, payload_len: u16) -> Self {
        Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            length: U16::new(payload_len.saturating_add(8)),
            checksum: U16::ZERO,
        }
    }
}

/// The fixed 20 bytes of a TCP header.
///
/// ```
/// use linecard_net::{Header, transport::{Tcp, tcp_flags}};
/// let mut bytes = [0; 20];
/// bytes[12] = 0x80;
/// bytes[13] = tcp_flags::SYN | tcp_flags::ACK;
/// let tcp = Tcp::load(&bytes).expect("20 bytes");
/// assert_eq!((tcp.header_len(), tcp.flags & tcp_flags::FIN), (32, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// The number of the first data byte.
    pub sequence_number: U32,
    /// The next byte expected.
    pub acknowledgment_number: U32,
    /// Header length in 32-bit words (high 4 bits); the rest is reserved.
    pub data_offset: u8,
    /// See [`tcp_flags`].
    pub flags: u8,
    /// Receive window.
    pub window: U16,
    /// Over pseudo-header, header and data.
    pub checksum: U16,
    /// End of urgent data, where URG is set.
    pub urgent_pointer: U16,
}

impl Header for Tcp {}

impl Tcp {
    /// The offset of the checksum in the header.
    pub const CHECKSUM_OFFSET: usize = 16;

    /// The length of the header with options, 0 to 60 bytes; less than 20 is invalid.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }
}

/// The bits of [`Tcp::flags`] (RFC 9293, RFC 3168).
pub mod tcp_flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number is valid.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is valid.
    pub const URG: u8 = 0x20;
    /// Congestion echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// The first 8 bytes of an ICMP or ICMPv6 message, named as echo uses them.
///
/// ```
/// use linecard_net::{Header, transport::{Icmp, icmp_kind}};
/// let echo = Icmp::load(&[8, 0, 0, 0, 0, 7, 0, 1]).expect("8 bytes");
/// assert_eq!((echo.kind, echo.identifier.get()), (icmp_kind::ECHO_REQUEST, 7));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// The RFC's `type`; see [`icmp_kind`].
    pub kind: u8,
    /// A subtype of `kind`.
    pub code: u8,
    /// Over the message; in ICMPv6 over the pseudo-header too.
    pub checksum: U16,
    /// Identifies the sender's series of echo requests.
    pub identifier: U16,
    /// The number of the echo request in the series.
    pub sequence_number: U16,
}

impl Header for Icmp {}

impl Icmp {
    /// The offset of the checksum in the header.
    pub const CHECKSUM_OFFSET: usize = 2;
}

/// Values of [`Icmp::kind`].
pub mod icmp_kind {
    /// Echo reply (ICMP).
    pub const ECHO_REPLY: u8 = 0;
    /// Echo request (ICMP).
    pub const ECHO_REQUEST: u8 = 8;
    /// Echo request (ICMPv6).
    pub const V6_ECHO_REQUEST: u8 = 128;
    /// Echo reply (ICMPv6).
    pub const V6_ECHO_REPLY: u8 = 129;
    /// Who has this address? (RFC 4861)
    pub const V6_NEIGHBOR_SOLICITATION: u8 = 135;
    /// The answer (RFC 4861).
    pub const V6_NEIGHBOR_ADVERTISEMENT: u8 = 136;
}
