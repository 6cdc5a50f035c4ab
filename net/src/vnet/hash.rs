//! The hash report of a device, behind the other fields of its header (virtio 1.2, Network Device: Hash
//! reporting for incoming packets).

use crate::packet_type::PacketType;

/// The length of the header with `VIRTIO_NET_F_HASH_REPORT`: the usual fields, a hash, its type, and padding.
pub const HASH_HDR_LEN: u32 = 20;

/// The kinds of packets by `hash_report` (`VIRTIO_NET_HASH_REPORT_…`), starting at 1.
const KINDS: [PacketType; 9] = {
    const V4: u32 = PacketType::L3_IPV4_EXT_UNKNOWN.bits();
    const V6: u32 = PacketType::L3_IPV6_EXT_UNKNOWN.bits();
    const TCP: u32 = PacketType::L4_TCP.bits();
    const UDP: u32 = PacketType::L4_UDP.bits();
    const fn kind(bits: u32) -> PacketType {
        PacketType::from_bits(bits)
    }
    [
        kind(V4),
        kind(V4 | TCP),
        kind(V4 | UDP),
        kind(V6),
        kind(V6 | TCP),
        kind(V6 | UDP),
        kind(V6),
        kind(V6 | TCP),
        kind(V6 | UDP),
    ]
};

/// The last eight bytes of the header.
///
/// ```
/// use linecard_net::PacketType;
/// use linecard_net::vnet::HashReport;
/// let report = HashReport { value: 0x51cc_c178, report: 2 };
/// assert_eq!(HashReport::from_bytes(report.to_bytes()), report);
/// let (hash, kind) = report.hash().expect("TCP over IPv4");
/// assert!(hash == 0x51cc_c178 && kind.is_ipv4() && kind.l4() == PacketType::L4_TCP);
/// assert_eq!(HashReport { report: 0, ..report }.hash(), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashReport {
    /// `hash_value`.
    pub value: u32,
    /// `hash_report`: the type of the hash; 0 for no hash.
    pub report: u16,
}

impl HashReport {
    /// Converts from wire order. Nothing is checked: the peer may have written anything.
    #[must_use]
    #[inline]
    pub const fn from_bytes(b: [u8; 8]) -> Self {
        Self { value: u32::from_le_bytes([b[0], b[1], b[2], b[3]]), report: u16::from_le_bytes([b[4], b[5]]) }
    }

    /// Converts to wire order (little endian), with zero padding.
    #[must_use]
    #[inline]
    pub const fn to_bytes(self) -> [u8; 8] {
        let (v, r) = (self.value.to_le_bytes(), self.report.to_le_bytes());
        [v[0], v[1], v[2], v[3], r[0], r[1], 0, 0]
    }

    /// The hash, and the type of packet that the device hashed; `None` if it hashed nothing, or reports an
    /// unknown type.
    #[must_use]
    #[inline]
    pub fn hash(self) -> Option<(u32, PacketType)> {
        let kind = KINDS.get(usize::from(self.report).checked_sub(1)?)?;
        Some((self.value, *kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_kind_or_none() {
        for report in 0..=u16::MAX {
            let told = HashReport { value: 7, report };
            assert_eq!(told.hash().is_some(), (1..=9).contains(&report), "{report}");
            assert_eq!(HashReport::from_bytes(told.to_bytes()), told);
            let Some((hash, kind)) = told.hash() else { continue };
            assert_eq!((hash, kind.is_ipv4(), kind.is_ipv6()), (7, report < 4, report >= 4), "{report}");
            let l4 =
                [PacketType::UNKNOWN, PacketType::L4_TCP, PacketType::L4_UDP][usize::from(report - 1) % 3];
            assert_eq!(kind.l4(), l4, "{report}");
        }
    }

    #[test]
    fn fields_lie_where_the_spec_puts_them() {
        let bytes = HashReport { value: 0x0403_0201, report: 0x0605 }.to_bytes();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 0, 0]);
    }
}
