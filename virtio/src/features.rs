//! Feature bits that the two ends negotiate.

use core::fmt;

use bitflags::{Flags, bitflags};

bitflags! {
    /// A set of virtio feature bits.
    ///
    /// ```
    /// use linecard_virtio::Features;
    /// let ours = Features::VERSION_1 | Features::NET_MRG_RXBUF | Features::RING_PACKED;
    /// let theirs = Features::VERSION_1 | Features::NET_MRG_RXBUF;
    /// let both = ours & theirs;
    /// assert!(both.contains(Features::NET_MRG_RXBUF) && !both.contains(Features::RING_PACKED));
    /// assert_eq!(both.to_string(), "NET_MRG_RXBUF VERSION_1");
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// The device accepts packets with partial checksums.
        const NET_CSUM = 1 << 0;
        /// The driver accepts packets with partial checksums.
        const NET_GUEST_CSUM = 1 << 1;
        /// The driver can change its offloads at run time.
        const NET_CTRL_GUEST_OFFLOADS = 1 << 2;
        /// The device reports its MTU.
        const NET_MTU = 1 << 3;
        /// The device reports its MAC address.
        const NET_MAC = 1 << 5;
        /// The driver accepts TSOv4.
        const NET_GUEST_TSO4 = 1 << 7;
        /// The driver accepts TSOv6.
        const NET_GUEST_TSO6 = 1 << 8;
        /// The driver accepts TSO with ECN.
        const NET_GUEST_ECN = 1 << 9;
        /// The driver accepts UFO.
        const NET_GUEST_UFO = 1 << 10;
        /// The device accepts TSOv4.
        const NET_HOST_TSO4 = 1 << 11;
        /// The device accepts TSOv6.
        const NET_HOST_TSO6 = 1 << 12;
        /// The device accepts TSO with ECN.
        const NET_HOST_ECN = 1 << 13;
        /// The device accepts UFO.
        const NET_HOST_UFO = 1 << 14;
        /// The driver can receive one packet in several buffers.
        const NET_MRG_RXBUF = 1 << 15;
        /// The configuration has a link status.
        const NET_STATUS = 1 << 16;
        /// There is a control queue.
        const NET_CTRL_VQ = 1 << 17;
        /// The control queue sets receive modes.
        const NET_CTRL_RX = 1 << 18;
        /// The control queue filters VLANs.
        const NET_CTRL_VLAN = 1 << 19;
        /// The control queue sets extra receive modes.
        const NET_CTRL_RX_EXTRA = 1 << 20;
        /// The driver can announce itself.
        const NET_GUEST_ANNOUNCE = 1 << 21;
        /// There are several queue pairs.
        const NET_MQ = 1 << 22;
        /// The control queue sets the MAC address.
        const NET_CTRL_MAC_ADDR = 1 << 23;
        /// The device may notify when the ring runs empty (legacy).
        const NOTIFY_ON_EMPTY = 1 << 24;
        /// vhost: the backend keeps a dirty log.
        const LOG_ALL = 1 << 26;
        /// Descriptors may be split in any way.
        const ANY_LAYOUT = 1 << 27;
        /// Indirect descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// `used_event` and `avail_event`.
        const EVENT_IDX = 1 << 29;
        /// vhost-user: protocol features follow. Never part of the virtio negotiation.
        const PROTOCOL_FEATURES = 1 << 30;
        /// virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// An IOMMU translates addresses.
        const ACCESS_PLATFORM = 1 << 33;
        /// The packed ring layout.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// Real memory barriers are required.
        const ORDER_PLATFORM = 1 << 36;
        /// Single-root I/O virtualisation.
        const SR_IOV = 1 << 37;
        /// Kicks contain the ring position.
        const NOTIFICATION_DATA = 1 << 38;
        /// Each queue can be reset separately.
        const RING_RESET = 1 << 40;
        /// The driver accepts USO.
        const NET_GUEST_USO4 = 1 << 54;
        /// The driver accepts USO over IPv6.
        const NET_GUEST_USO6 = 1 << 55;
        /// The device accepts USO.
        const NET_HOST_USO = 1 << 56;
        /// The device reports a hash for each packet.
        const NET_HASH_REPORT = 1 << 57;
        /// `hdr_len` of the packet header is exact.
        const NET_GUEST_HDRLEN = 1 << 59;
        /// Receive-side scaling.
        const NET_RSS = 1 << 60;
        /// Receive segment coalescing information.
        const NET_RSC_EXT = 1 << 61;
        /// The device may act as a standby.
        const NET_STANDBY = 1 << 62;
        /// The configuration has speed and duplex.
        const NET_SPEED_DUPLEX = 1 << 63;
        /// Unnamed bits are kept: the other side may know them.
        const _ = !0;
    }
}

/// Names of data paths, indexed by layout (split, packed), in-order use, mergeable buffers, and header
/// processing (none, offloads, offloads and hashes).
const PATHS: [[[[&str; 3]; 2]; 2]; 2] = [
    [
        [
            ["split", "split offload", "split offload hash"],
            ["split mergeable", "split mergeable offload", "split mergeable offload hash"],
        ],
        [
            ["split in-order", "split in-order offload", "split in-order offload hash"],
            [
                "split in-order mergeable",
                "split in-order mergeable offload",
                "split in-order mergeable offload hash",
            ],
        ],
    ],
    [
        [
            ["packed", "packed offload", "packed offload hash"],
            ["packed mergeable", "packed mergeable offload", "packed mergeable offload hash"],
        ],
        [
            ["packed in-order", "packed in-order offload", "packed in-order offload hash"],
            [
                "packed in-order mergeable",
                "packed in-order mergeable offload",
                "packed in-order mergeable offload hash",
            ],
        ],
    ],
];

impl Features {
    /// A readable name of a data path with these features. Mergeable buffers and offloads depend on the
    /// direction, so the caller passes them. A path whose header has hashes always processes the whole
    /// header.
    ///
    /// ```
    /// use linecard_virtio::Features;
    /// assert_eq!(Features::RING_PACKED.path_name(true, false), "packed mergeable");
    /// ```
    #[must_use]
    pub const fn path_name(self, mergeable: bool, offload: bool) -> &'static str {
        let [split, packed] = PATHS;
        let layout = if self.contains(Self::RING_PACKED) { packed } else { split };
        let [any, in_order] = layout;
        let [apart, merged] = if self.contains(Self::IN_ORDER) { in_order } else { any };
        let [plain, with_offload, with_hash] = if mergeable { merged } else { apart };
        match (self.contains(Self::NET_HASH_REPORT), offload) {
            (true, _) => with_hash,
            (false, true) => with_offload,
            (false, false) => plain,
        }
    }

    /// Large packets of any kind from the driver to the device.
    pub const HOST_SEGMENTS: Features =
        Self::NET_HOST_TSO4.union(Self::NET_HOST_TSO6).union(Self::NET_HOST_ECN).union(Self::NET_HOST_USO);
    /// Large packets of any kind from the device to the driver.
    pub const GUEST_SEGMENTS: Features = Self::NET_GUEST_TSO4
        .union(Self::NET_GUEST_TSO6)
        .union(Self::NET_GUEST_ECN)
        .union(Self::NET_GUEST_USO4)
        .union(Self::NET_GUEST_USO6);

    /// This set and `other` if `on`, otherwise this set.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { self.union(other) } else { self }
    }

    /// This set without offloads whose required features are missing (virtio 1.3, Network Device: Feature bit
    /// requirements).
    ///
    /// ```
    /// use linecard_virtio::Features;
    /// assert!(Features::NET_HOST_TSO4.without_orphans().is_empty()); // it needs NET_CSUM
    /// ```
    #[must_use]
    pub const fn without_orphans(self) -> Self {
        let mut set = self;
        if !set.contains(Self::NET_CSUM) {
            set = set.difference(Self::HOST_SEGMENTS);
        }
        if !set.contains(Self::NET_GUEST_CSUM) {
            set = set.difference(Self::GUEST_SEGMENTS);
        }
        if !set.intersects(Self::NET_HOST_TSO4.union(Self::NET_HOST_TSO6)) {
            set = set.difference(Self::NET_HOST_ECN);
        }
        if !set.intersects(Self::NET_GUEST_TSO4.union(Self::NET_GUEST_TSO6)) {
            set = set.difference(Self::NET_GUEST_ECN);
        }
        set
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for bit in (0..u64::BITS).filter(|bit| self.bits() & (1 << bit) != 0) {
            match Self::FLAGS.iter().find(|flag| flag.value().bits() == 1 << bit) {
                Some(flag) => write!(f, "{separator}{}", flag.name())?,
                None => write!(f, "{separator}bit{bit}")?,
            }
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Features;

    #[test]
    fn unknown_bits_are_shown_by_number() {
        assert_eq!((Features::IN_ORDER | Features::from_bits_retain(1 << 50)).to_string(), "IN_ORDER bit50");
        assert_eq!(Features::empty().to_string(), "");
    }

    #[test]
    fn set_operations() {
        let set = Features::NET_CSUM.with(Features::NET_MQ, true).with(Features::NET_MTU, false);
        assert_eq!(set, Features::NET_CSUM | Features::NET_MQ);
        assert_eq!(set - Features::NET_MQ, Features::NET_CSUM);
        assert!(set.intersects(Features::NET_MQ | Features::NET_MTU));
        assert!(!set.contains(Features::NET_MQ | Features::NET_MTU));
        assert!((set - set).is_empty());
    }
}
