//! The header before every packet of a virtio network device (virtio 1.3, Network Device: Device Operation), which
//! the kernel's tap and packet sockets use too (`linux/virtio_net.h`).

mod hash;

pub use hash::{HASH_HDR_LEN, HashReport};

use crate::offload::Partial;
use crate::request::{Gso, GsoKind, Request};

/// The length of the header with VERSION_1 or mergeable buffers: 12 bytes, unless hashes are reported
/// ([`HASH_HDR_LEN`]).
pub const HDR_LEN: u32 = 12;
/// The length of the header of a legacy device without mergeable buffers, in bytes: there is no
/// `num_buffers`.
pub const LEGACY_HDR_LEN: u32 = 10;

/// `flags`: the checksum at `csum_start + csum_offset` must still be completed.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum was found correct. Only from device to driver.
pub const DATA_VALID: u8 = 2;
/// `flags`: receive segment coalescing information is present. Only from device to driver.
pub const RSC_INFO: u8 = 4;

/// `gso_type`: not segmented.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: UDP fragmentation.
pub const GSO_UDP: u8 = 3;
/// `gso_type`: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP segmentation.
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type`, or-ed: the TCP stream uses ECN.
pub const GSO_ECN: u8 = 0x80;

/// The header as values, read from or written to shared memory as a whole.
///
/// ```
/// use linecard_net::vnet::NetHeader;
/// let header = NetHeader { num_buffers: 1, ..NetHeader::default() };
/// let bytes = header.to_bytes();
/// assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
/// assert_eq!(NetHeader::from_bytes(bytes), header);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`], [`RSC_INFO`].
    pub flags: u8,
    /// [`GSO_NONE`] or the kind of segmentation, possibly with [`GSO_ECN`].
    pub gso_type: u8,
    /// Length of the packet's headers in bytes; a hint only.
    pub hdr_len: u16,
    /// The number of payload bytes in each segment.
    pub gso_size: u16,
    /// The offset of the checksummed bytes from the start of the packet.
    pub csum_start: u16,
    /// The offset of the checksum from `csum_start`.
    pub csum_offset: u16,
    /// The number of buffers of this packet: 1 if buffers are not mergeable.
    pub num_buffers: u16,
}

impl NetHeader {
    /// Converts the header to wire order (little endian).
    #[must_use]
    #[inline]
    pub const fn to_bytes(self) -> [u8; HDR_LEN as usize] {
        let (h, g) = (self.hdr_len.to_le_bytes(), self.gso_size.to_le_bytes());
        let (s, o) = (self.csum_start.to_le_bytes(), self.csum_offset.to_le_bytes());
        let n = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, h[0], h[1], g[0], g[1], s[0], s[1], o[0], o[1], n[0], n[1]]
    }

    /// Converts the header from wire order. Nothing is checked: the peer may have written anything.
    #[must_use]
    #[inline]
    pub const fn from_bytes(b: [u8; HDR_LEN as usize]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
            num_buffers: u16::from_le_bytes([b[10], b[11]]),
        }
    }

    /// Whether the header requests nothing; it may give a number of buffers.
    #[must_use]
    #[inline]
    pub const fn is_plain(self) -> bool {
        self.flags == 0 && self.gso_type == GSO_NONE
    }

    /// The work that the header requests from the receiver of a packet of `len` bytes; `None` if it does not
    /// fit such a packet.
    ///
    /// Everything is checked: the checksum must be in the packet, segments must not be empty, and a packet to
    /// be segmented must have a checksum to complete. `hdr_len` is passed on as a hint only.
    ///
    /// ```
    /// use linecard_net::vnet::{NEEDS_CSUM, NetHeader};
    /// let header = NetHeader { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..NetHeader::default() };
    /// assert_eq!(header.request(60).and_then(|request| request.partial).map(|p| p.field()), Some(40..42));
    /// assert_eq!(header.request(41), None);
    /// ```
    #[must_use]
    pub fn request(self, len: usize) -> Option<Request> {
        let needs_csum = self.flags & NEEDS_CSUM != 0;
        let partial = Partial { csum_start: self.csum_start, csum_offset: self.csum_offset };
        let partial = needs_csum.then_some(partial);
        if partial.is_some_and(|partial| partial.field().end > len) {
            return None;
        }
        let ecn = self.gso_type & GSO_ECN != 0;
        let kind = match self.gso_type & !GSO_ECN {
            GSO_NONE if ecn => return None,
            GSO_NONE => None,
            GSO_TCPV4 => Some(GsoKind::TcpV4),
            GSO_TCPV6 => Some(GsoKind::TcpV6),
            GSO_UDP_L4 if !ecn => Some(GsoKind::Udp),
            _ => return None,
        };
        if kind.is_some() && (self.gso_size == 0 || !needs_csum) {
            return None;
        }
        let gso = kind.map(|kind| Gso { kind, ecn, size: self.gso_size });
        let data_valid = !needs_csum && self.flags & DATA_VALID != 0;
        Some(Request { partial, gso, header_len: self.hdr_len, data_valid })
    }

    /// The header that requests `request`, for one buffer. Never sets [`DATA_VALID`]: a driver must not, and
    /// a device that only passes packets on does not know.
    ///
    /// ```
    /// use linecard_net::request::Request;
    /// use linecard_net::vnet::NetHeader;
    /// assert!(NetHeader::asking(Request::default()).is_plain());
    /// ```
    #[must_use]
    pub fn asking(request: Request) -> Self {
        let mut header = Self { num_buffers: 1, ..Self::default() };
        if let Some(Partial { csum_start, csum_offset }) = request.partial {
            header = Self { flags: NEEDS_CSUM, csum_start, csum_offset, ..header };
        }
        if let Some(Gso { kind, ecn, size }) = request.gso {
            let kind = match kind {
                GsoKind::TcpV4 => GSO_TCPV4,
                GsoKind::TcpV6 => GSO_TCPV6,
                GsoKind::Udp => GSO_UDP_L4,
            };
            header.gso_type = if ecn { kind | GSO_ECN } else { kind };
            header.gso_size = size;
            header.hdr_len = request.header_len;
        }
        header
    }

    /// The header as the two words that a copy loop compares and writes: bytes 0–7 and bytes 8–11, in memory
    /// order.
    #[must_use]
    #[inline]
    pub const fn to_words(self) -> (u64, u32) {
        let b = self.to_bytes();
        (
            u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        for kind in [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::Udp] {
            for ecn in [false, kind != GsoKind::Udp] {
                let request = Request {
                    partial: Some(Partial { csum_start: 34, csum_offset: 16 }),
                    gso: Some(Gso { kind, ecn, size: 1448 }),
                    header_len: 54,
                    data_valid: false,
                };
                let header = NetHeader::from_bytes(NetHeader::asking(request).to_bytes());
                assert_eq!(header.request(52), Some(request));
                assert_eq!(header.request(51), None);
            }
        }
    }

    #[test]
    fn impossible_headers_ask_nothing() {
        let csum = NetHeader { flags: NEEDS_CSUM, csum_start: 14, csum_offset: 6, ..NetHeader::default() };
        let gso = |gso_type, gso_size| NetHeader { gso_type, gso_size, ..csum };
        for gso_type in 0..=u8::MAX {
            let known = matches!(gso_type, 0 | 1 | 4 | 5 | 0x81 | 0x84);
            assert_eq!(gso(gso_type, 1).request(100).is_some(), known, "{gso_type:#x}");
            assert_eq!(gso(gso_type, 0).request(100).is_some(), gso_type == 0, "{gso_type:#x}");
            let unsummed = NetHeader { flags: 0, ..gso(gso_type, 1) };
            assert_eq!(unsummed.request(100).is_some(), gso_type == 0, "{gso_type:#x}");
        }
    }

    #[test]
    fn every_checksum_place_is_checked_against_the_length() {
        for len in [0_usize, 1, 2, 14, 60, 65_535] {
            for other in [0, 1, 6, 16, 65_534, 65_535] {
                for swept in 0..=u16::MAX {
                    for (csum_start, csum_offset) in [(swept, other), (other, swept)] {
                        let header =
                            NetHeader { flags: NEEDS_CSUM, csum_start, csum_offset, ..NetHeader::default() };
                        let inside = usize::from(csum_start) + usize::from(csum_offset) + 2 <= len;
                        assert_eq!(header.request(len).is_some(), inside);
                    }
                }
            }
        }
    }

    #[test]
    fn fields_lie_where_the_spec_puts_them() {
        let header = NetHeader {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 0x0302,
            gso_size: 0x0504,
            csum_start: 0x0706,
            csum_offset: 0x0908,
            num_buffers: 0x0b0a,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [1, 0x81, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(NetHeader::from_bytes(bytes), header);
        let (low, high) = header.to_words();
        assert_eq!([&low.to_ne_bytes()[..], &high.to_ne_bytes()[..]].concat(), bytes);
    }
}
