//! Parsing of frames: where each header starts, and its type.
//!
//! One pass; loops are limited by [`MAX_TAGS`] and [`MAX_EXTENSIONS`], and every length is compared before it
//! is used. The parser stops where a frame is malformed and reports only the layers before that point.

use crate::Header;
use crate::ether::{Ethernet, Vlan, ether_type};
use crate::ip::{Ipv4, Ipv6, protocol};
use crate::packet_type::PacketType;
use crate::transport::{Tcp, Udp};

/// The maximum number of VLAN tags that are parsed.
pub const MAX_TAGS: usize = 2;
/// The maximum number of IPv6 extension headers that are parsed.
pub const MAX_EXTENSIONS: usize = 8;

/// The result of [`parse`]; a length is 0 if its layer was not recognised.
///
/// ```
/// use linecard_net::{PacketType, parse};
/// let mut frame = [0_u8; 60];
/// frame[12..16].copy_from_slice(&[0x81, 0x00, 0x00, 0x64]); // VLAN 100
/// frame[16..18].copy_from_slice(&[0x08, 0x06]); // ARP
/// let layers = parse(&frame);
/// assert_eq!((layers.l2_len, layers.vlan_tci, layers.l3_len), (18, Some(100), 0));
/// assert_eq!(layers.packet_type, PacketType::L2_ETHER_VLAN);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The types of the layers.
    pub packet_type: PacketType,
    /// The length of the Ethernet header with tags, in bytes: where the network header starts.
    pub l2_len: u16,
    /// The length of the network header with options or extension headers, in bytes.
    pub l3_len: u16,
    /// The length of the transport header with options, in bytes.
    pub l4_len: u16,
    /// The EtherType behind all tags.
    pub ether_type: u16,
    /// The outermost VLAN tag.
    pub vlan_tci: Option<u16>,
    /// The protocol number behind all extension headers; meaningless if `l3_len` is 0.
    pub protocol: u8,
    /// Whether an IPv6 routing header has hops left: it then contains the destination for the pseudo-header.
    pub source_routed: bool,
    /// The length of transport header and data in bytes, from the IP header; the slice may be shorter (a
    /// chain, a truncated capture) or longer (padding).
    pub transport_len: u32,
}

impl Layers {
    /// The offset of the transport header.
    #[inline]
    #[must_use]
    pub fn l4_start(&self) -> usize {
        usize::from(self.l2_len) + usize::from(self.l3_len)
    }

    /// The offset of the data behind all recognised headers.
    #[inline]
    #[must_use]
    pub fn payload_start(&self) -> usize {
        self.l4_start() + usize::from(self.l4_len)
    }
}

/// Parses the headers at the front of `frame`, which may be only the first part of a packet.
///
/// ```
/// use linecard_net::{Header, MacAddr, PacketType, ether::{Ethernet, ether_type}, ip::{Ipv4, protocol}, parse, transport::Udp};
/// let mut frame = [0_u8; 60];
/// Ethernet::new(MacAddr::local(2), MacAddr::local(1), ether_type::IPV4).store(&mut frame).expect("fits");
/// Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], protocol::UDP, 12).store(&mut frame[14..]).expect("fits");
/// Udp::new(5000, 9, 4).store(&mut frame[34..]).expect("fits");
/// let layers = parse(&frame);
/// assert_eq!((layers.l2_len, layers.l3_len, layers.l4_len, layers.transport_len), (14, 20, 8, 12));
/// assert_eq!(layers.packet_type, PacketType::L2_ETHER | PacketType::L3_IPV4 | PacketType::L4_UDP);
/// ```
#[inline]
#[must_use]
pub fn parse(frame: &[u8]) -> Layers {
    let mut layers = Layers::default();
    if let Some(rest) = link(frame, &mut layers) {
        network(rest, &mut layers);
    }
    layers
}

/// Parses an IP packet without a link layer; `l2_len` stays 0.
///
/// ```
/// use linecard_net::{Header, PacketType, ip::Ipv4, parse::parse_ip};
/// use zerocopy::IntoBytes;
/// let ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], 253, 0);
/// assert_eq!(parse_ip(ip.as_bytes()).packet_type, PacketType::L3_IPV4 | PacketType::L4_NONFRAG);
/// ```
#[inline]
#[must_use]
pub fn parse_ip(packet: &[u8]) -> Layers {
    let ether_type = match packet.first().map_or(0, |byte| byte >> 4) {
        4 => ether_type::IPV4,
        6 => ether_type::IPV6,
        _ => 0,
    };
    let mut layers = Layers { ether_type, ..Layers::default() };
    network(packet, &mut layers);
    layers
}

#[inline]
fn network(rest: &[u8], layers: &mut Layers) {
    let transport_header = match layers.ether_type {
        ether_type::IPV4 => ipv4(rest, layers),
        ether_type::IPV6 => ipv6(rest, layers),
        _ => None,
    };
    if let Some(rest) = transport_header {
        transport(rest, layers);
    }
}

#[inline]
fn link<'a>(frame: &'a [u8], layers: &mut Layers) -> Option<&'a [u8]> {
    let (ethernet, mut rest) = Ethernet::view(frame)?;
    layers.ether_type = ethernet.ether_type.get();
    layers.l2_len = 14;
    layers.packet_type = PacketType::L2_ETHER;
    for tagged in [PacketType::L2_ETHER_VLAN, PacketType::L2_ETHER_QINQ] {
        if !matches!(layers.ether_type, ether_type::VLAN | ether_type::QINQ | ether_type::QINQ_OLD) {
            break;
        }
        let (tag, behind) = Vlan::view(rest)?;
        layers.vlan_tci.get_or_insert(tag.tci.get());
        layers.ether_type = tag.ether_type.get();
        layers.l2_len += 4;
        layers.packet_type = tagged;
        rest = behind;
    }
    if layers.ether_type == ether_type::ARP && layers.packet_type == PacketType::L2_ETHER {
        layers.packet_type = PacketType::L2_ETHER_ARP;
    }
    Some(rest)
}

/// Returns the bytes behind the header if a transport header starts there.
#[inline]
fn ipv4<'a>(packet: &'a [u8], layers: &mut Layers) -> Option<&'a [u8]> {
    let ip = Ipv4::load(packet)?;
    let (header_len, total_len) = (ip.header_len(), usize::from(ip.total_length.get()));
    if ip.version() != 4 || header_len < Ipv4::LEN || total_len < header_len {
        return None;
    }
    let rest = packet.get(header_len..)?;
    let kind = if header_len == Ipv4::LEN { PacketType::L3_IPV4 } else { PacketType::L3_IPV4_EXT };
    layers.packet_type = layers.packet_type | kind;
    layers.l3_len = header_len as u16;
    layers.protocol = ip.protocol;
    layers.transport_len = (total_len - header_len) as u32;
    if ip.is_fragment() {
        layers.packet_type = layers.packet_type | PacketType::L4_FRAG;
        return None;
    }
    Some(rest)
}

/// As [`ipv4`], skipping extension headers.
#[inline]
fn ipv6<'a>(packet: &'a [u8], layers: &mut Layers) -> Option<&'a [u8]> {
    let ip = Ipv6::load(packet)?;
    if ip.version() != 6 {
        return None;
    }
    layers.packet_type = layers.packet_type | PacketType::L3_IPV6;
    layers.l3_len = Ipv6::LEN as u16;
    layers.protocol = ip.next_header;
    layers.transport_len = u32::from(ip.payload_length.get());
    let mut rest = packet.get(Ipv6::LEN..)?;
    for _ in 0..MAX_EXTENSIONS {
        let Some(step) = extension(layers.protocol, rest) else {
            return is_final(layers.protocol).then_some(rest);
        };
        let Extension { len, next, fragment, source_routed } = step?;
        layers.packet_type = layers.packet_type | PacketType::L3_IPV6_EXT;
        layers.l3_len += len;
        layers.protocol = next;
        layers.transport_len = layers.transport_len.checked_sub(u32::from(len))?;
        layers.source_routed |= source_routed;
        rest = rest.get(usize::from(len)..)?;
        if fragment {
            layers.packet_type = layers.packet_type | PacketType::L4_FRAG;
            return None;
        }
    }
    is_final(layers.protocol).then_some(rest)
}

struct Extension {
    len: u16,
    next: u8,
    fragment: bool,
    source_routed: bool,
}

/// Whether `protocol` is not an extension header.
const fn is_final(protocol: u8) -> bool {
    !matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::NO_NEXT_HEADER
    )
}

/// The extension header at the front of `bytes`: `None` if `protocol` is not one, `Some(None)` if it is
/// truncated.
#[inline]
fn extension(protocol: u8, bytes: &[u8]) -> Option<Option<Extension>> {
    if is_final(protocol) || protocol == protocol::NO_NEXT_HEADER {
        return None;
    }
    let Some(&[next, words, high, low]) = bytes.first_chunk() else { return Some(None) };
    let len = match protocol {
        protocol::FRAGMENT => 8,
        protocol::AUTHENTICATION => (u16::from(words) + 2) * 4,
        _ => (u16::from(words) + 1) * 8,
    };
    // An atomic fragment (offset 0, no more fragments) is complete (RFC 6946).
    let fragment = protocol == protocol::FRAGMENT && u16::from_be_bytes([high, low]) & 0xfff9 != 0;
    let source_routed = protocol == protocol::ROUTING && low != 0;
    Some((bytes.len() >= usize::from(len)).then_some(Extension { len, next, fragment, source_routed }))
}

#[inline]
fn transport(bytes: &[u8], layers: &mut Layers) {
    let (kind, len) = match layers.protocol {
        protocol::TCP => (PacketType::L4_TCP, Tcp::load(bytes).map_or(0, |tcp| tcp.header_len())),
        protocol::UDP => (PacketType::L4_UDP, Udp::LEN),
        protocol::SCTP => (PacketType::L4_SCTP, 12),
        protocol::ICMP | protocol::ICMPV6 => (PacketType::L4_ICMP, 8),
        protocol::IGMP => (PacketType::L4_IGMP, 8),
        _ => {
            layers.packet_type = layers.packet_type | PacketType::L4_NONFRAG;
            return;
        }
    };
    let smallest = if kind == PacketType::L4_TCP { Tcp::LEN } else { len };
    if len >= smallest && len <= bytes.len() && len <= layers.transport_len as usize {
        layers.packet_type = layers.packet_type | kind;
        layers.l4_len = len as u16;
    }
}

#[cfg(test)]
mod tests;
