//! The offload metadata of a packet, besides its [type](crate::PacketType): the results of the receiver, and
//! the requests to the sender. The names are DPDK's (`rte_mbuf_core.h`).

use std::fmt;

use bitflags::{Flags, bitflags};

bitflags! {
    /// Offload flags of a packet. `RX_` flags are results of the receiver, `TX_` flags are requests to the
    /// sender.
    ///
    /// ```
    /// use linecard_net::Offload;
    ///
    /// let asked = Offload::TX_IPV4 | Offload::TX_IP_CKSUM | Offload::TX_TCP_CKSUM;
    /// assert!(asked.contains(Offload::TX_IP_CKSUM));
    /// assert_eq!(asked & Offload::TX_L4_MASK, Offload::TX_TCP_CKSUM);
    /// assert_eq!(asked.to_string(), "TX_TCP_CKSUM TX_IP_CKSUM TX_IPV4");
    /// ```
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct Offload: u32 {
        /// The VLAN tag is valid.
        const RX_VLAN = 1 << 0;
        /// The VLAN tag was removed from the data.
        const RX_VLAN_STRIPPED = 1 << 1;
        /// The hash is valid.
        const RX_RSS_HASH = 1 << 2;
        /// The IP header checksum is right.
        const RX_IP_CKSUM_GOOD = 1 << 3;
        /// The IP header checksum is wrong.
        const RX_IP_CKSUM_BAD = 1 << 4;
        /// The layer-4 checksum is right.
        const RX_L4_CKSUM_GOOD = 1 << 5;
        /// The layer-4 checksum is wrong.
        const RX_L4_CKSUM_BAD = 1 << 6;
        /// The data is intact, but its layer-4 checksum is not filled in (a local peer sent it).
        const RX_L4_CKSUM_NONE = (1 << 5) | (1 << 6);
        /// Several received packets were merged; [`TxOffload::tso_segsz`] is the payload size of each.
        const RX_LRO = 1 << 7;
        /// A flow rule matched, and its mark replaces the hash.
        const RX_FDIR_ID = 1 << 8;
        /// Insert the VLAN tag.
        const TX_VLAN = 1 << 16;
        /// Compute the TCP checksum.
        const TX_TCP_CKSUM = 1 << 17;
        /// Compute the SCTP checksum.
        const TX_SCTP_CKSUM = 2 << 17;
        /// Compute the UDP checksum.
        const TX_UDP_CKSUM = 3 << 17;
        /// Compute the IPv4 header checksum.
        const TX_IP_CKSUM = 1 << 19;
        /// The packet is IPv4.
        const TX_IPV4 = 1 << 20;
        /// The packet is IPv6.
        const TX_IPV6 = 1 << 21;
        /// Segment the TCP payload.
        const TX_TCP_SEG = 1 << 22;
        /// Segment the UDP payload.
        const TX_UDP_SEG = 1 << 23;
        /// Compute the outer IPv4 header checksum.
        const TX_OUTER_IP_CKSUM = 1 << 24;
        /// The outer packet is IPv4.
        const TX_OUTER_IPV4 = 1 << 25;
        /// The outer packet is IPv6.
        const TX_OUTER_IPV6 = 1 << 26;
        /// Bits without a name are kept unchanged.
        const _ = !0;
    }
}

impl Offload {
    /// The two bits for the received IP checksum; neither is set if it was not checked.
    pub const RX_IP_CKSUM_MASK: Self = Self::from_bits_retain(3 << 3);
    /// The two bits for the received layer-4 checksum; neither is set if it was not checked.
    pub const RX_L4_CKSUM_MASK: Self = Self::from_bits_retain(3 << 5);
    /// The two bits that request a layer-4 checksum.
    pub const TX_L4_MASK: Self = Self::from_bits_retain(3 << 17);
    /// All bits that request something that [`TxOffload`] describes.
    pub const TX_OFFLOAD_MASK: Self = Self::from_bits_retain(0xffff << 16);

    /// The bits that `flag` is a value of: its two-bit field, or itself.
    const fn field(self) -> Self {
        let fields = [Self::RX_IP_CKSUM_MASK, Self::RX_L4_CKSUM_MASK, Self::TX_L4_MASK];
        let mut i = 0;
        while i < fields.len() {
            if fields[i].contains(self) {
                return fields[i];
            }
            i += 1;
        }
        self
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = Self::FLAGS
            .iter()
            .filter(|flag| !flag.name().is_empty() && *self & flag.value().field() == *flag.value());
        let Some(first) = set.next() else { return f.write_str("none") };
        f.write_str(first.name())?;
        set.try_for_each(|flag| write!(f, " {}", flag.name()))
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offload({self})")
    }
}

/// Header lengths for transmit offloads, packed as DPDK's `tx_offload`: l2 7, l3 9, l4 8, segment size 16,
/// outer l3 9, outer l2 7 bits. Larger values are truncated to their field.
///
/// ```
/// use linecard_net::TxOffload;
///
/// let tso = TxOffload::new(14, 20, 20).with_tso_segsz(1448);
/// assert_eq!((tso.l2_len(), tso.l3_len(), tso.l4_len(), tso.tso_segsz()), (14, 20, 20, 1448));
/// assert_eq!(tso.bits(), 14 | 20 << 7 | 20 << 16 | 1448 << 24);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct TxOffload(u64);

impl TxOffload {
    const fn at(value: u64, shift: u32, bits: u32) -> u64 {
        (value & ((1 << bits) - 1)) << shift
    }

    const fn of(self, shift: u32, bits: u32) -> u16 {
        (self.0 >> shift & ((1 << bits) - 1)) as u16
    }

    const fn with(self, value: u16, shift: u32, bits: u32) -> Self {
        Self(self.0 & !Self::at(u64::MAX, shift, bits) | Self::at(value as u64, shift, bits))
    }

    /// Lengths of the link, network and transport headers, in bytes.
    #[must_use]
    pub const fn new(l2_len: u16, l3_len: u16, l4_len: u16) -> Self {
        Self(0).with(l2_len, 0, 7).with(l3_len, 7, 9).with(l4_len, 16, 8)
    }

    /// Sets the number of payload bytes per segment.
    #[must_use]
    pub const fn with_tso_segsz(self, bytes: u16) -> Self {
        self.with(bytes, 24, 16)
    }

    /// Sets the lengths of the outer headers, in bytes.
    #[must_use]
    pub const fn with_outer(self, l2_len: u16, l3_len: u16) -> Self {
        self.with(l3_len, 40, 9).with(l2_len, 49, 7)
    }

    /// The length of the link header in bytes.
    #[must_use]
    pub const fn l2_len(self) -> u16 {
        self.of(0, 7)
    }

    /// The length of the network header in bytes.
    #[must_use]
    pub const fn l3_len(self) -> u16 {
        self.of(7, 9)
    }

    /// The length of the transport header in bytes.
    #[must_use]
    pub const fn l4_len(self) -> u16 {
        self.of(16, 8)
    }

    /// The number of payload bytes per segment.
    #[must_use]
    pub const fn tso_segsz(self) -> u16 {
        self.of(24, 16)
    }

    /// The length of the outer network header in bytes.
    #[must_use]
    pub const fn outer_l3_len(self) -> u16 {
        self.of(40, 9)
    }

    /// The length of the outer link header in bytes.
    #[must_use]
    pub const fn outer_l2_len(self) -> u16 {
        self.of(49, 7)
    }

    /// The value stored in a packet's metadata (`tx_offload`).
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Converts a value from [`TxOffload::bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}
