//! The header before every packet of a network device (virtio 1.3, Network Device: Device Operation).

/// Bytes of the header with VERSION_1 or mergeable buffers: always 12 here.
pub const HDR_LEN: u32 = 12;
/// Bytes of the header of a legacy device without mergeable buffers: no `num_buffers`.
pub const LEGACY_HDR_LEN: u32 = 10;

/// `flags`: the checksum at `csum_start + csum_offset` is still to be finished.
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

/// The header as values, read from or written to shared memory in one piece.
///
/// ```
/// use linecard_virtio::net::NetHeader;
/// let header = NetHeader { num_buffers: 1, ..NetHeader::default() };
/// let bytes = header.to_bytes();
/// assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
/// assert_eq!(NetHeader::from_bytes(bytes), header);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`], [`RSC_INFO`].
    pub flags: u8,
    /// [`GSO_NONE`] or what to segment, perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Length of the packet's headers in bytes; a hint only.
    pub hdr_len: u16,
    /// Bytes of payload for each segment.
    pub gso_size: u16,
    /// Where summing starts, in bytes from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum goes, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Buffers this packet takes: 1 when buffers are not mergeable.
    pub num_buffers: u16,
}

impl NetHeader {
    /// The header in wire order (little endian).
    #[must_use]
    #[inline]
    pub const fn to_bytes(self) -> [u8; HDR_LEN as usize] {
        let (h, g) = (self.hdr_len.to_le_bytes(), self.gso_size.to_le_bytes());
        let (s, o) = (self.csum_start.to_le_bytes(), self.csum_offset.to_le_bytes());
        let n = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, h[0], h[1], g[0], g[1], s[0], s[1], o[0], o[1], n[0], n[1]]
    }

    /// The header from wire order. Nothing is checked: the peer may have written anything.
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

    /// The header as the two words a copy loop compares and writes: bytes 0–7 and bytes 8–11, in memory order.
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
    use super::NetHeader;

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
