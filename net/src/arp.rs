//! Address resolution for IPv4 over Ethernet (RFC 826).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ether::ether_type;
use crate::header::Header;
use crate::mac::MacAddr;

/// A request: who has `target_protocol`?
pub const REQUEST: u16 = 1;
/// A reply: `sender_protocol` is at `sender_hardware`.
pub const REPLY: u16 = 2;

/// The 28 bytes of ARP for IPv4 over Ethernet.
///
/// ```
/// use linecard_net::{MacAddr, arp::{Arp, REPLY}};
/// let asked = Arp::request(MacAddr::local(1), [10, 0, 0, 1], [10, 0, 0, 2]);
/// let reply = asked.reply(MacAddr::local(2)).expect("a request for IPv4 over Ethernet");
/// assert_eq!((reply.operation.get(), reply.sender_protocol), (REPLY, [10, 0, 0, 2]));
/// assert!(reply.reply(MacAddr::local(3)).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Arp {
    /// 1 = Ethernet.
    pub hardware_type: U16,
    /// The EtherType of the protocol; 0x0800 = IPv4.
    pub protocol_type: U16,
    /// Octets of a hardware address.
    pub hardware_len: u8,
    /// Octets of a protocol address.
    pub protocol_len: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// Sender's Ethernet address.
    pub sender_hardware: MacAddr,
    /// Sender's IPv4 address.
    pub sender_protocol: [u8; 4],
    /// Target's Ethernet address; ignored in a request.
    pub target_hardware: MacAddr,
    /// Target's IPv4 address.
    pub target_protocol: [u8; 4],
}

impl Header for Arp {}

impl Arp {
    /// Creates a request for the address of `target`.
    #[must_use]
    pub const fn request(mac: MacAddr, address: [u8; 4], target: [u8; 4]) -> Self {
        Self {
            hardware_type: U16::new(1),
            protocol_type: U16::new(ether_type::IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(REQUEST),
            sender_hardware: mac,
            sender_protocol: address,
            target_hardware: MacAddr::ZERO,
            target_protocol: target,
        }
    }

    /// The reply that the requested address is at `mac`; `None` unless this is a request for IPv4 over
    /// Ethernet.
    #[must_use]
    pub fn reply(&self, mac: MacAddr) -> Option<Self> {
        let known = self.is_ipv4_over_ethernet() && self.operation.get() == REQUEST;
        known.then_some(Self {
            operation: U16::new(REPLY),
            sender_hardware: mac,
            sender_protocol: self.target_protocol,
            target_hardware: self.sender_hardware,
            target_protocol: self.sender_protocol,
            ..*self
        })
    }

    /// Whether the types and lengths are those of this layout.
    #[must_use]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware_type.get() == 1
            && self.protocol_type.get() == ether_type::IPV4
            && (self.hardware_len, self.protocol_len) == (6, 4)
    }
}

/// The length of the shortest Ethernet frame, without FCS.
const FRAME: usize = 60;

/// A frame that tells switches where `mac` is: a broadcast RARP request from that address for itself, as sent
/// by a machine that was moved (RFC 903; QEMU and DPDK announce a guest in this way).
///
/// ```
/// let frame = linecard_net::arp::rarp_announcement([2, 0, 0, 0, 0, 7]);
/// assert_eq!((&frame[..6], &frame[6..12], &frame[12..14]), (&[0xff; 6][..], &[2, 0, 0, 0, 0, 7][..], &[0x80, 0x35][..]));
/// ```
#[must_use]
pub fn rarp_announcement(mac: [u8; 6]) -> [u8; FRAME] {
    /// EtherType, then the ARP fields: Ethernet, IPv4, their address lengths, and the operation "reverse
    /// request".
    const RARP: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    let no_address = [0_u8; 4];
    let parts: [&[u8]; 7] = [&[0xff; 6], &mac, &RARP, &mac, &no_address, &mac, &no_address];
    let mut frame = [0; FRAME];
    frame.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    frame
}
