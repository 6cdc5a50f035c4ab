//! Segmentation offload in software: splits one large TCP or UDP packet into many small ones.
//!
//! A [`Segmenter`] only computes the payload range and the headers of each segment. The caller copies the
//! bytes, so chains need not be linearized:
//!
//! ```text
//! large packet   [ headers | payload ......................................... ]
//! segment i      [ headers'| payload[i × size ..] ]     header(i) · copy payload(i) · finish
//! ```

use std::ops::Range;

use zerocopy::FromBytes;

use crate::ip::{Ipv4, Ipv6};
use crate::offload::{self, NoChecksum};
use crate::packet_type::PacketType;
use crate::parse::Layers;
use crate::transport::{Tcp, Udp, tcp_flags};
use crate::{Header, U16};

/// A segment that does not exist, or no room for its headers.
///
/// ```
/// assert!(linecard_net::gso::NoSegment.to_string().contains("below segments()"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSegment;

impl std::error::Error for NoSegment {}

impl std::fmt::Display for NoSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there is no such segment, or no room for its headers; ask for one below segments(), and give header_len() bytes")
    }
}

/// The segmentation of one large packet.
///
/// ```
/// # use linecard_net::{Header, MacAddr, ether::{Ethernet, ether_type}, ip::{Ipv4, protocol}, transport::Udp};
/// use linecard_net::{gso::Segmenter, parse};
/// # let mut large = vec![7_u8; 42 + 2500];
/// # Ethernet::new(MacAddr::local(2), MacAddr::local(1), ether_type::IPV4).store(&mut large).expect("fits");
/// # Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], protocol::UDP, 2508).store(&mut large[14..]).expect("fits");
/// # Udp::new(5000, 9, 2500).store(&mut large[34..]).expect("fits");
/// let layers = parse(&large);
/// let cut = Segmenter::new(&layers, large.len() - layers.payload_start(), 1000).expect("UDP over IPv4");
/// let mut out = [0_u8; 1500];
/// let lengths: Vec<_> = (0..cut.segments()).map(|i| cut.segment(&large, i, &mut out)).collect();
/// assert_eq!(lengths, [Some(1042), Some(1042), Some(542)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Segmenter {
    layers: Layers,
    payload_len: usize,
    segment_size: usize,
}

impl Segmenter {
    /// Splits `payload_len` bytes behind the headers of `layers` into pieces of `segment_size` (virtio's
    /// `gso_size`, TCP's MSS).
    ///
    /// `None` if the packet is neither TCP nor UDP over IP, is source routed, or a segment would be empty or
    /// larger than an IP packet.
    #[must_use]
    pub fn new(layers: &Layers, payload_len: usize, segment_size: u16) -> Option<Self> {
        let known = matches!(layers.packet_type.l4(), PacketType::L4_TCP | PacketType::L4_UDP);
        let ip_len = usize::from(layers.l3_len) + usize::from(layers.l4_len) + usize::from(segment_size);
        let fits = ip_len <= usize::from(u16::MAX) && segment_size > 0;
        let layers = *layers;
        (known && fits && !layers.source_routed).then_some(Self {
            layers,
            payload_len,
            segment_size: segment_size.into(),
        })
    }

    /// The number of segments; one for an empty payload.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> usize {
        self.payload_len.div_ceil(self.segment_size).max(1)
    }

    /// The length of the headers in front of every segment, in bytes.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.layers.payload_start()
    }

    /// The payload range of segment `index`; empty past the last one.
    #[inline]
    #[must_use]
    pub fn payload(&self, index: usize) -> Range<usize> {
        let start = index.saturating_mul(self.segment_size).min(self.payload_len);
        start..(start + self.segment_size).min(self.payload_len)
    }

    /// Writes the headers of segment `index`, except the transport checksum, to the front of `out`. `headers`
    /// has at least the first [`header_len`](Self::header_len) bytes of the large packet.
    ///
    /// # Errors
    /// Either slice is too short, or the segment does not exist; the content of `out` is undefined then.
    pub fn header(&self, headers: &[u8], index: usize, out: &mut [u8]) -> Result<(), NoSegment> {
        let headers = headers.get(..self.header_len()).ok_or(NoSegment)?;
        let out = out.get_mut(..self.header_len()).ok_or(NoSegment)?;
        out.copy_from_slice(headers);
        let written = index < self.segments()
            && self.network(index, out).is_some()
            && self.transport(index, out).is_some();
        if written { Ok(()) } else { Err(NoSegment) }
    }

    /// Writes the transport checksum of a segment in one piece: headers and payload.
    ///
    /// # Errors
    /// `segment` is shorter than its headers.
    pub fn finish(&self, segment: &mut [u8]) -> Result<(), NoChecksum> {
        let transport_len = segment.len().checked_sub(self.layers.l4_start()).ok_or(NoChecksum)?;
        let layers = Layers { transport_len: transport_len as u32, ..self.layers };
        offload::fill_transport(segment, &layers)
    }

    /// Writes segment `index` of a large packet in one piece to `out` and returns its length; `None` if the
    /// segment does not exist or does not fit.
    pub fn segment(&self, large: &[u8], index: usize, out: &mut [u8]) -> Option<usize> {
        let payload = large.get(self.header_len()..)?.get(self.payload(index))?;
        let out = out.get_mut(..self.header_len() + payload.len())?;
        self.header(large, index, out).ok()?;
        out[self.header_len()..].copy_from_slice(payload);
        self.finish(out).ok().map(|()| out.len())
    }

    /// Lengths, identification and IPv4 checksum.
    fn network(&self, index: usize, out: &mut [u8]) -> Option<()> {
        let behind_l2 = usize::from(self.layers.l3_len) + usize::from(self.layers.l4_len);
        let len = behind_l2 + self.payload(index).len();
        let l3 = out.get_mut(usize::from(self.layers.l2_len)..)?;
        if self.layers.packet_type.is_ipv6() {
            let (ip, _) = Ipv6::view_mut(l3)?;
            ip.payload_length = U16::new(u16::try_from(len - Ipv6::LEN).ok()?);
            return Some(());
        }
        let (ip, _) = Ipv4::mut_from_prefix(l3).ok()?;
        ip.total_length = U16::new(u16::try_from(len).ok()?);
        ip.identification = U16::new(ip.identification.get().wrapping_add(index as u16));
        offload::fill_ipv4(out, &self.layers).ok()
    }

    /// Sequence number and flags of TCP, length of UDP.
    fn transport(&self, index: usize, out: &mut [u8]) -> Option<()> {
        let payload = self.payload(index);
        let l4 = out.get_mut(self.layers.l4_start()..)?;
        if self.layers.packet_type.l4() == PacketType::L4_UDP {
            let (udp, _) = Udp::view_mut(l4)?;
            udp.length = U16::new(u16::try_from(Udp::LEN + payload.len()).ok()?);
            return Some(());
        }
        let (tcp, _) = Tcp::view_mut(l4)?;
        tcp.sequence_number.set(tcp.sequence_number.get().wrapping_add(payload.start as u32));
        if index > 0 {
            // The reduction is announced once (RFC 3168, section 6.1.2).
            tcp.flags &= !tcp_flags::CWR;
        }
        if index + 1 < self.segments() {
            tcp.flags &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
