//! Software for checksum offloads: verify, fill, prepare and finish.
//!
//! *Fill* writes a complete checksum. *Prepare* writes only the sum of the pseudo-header, and the sender of
//! the frame *finishes* it: the split of virtio's `NEEDS_CSUM` (virtio 1.3, Network Device: Packet
//! Transmission). All functions work on one contiguous frame; [`sum_from`] supports chains.

use crate::Header;
use crate::checksum::{self, Sum, pseudo_header_v4, pseudo_header_v6};
use crate::ip::{Ipv4, Ipv6, protocol};
use crate::packet_type::PacketType;
use crate::parse::Layers;
use crate::transport::{Icmp, Tcp, Udp};

/// The result of checking a checksum.
///
/// ```
/// use linecard_net::{offload::{Verdict, verify_ipv4}, parse};
/// assert_eq!(verify_ipv4(&[0; 60], &parse(&[0; 60])), Verdict::Absent);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is nothing to check: no such header, no checksum, a fragment, or missing bytes.
    Absent,
    /// The checksum matches the bytes.
    Good,
    /// The checksum does not match the bytes.
    Bad,
}

impl Verdict {
    const fn of(sum: u16) -> Self {
        if sum == 0 { Self::Good } else { Self::Bad }
    }
}

/// The range of the IPv4 header, including options.
fn ipv4_header(layers: &Layers) -> Option<std::ops::Range<usize>> {
    let start = usize::from(layers.l2_len);
    layers.packet_type.is_ipv4().then_some(start..layers.l4_start())
}

/// Checks the IPv4 header checksum of a parsed frame.
#[inline]
#[must_use]
pub fn verify_ipv4(frame: &[u8], layers: &Layers) -> Verdict {
    let header = ipv4_header(layers).and_then(|range| frame.get(range));
    header.map_or(Verdict::Absent, |header| Verdict::of(checksum::checksum(header)))
}

/// The frame has no place for the checksum: it lacks the corresponding headers or some of their bytes.
/// Nothing was written.
///
/// ```
/// use linecard_net::{offload::{NoChecksum, fill_ipv4}, parse};
/// assert_eq!(fill_ipv4(&mut [0; 60], &parse(&[0; 60])), Err(NoChecksum));
/// assert!(NoChecksum.to_string().contains("no such header"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoChecksum;

impl std::error::Error for NoChecksum {}

impl std::fmt::Display for NoChecksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "the frame has no such header, or not all of its bytes; parse it, and give it in one piece",
        )
    }
}

/// Writes the IPv4 header checksum.
///
/// # Errors
/// The frame has no IPv4 header.
#[inline]
pub fn fill_ipv4(frame: &mut [u8], layers: &Layers) -> Result<(), NoChecksum> {
    let header = ipv4_header(layers).and_then(|range| frame.get_mut(range)).ok_or(NoChecksum)?;
    let (ip, _) = Ipv4::view_mut(header).ok_or(NoChecksum)?;
    ip.header_checksum.set(0);
    let sum = checksum::checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// The offset of the transport checksum in the transport header; `None` for a protocol whose checksum this
/// crate does not support.
#[must_use]
pub fn transport_checksum_offset(layers: &Layers) -> Option<usize> {
    match layers.packet_type.l4() {
        PacketType::L4_TCP => Some(Tcp::CHECKSUM_OFFSET),
        PacketType::L4_UDP => Some(Udp::CHECKSUM_OFFSET),
        PacketType::L4_ICMP => Some(Icmp::CHECKSUM_OFFSET),
        _ => None,
    }
}

/// The sum of the pseudo-header that the transport checksum covers; `None` if the frame has no such header or
/// its destination is not in the IP header (IPv6 source routes).
#[inline]
#[must_use]
pub fn pseudo_header(frame: &[u8], layers: &Layers) -> Option<Sum> {
    let l3 = frame.get(usize::from(layers.l2_len)..)?;
    if layers.packet_type.is_ipv4() {
        // ICMP for IPv4 covers the message only (RFC 792).
        if layers.protocol == protocol::ICMP {
            return Some(Sum::ZERO);
        }
        let ip = Ipv4::load(l3)?;
        let len = u16::try_from(layers.transport_len).ok()?;
        return Some(pseudo_header_v4(ip.source, ip.destination, layers.protocol, len));
    }
    if !layers.packet_type.is_ipv6() || layers.source_routed {
        return None;
    }
    let ip = Ipv6::load(l3)?;
    Some(pseudo_header_v6(&ip.source, &ip.destination, layers.protocol, layers.transport_len))
}

/// The range of the bytes that a transport checksum covers, if the frame contains all of them.
fn transport(layers: &Layers, frame_len: usize) -> Option<std::ops::Range<usize>> {
    let start = layers.l4_start();
    let end = start.checked_add(layers.transport_len as usize)?;
    (end <= frame_len && transport_checksum_offset(layers).is_some()).then_some(start..end)
}

/// Checks the TCP, UDP, ICMP or ICMPv6 checksum of a parsed, contiguous frame.
///
/// ```
/// # use linecard_net::{Header, MacAddr, ether::{Ethernet, ether_type}, ip::{Ipv4, protocol}, transport::Udp};
/// use linecard_net::{offload::{Verdict, fill_transport, verify_transport}, parse};
/// # let mut frame = [7_u8; 60];
/// # Ethernet::new(MacAddr::local(2), MacAddr::local(1), ether_type::IPV4).store(&mut frame).expect("fits");
/// # Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], protocol::UDP, 20).store(&mut frame[14..]).expect("fits");
/// # Udp::new(5000, 9, 12).store(&mut frame[34..]).expect("fits");
/// let layers = parse(&frame);
/// assert_eq!(verify_transport(&frame, &layers), Verdict::Absent); // UDP without a checksum
/// fill_transport(&mut frame, &layers)?;
/// assert_eq!(verify_transport(&frame, &layers), Verdict::Good);
/// frame[50] ^= 1;
/// assert_eq!(verify_transport(&frame, &layers), Verdict::Bad);
/// # Ok::<(), linecard_net::offload::NoChecksum>(())
/// ```
#[inline]
#[must_use]
pub fn verify_transport(frame: &[u8], layers: &Layers) -> Verdict {
    let check = || {
        let bytes = frame.get(transport(layers, frame.len())?)?;
        let off = layers.packet_type.l4() == PacketType::L4_UDP && Udp::load(bytes)?.checksum.get() == 0;
        let sum = pseudo_header(frame, layers)?.add_bytes(bytes).checksum();
        (!off).then_some(Verdict::of(sum))
    };
    check().unwrap_or(Verdict::Absent)
}

/// Writes the complete transport checksum of a contiguous frame.
///
/// # Errors
/// The frame has no such checksum, or bytes are missing.
#[inline]
pub fn fill_transport(frame: &mut [u8], layers: &Layers) -> Result<(), NoChecksum> {
    let range = transport(layers, frame.len()).ok_or(NoChecksum)?;
    let pseudo = pseudo_header(frame, layers).ok_or(NoChecksum)?;
    let offset = transport_checksum_offset(layers).ok_or(NoChecksum)?;
    let bytes = &mut frame[range];
    bytes.get_mut(offset..offset + 2).ok_or(NoChecksum)?.fill(0);
    let sum = pseudo.add_bytes(bytes);
    let sum = if layers.protocol == protocol::UDP { sum.checksum_nonzero() } else { sum.checksum() };
    bytes[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Where the receiver of a prepared frame completes its checksum: the two fields of virtio's header.
///
/// ```
/// use linecard_net::offload::Partial;
/// let partial = Partial { csum_start: 34, csum_offset: 6 };
/// assert_eq!(partial.field(), 40..42);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The offset of the checksummed bytes in the frame; they extend to its end.
    pub csum_start: u16,
    /// The offset of the checksum from `csum_start`.
    pub csum_offset: u16,
}

impl Partial {
    /// The location of the TCP or UDP checksum of a parsed frame; `None` for other frames.
    ///
    /// ```
    /// use linecard_net::{offload::Partial, parse};
    /// assert_eq!(Partial::of(&parse(&[0; 60])), None);
    /// ```
    #[must_use]
    pub fn of(layers: &Layers) -> Option<Self> {
        if !matches!(layers.packet_type.l4(), PacketType::L4_TCP | PacketType::L4_UDP) {
            return None;
        }
        let csum_start = u16::try_from(layers.l4_start()).ok()?;
        let csum_offset = u16::try_from(transport_checksum_offset(layers)?).ok()?;
        Some(Self { csum_start, csum_offset })
    }

    /// The range of the checksum field in the frame.
    #[inline]
    #[must_use]
    pub fn field(self) -> std::ops::Range<usize> {
        let start = usize::from(self.csum_start) + usize::from(self.csum_offset);
        start..start + 2
    }
}

/// Writes the pseudo-header's sum to the checksum field and returns how to finish it; `None`, with nothing
/// written, if the frame has no TCP or UDP header. `frame` may be the first part of a chain.
///
/// For a frame to be segmented, the length is part of the sum too (virtio 1.3, Network Device: Packet
/// Transmission); the segmenter replaces it.
#[inline]
pub fn prepare(frame: &mut [u8], layers: &Layers) -> Option<Partial> {
    let partial = Partial::of(layers)?;
    let sum = pseudo_header(frame, layers)?.fold();
    frame.get_mut(partial.field())?.copy_from_slice(&sum.to_be_bytes());
    Some(partial)
}

/// Completes the checksum of a prepared, contiguous frame.
///
/// # Errors
/// The checksum field that `partial` describes is not within the frame.
///
/// ```
/// # use linecard_net::{Header, MacAddr, ether::{Ethernet, ether_type}, ip::{Ipv4, protocol}, transport::Udp};
/// use linecard_net::{offload::{Partial, Verdict, finish, prepare, verify_transport}, parse};
/// # let mut frame = [7_u8; 62];
/// # Ethernet::new(MacAddr::local(2), MacAddr::local(1), ether_type::IPV4).store(&mut frame).expect("fits");
/// # Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], protocol::UDP, 28).store(&mut frame[14..]).expect("fits");
/// # Udp::new(5000, 9, 20).store(&mut frame[34..]).expect("fits");
/// let layers = parse(&frame);
/// let partial = prepare(&mut frame, &layers).expect("a UDP frame");
/// finish(&mut frame, partial)?;
/// assert_eq!(verify_transport(&frame, &layers), Verdict::Good);
/// assert!(finish(&mut frame, Partial { csum_start: 60, csum_offset: 1 }).is_err());
/// # Ok::<(), linecard_net::offload::NoChecksum>(())
/// ```
#[inline]
pub fn finish(frame: &mut [u8], partial: Partial) -> Result<(), NoChecksum> {
    if partial.field().end > frame.len() {
        return Err(NoChecksum);
    }
    let sum = Sum::ZERO.add_bytes(&frame[usize::from(partial.csum_start)..]).checksum_nonzero();
    frame[partial.field()].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// The sum of a packet's bytes from `start` to its end, given its segments in order. This is [`finish`] for a
/// chain: write `sum_from(…).checksum_nonzero()` to [`Partial::field`].
///
/// ```
/// use linecard_net::{checksum::checksum, offload::sum_from};
/// let bytes = *b"cut anywhere";
/// let pieces: [&[u8]; 3] = [&bytes[..1], &bytes[1..6], &bytes[6..]];
/// assert_eq!(sum_from(pieces, 3).checksum(), checksum(&bytes[3..]));
/// ```
#[must_use]
pub fn sum_from<'a>(segments: impl IntoIterator<Item = &'a [u8]>, start: usize) -> Sum {
    let mut skip = start;
    segments.into_iter().fold(Sum::ZERO, |sum, segment| {
        let skipped = skip.min(segment.len());
        skip -= skipped;
        sum.add_bytes(&segment[skipped..])
    })
}

#[cfg(test)]
mod tests;
