//! Checksums of tunnelled packets: first of the inner headers, then of the outer ones, which cover them.

use linecard::net::checksum::checksum;
use linecard::net::ip::protocol;
use linecard::net::offload::{fill_ipv4, fill_transport};
use linecard::net::parse::parse_ip;
use linecard::net::{Layers, PacketType, parse};

/// UDP port of VXLAN (RFC 7348).
const VXLAN: [u8; 2] = 4789_u16.to_be_bytes();
/// IPv4 and IPv6 in IP (RFC 2003, RFC 4213).
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
/// Ethernet in GRE (RFC 1701).
const ETHERNET_IN_GRE: [u8; 2] = [0x65, 0x58];
const GRE: u8 = 47;

/// The offset of the inner packet, and its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    Ethernet(usize),
    Ip(usize),
}

/// Finds the inner packet of VXLAN, GRE (with key, checksum and sequence number, or without) and IP in IP.
fn inner(frame: &[u8], outer: &Layers) -> Option<Inner> {
    let l4 = outer.l4_start();
    if outer.l3_len == 0 || outer.packet_type.l4() == PacketType::L4_FRAG {
        return None;
    }
    match outer.protocol {
        protocol::UDP => {
            (frame.get(l4 + 2..l4 + 4)? == VXLAN).then_some(Inner::Ethernet(outer.payload_start() + 8))
        }
        IPV4_IN_IP | IPV6_IN_IP => Some(Inner::Ip(l4)),
        GRE => {
            let [flags, version, kind @ ..] = frame.get(l4..l4 + 4)?.first_chunk::<4>()?;
            let optional = (flags & 0xb0).count_ones() as usize;
            let at = l4 + 4 + optional * 4;
            match (version & 7, *kind) {
                (0, ETHERNET_IN_GRE) => Some(Inner::Ethernet(at)),
                (0, [8, 0] | [0x86, 0xdd]) => Some(Inner::Ip(at)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Writes all IPv4, TCP, UDP and GRE checksums of a tunnelled packet in one segment. Returns `None` and writes
/// nothing if it is not a tunnelled packet. A UDP checksum of 0 means "none" and stays.
pub(super) fn finish(frame: &mut [u8], outer: &Layers) -> Option<()> {
    let (at, layers) = match inner(frame, outer)? {
        Inner::Ethernet(at) => (at, parse(frame.get(at..)?)),
        Inner::Ip(at) => (at, parse_ip(frame.get(at..)?)),
    };
    fill(frame.get_mut(at..)?, &layers);
    if outer.protocol == GRE {
        _ = fill_gre(frame, outer);
    }
    fill(frame, outer);
    Some(())
}

/// Writes the checksum of GRE header and payload (RFC 2784), if the header has one. DPDK leaves the old one.
fn fill_gre(frame: &mut [u8], outer: &Layers) -> Option<()> {
    let l4 = outer.l4_start();
    let packet = frame.get_mut(l4..l4 + outer.transport_len as usize)?;
    if packet.first()? & 0x80 == 0 {
        return None;
    }
    packet.get_mut(4..6)?.fill(0);
    let sum = checksum(packet);
    packet.get_mut(4..6)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

fn fill(frame: &mut [u8], layers: &Layers) {
    // Headers that the packet does not have are skipped.
    _ = fill_ipv4(frame, layers);
    let off = layers.packet_type.l4() == PacketType::L4_UDP
        && frame.get(layers.l4_start() + 6..layers.l4_start() + 8).is_none_or(|sum| sum == [0, 0]);
    if !off && matches!(layers.packet_type.l4(), PacketType::L4_TCP | PacketType::L4_UDP) {
        _ = fill_transport(frame, layers);
    }
}
