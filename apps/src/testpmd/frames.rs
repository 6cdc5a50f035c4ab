//! The bytes of generated and rewritten packets. Every function works on one frame and accepts any bytes: a
//! frame that is too short or of another kind is left unchanged.

use linecard::net::checksum::checksum;
use linecard::net::{MacAddr, echo};

use super::settings::Mac;

const ETHER_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const DEFAULT_TTL: u8 = 64;

/// Source and destination of the packets of txonly: `--tx-ip`, `--tx-udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TxAddresses {
    pub(crate) ip: ([u8; 4], [u8; 4]),
    pub(crate) udp: (u16, u16),
}

impl Default for TxAddresses {
    /// Addresses of the benchmarking range (RFC 2544), the discard port.
    fn default() -> Self {
        Self { ip: ([198, 18, 0, 1], [198, 18, 0, 2]), udp: (9, 9) }
    }
}

/// Addresses and ports of a generated UDP frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UdpFlow {
    pub(crate) dst_mac: Mac,
    pub(crate) src_mac: Mac,
    pub(crate) src_ip: [u8; 4],
    pub(crate) dst_ip: [u8; 4],
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
}

impl UdpFlow {
    /// The flow that DPDK's txonly sends by default.
    #[cfg(test)]
    pub(crate) fn txonly(src_mac: Mac, dst_mac: Mac) -> Self {
        Self::of(TxAddresses::default(), src_mac, dst_mac)
    }

    /// A flow between these addresses.
    pub(crate) fn of(addresses: TxAddresses, src_mac: Mac, dst_mac: Mac) -> Self {
        let TxAddresses { ip: (src_ip, dst_ip), udp: (src_port, dst_port) } = addresses;
        Self { dst_mac, src_mac, src_ip, dst_ip, src_port, dst_port }
    }

    /// Flow `index` of DPDK's flowgen.
    pub(crate) fn flowgen(index: u32) -> Self {
        let first = u32::from_be_bytes([10, 253, 0, 0]);
        Self {
            dst_mac: Mac([0, 1, 2, 3, 4, 1]),
            src_mac: Mac([0, 1, 2, 3, 4, 0]),
            src_ip: [10, 254, 0, 0],
            dst_ip: first.wrapping_add(index).to_be_bytes(),
            src_port: 1000,
            dst_port: 1001,
        }
    }

    /// Returns the frame, `len` bytes long but at least as long as its headers; the payload is zero.
    pub(crate) fn frame(&self, len: usize) -> Vec<u8> {
        let len = len.clamp(ETHER_LEN + IPV4_LEN + UDP_LEN, usize::from(u16::MAX));
        let ip_len = u16::try_from(len - ETHER_LEN).unwrap_or(u16::MAX);
        let udp_len = ip_len - IPV4_LEN as u16;
        let mut ip = Vec::with_capacity(IPV4_LEN);
        ip.extend_from_slice(&[0x45, 0]);
        ip.extend_from_slice(&ip_len.to_be_bytes());
        ip.extend_from_slice(&[0, 0, 0, 0, DEFAULT_TTL, PROTO_UDP, 0, 0]);
        ip.extend_from_slice(&self.src_ip);
        ip.extend_from_slice(&self.dst_ip);
        let sum = checksum(&ip);
        put(&mut ip, 10, sum);

        let mut frame = Vec::with_capacity(len);
        frame.extend_from_slice(&self.dst_mac.0);
        frame.extend_from_slice(&self.src_mac.0);
        frame.extend_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        frame.extend_from_slice(&ip);
        // A zero checksum means "none" (RFC 768).
        for field in [self.src_port, self.dst_port, udp_len, 0] {
            frame.extend_from_slice(&field.to_be_bytes());
        }
        frame.resize(len, 0);
        frame
    }
}

/// Changes a frame of any flowgen flow into one of flow `index`.
#[inline]
pub(crate) fn set_flow(frame: &mut [u8], index: u32) {
    set_address(frame, 16, UdpFlow::flowgen(index).dst_ip);
}

/// Sets the source address of a frame with an IPv4 header.
#[inline]
pub(crate) fn set_source(frame: &mut [u8], source: [u8; 4]) {
    set_address(frame, 12, source);
}

#[inline]
fn set_address(frame: &mut [u8], at: usize, address: [u8; 4]) {
    let Some(header) = frame.get_mut(ETHER_LEN..ETHER_LEN + IPV4_LEN) else { return };
    header[at..at + 4].copy_from_slice(&address);
    put(header, 10, 0);
    let sum = checksum(header);
    put(header, 10, sum);
}

fn get(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Exchanges `len` bytes at `at` with the `len` bytes after them.
fn swap(bytes: &mut [u8], at: usize, len: usize) {
    if let Some(both) = bytes.get_mut(at..at + 2 * len) {
        let (first, second) = both.split_at_mut(len);
        first.swap_with_slice(second);
    }
}

/// Writes destination and source addresses.
#[inline]
pub(crate) fn set_macs(frame: &mut [u8], dst: Mac, src: Mac) {
    if let Some(addresses) = frame.first_chunk_mut::<12>() {
        addresses[..6].copy_from_slice(&dst.0);
        addresses[6..].copy_from_slice(&src.0);
    }
}

/// Exchanges destination and source addresses.
#[inline]
pub(crate) fn swap_macs(frame: &mut [u8]) {
    if let Some(addresses) = frame.first_chunk_mut::<12>() {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *addresses;
        *addresses = [g, h, i, j, k, l, a, b, c, d, e, f];
    }
}

/// Returns the EtherType after any VLAN tags, and the offset of layer 3.
fn layer3(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = ETHER_LEN;
    let mut kind = get(frame, at - 2)?;
    while kind == ETHERTYPE_VLAN || kind == ETHERTYPE_QINQ {
        at += 4;
        kind = get(frame, at - 2)?;
    }
    Some((kind, at))
}

/// Exchanges source and destination of layers 2, 3 and 4 as far as the frame has them.
///
/// Checksums stay valid: in the sum, source and destination have equal weight.
pub(crate) fn swap_five_tuple(frame: &mut [u8]) {
    swap_macs(frame);
    let Some((kind, l3)) = layer3(frame) else { return };
    let (protocol, l4) = match kind {
        ETHERTYPE_IPV4 => {
            let Some(header_len) = frame.get(l3).map(|byte| usize::from(byte & 0xf) * 4) else { return };
            // Malformed: what would be layer 4 lies in the header.
            if header_len < IPV4_LEN {
                return;
            }
            swap(frame, l3 + 12, 4);
            // Only the first fragment has ports; in the others payload follows the header.
            if get(frame, l3 + 6).is_none_or(|field| field & 0x1fff != 0) {
                return;
            }
            (frame.get(l3 + 9).copied(), l3 + header_len)
        }
        ETHERTYPE_IPV6 => {
            swap(frame, l3 + 8, 16);
            (frame.get(l3 + 6).copied(), l3 + 40)
        }
        _ => return,
    };
    if matches!(protocol, Some(PROTO_UDP | PROTO_TCP)) {
        swap(frame, l4, 2);
    }
}

/// Turns an ARP request or an ICMP echo request into its reply; false for any other frame.
pub(crate) fn answer(frame: &mut [u8], own: Mac) -> bool {
    echo::answer_arp(frame, MacAddr(own.0)) || echo::answer_icmp(frame)
}

#[cfg(test)]
mod tests;
