//! Feature bits that the two ends negotiate.

use core::fmt;
use core::ops::{BitAnd, BitOr, Sub};

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
pub struct Features(u64);

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Features {
            $($(#[$doc])* pub const $name: Features = Features(1 << $bit);)*
        }
        /// Names by bit, ascending.
        const NAMES: &[(u32, &str)] = &[$(($bit, stringify!($name))),*];
    };
}

bits! {
    /// The device takes packets with partial checksums.
    NET_CSUM = 0;
    /// The driver takes packets with partial checksums.
    NET_GUEST_CSUM = 1;
    /// The driver can be told to change offloads at run time.
    NET_CTRL_GUEST_OFFLOADS = 2;
    /// The device says which MTU to use.
    NET_MTU = 3;
    /// The device says which MAC address to use.
    NET_MAC = 5;
    /// The driver takes TSOv4.
    NET_GUEST_TSO4 = 7;
    /// The driver takes TSOv6.
    NET_GUEST_TSO6 = 8;
    /// The driver takes TSO with ECN.
    NET_GUEST_ECN = 9;
    /// The driver takes UFO.
    NET_GUEST_UFO = 10;
    /// The device takes TSOv4.
    NET_HOST_TSO4 = 11;
    /// The device takes TSOv6.
    NET_HOST_TSO6 = 12;
    /// The device takes TSO with ECN.
    NET_HOST_ECN = 13;
    /// The device takes UFO.
    NET_HOST_UFO = 14;
    /// The driver can take one packet in several receive buffers.
    NET_MRG_RXBUF = 15;
    /// The configuration has a link status.
    NET_STATUS = 16;
    /// There is a control queue.
    NET_CTRL_VQ = 17;
    /// The control queue sets receive modes.
    NET_CTRL_RX = 18;
    /// The control queue filters VLANs.
    NET_CTRL_VLAN = 19;
    /// The control queue sets extra receive modes.
    NET_CTRL_RX_EXTRA = 20;
    /// The driver can announce itself.
    NET_GUEST_ANNOUNCE = 21;
    /// Several queue pairs.
    NET_MQ = 22;
    /// The control queue sets the MAC address.
    NET_CTRL_MAC_ADDR = 23;
    /// The ring may ask for a notification when it runs empty (legacy).
    NOTIFY_ON_EMPTY = 24;
    /// vhost: the backend keeps a dirty log.
    LOG_ALL = 26;
    /// Descriptors may be split in any way.
    ANY_LAYOUT = 27;
    /// Indirect descriptors.
    INDIRECT_DESC = 28;
    /// `used_event` and `avail_event`.
    EVENT_IDX = 29;
    /// vhost-user: protocol features follow. Never part of the virtio negotiation.
    PROTOCOL_FEATURES = 30;
    /// virtio 1.0 or later.
    VERSION_1 = 32;
    /// Addresses go through an IOMMU.
    ACCESS_PLATFORM = 33;
    /// The packed ring layout.
    RING_PACKED = 34;
    /// Buffers are used in the order in which they were made available.
    IN_ORDER = 35;
    /// Real memory barriers are needed.
    ORDER_PLATFORM = 36;
    /// Single-root I/O virtualisation.
    SR_IOV = 37;
    /// Kicks carry the position.
    NOTIFICATION_DATA = 38;
    /// One queue can be reset alone.
    RING_RESET = 40;
    /// The driver takes USO.
    NET_GUEST_USO4 = 54;
    /// The driver takes USO over IPv6.
    NET_GUEST_USO6 = 55;
    /// The device takes USO.
    NET_HOST_USO = 56;
    /// The device reports a hash for each packet.
    NET_HASH_REPORT = 57;
    /// `hdr_len` of the packet header is exact.
    NET_GUEST_HDRLEN = 59;
    /// Receive-side scaling.
    NET_RSS = 60;
    /// Receive segment coalescing information.
    NET_RSC_EXT = 61;
    /// The device may act as standby.
    NET_STANDBY = 62;
    /// The configuration has speed and duplex.
    NET_SPEED_DUPLEX = 63;
}

impl Features {
    /// No feature.
    pub const NONE: Features = Features(0);
    /// Large packets from the driver to the device, of any kind.
    pub const HOST_SEGMENTS: Features =
        Self::NET_HOST_TSO4.union(Self::NET_HOST_TSO6).union(Self::NET_HOST_ECN).union(Self::NET_HOST_USO);
    /// Large packets from the device to the driver, of any kind.
    pub const GUEST_SEGMENTS: Features = Self::NET_GUEST_TSO4
        .union(Self::NET_GUEST_TSO6)
        .union(Self::NET_GUEST_ECN)
        .union(Self::NET_GUEST_USO4)
        .union(Self::NET_GUEST_USO6);

    /// The set with exactly the given bits, known or not.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits, as they go over the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Are all of `other` in this set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any of `other` in this set?
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together; usable in constants.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set with `other` when `on`, unchanged otherwise.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// This set without offloads whose requirements are not in it (virtio 1.3, Network Device: Feature bit
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
            set = set.without(Self::HOST_SEGMENTS);
        }
        if !set.contains(Self::NET_GUEST_CSUM) {
            set = set.without(Self::GUEST_SEGMENTS);
        }
        if !set.intersects(Self::NET_HOST_TSO4.union(Self::NET_HOST_TSO6)) {
            set = set.without(Self::NET_HOST_ECN);
        }
        if !set.intersects(Self::NET_GUEST_TSO4.union(Self::NET_GUEST_TSO6)) {
            set = set.without(Self::NET_GUEST_ECN);
        }
        set
    }

    /// True for no feature at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Features {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitAnd for Features {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Features {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.without(other)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            match NAMES.iter().find(|(b, _)| *b == bit) {
                Some((_, name)) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}bit{bit}")?,
            }
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Features, NAMES};

    #[test]
    fn names_are_ascending_and_unique() {
        assert!(NAMES.windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn unknown_bits_are_shown_by_number() {
        assert_eq!((Features::IN_ORDER | Features::from_bits(1 << 50)).to_string(), "IN_ORDER bit50");
        assert_eq!(Features::NONE.to_string(), "");
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
