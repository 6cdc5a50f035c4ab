//! Offloads of a port: what is asked of it, what its peer takes, and the software that does the rest.
//!
//! ```text
//!   received:  header ── describe ─► metadata (RX_L4_CKSUM_NONE, RX_LRO) ─► application
//!   sent:      application ─► metadata (TX_…, or the RX_… of a packet passed on) ── TxRequest ─► header
//!                                   └─ SoftTx: whatever the peer does not take is done here ─┘
//! ```
//! A packet that was received unfinished may be sent as it is: its checksum is finished by whoever can.

mod metadata;
mod software;

use std::fmt;

pub use linecard_net::request::Takes;
pub use metadata::{Malformed, TxRequest, asks, describe, segmenter};
pub use software::{SoftLoss, SoftTx, do_now, finish_received};

/// Makes a set of offload bits with DPDK's names and values.
macro_rules! set {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $flag:ident = $bit:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name(u64);

        impl $name {
            $($(#[$doc])* pub const $flag: Self = Self(1 << $bit);)*
            /// Nothing.
            pub const NONE: Self = Self(0);
            const NAMES: &[(Self, &str)] = &[$((Self::$flag, stringify!($flag))),*];

            /// The set with DPDK's bits.
            #[must_use]
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// DPDK's bits.
            #[must_use]
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// Both together.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// What is in this set and not in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Whether all of `other` is in this set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any of `other` is in this set.
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether nothing is in it.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The offload of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(flag, _)| *flag)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (mut separator, mut rest) = ("", self.0);
                for (flag, name) in Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)) {
                    write!(f, "{separator}{name}")?;
                    (separator, rest) = (" ", rest & !flag.0);
                }
                if rest == 0 { Ok(()) } else { write!(f, "{separator}{rest:#x}") }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

set! {
    /// Receive offloads of a port, DPDK's `RTE_ETH_RX_OFFLOAD_`.
    ///
    /// ```
    /// use linecard_pmd::offload::RxOffloads;
    /// assert_eq!(RxOffloads::CHECKSUM.to_string(), "UDP_CKSUM TCP_CKSUM");
    /// assert_eq!(RxOffloads::named("tcp_lro"), Some(RxOffloads::TCP_LRO));
    /// ```
    RxOffloads {
        /// VLAN tags are taken out of the data and told.
        VLAN_STRIP = 0;
        /// The state of IPv4 header checksums is told.
        IPV4_CKSUM = 1;
        /// The state of UDP checksums is told; they may come unfinished.
        UDP_CKSUM = 2;
        /// The state of TCP checksums is told; they may come unfinished.
        TCP_CKSUM = 3;
        /// Packets may come large, to be cut by whoever sends them on.
        TCP_LRO = 4;
        /// A packet may take several buffers.
        SCATTER = 13;
    }
}

set! {
    /// Transmit offloads of a port, DPDK's `RTE_ETH_TX_OFFLOAD_`. What the peer does not take is done in software.
    ///
    /// ```
    /// use linecard_pmd::offload::TxOffloads;
    /// let asked = TxOffloads::from_bits(0x2e);
    /// assert!(asked.contains(TxOffloads::TCP_TSO) && !asked.contains(TxOffloads::UDP_TSO));
    /// assert_eq!(asked.to_string(), "IPV4_CKSUM UDP_CKSUM TCP_CKSUM TCP_TSO");
    /// ```
    TxOffloads {
        /// VLAN tags are put into the data.
        VLAN_INSERT = 0;
        /// IPv4 header checksums are filled in.
        IPV4_CKSUM = 1;
        /// UDP checksums are filled in.
        UDP_CKSUM = 2;
        /// TCP checksums are filled in.
        TCP_CKSUM = 3;
        /// Large TCP packets are cut.
        TCP_TSO = 5;
        /// Large UDP packets are cut.
        UDP_TSO = 6;
        /// A packet may lie in several segments; always so here.
        MULTI_SEGS = 15;
        /// All packets of a queue are of one pool and not shared; a hint that is not needed here.
        MBUF_FAST_FREE = 16;
    }
}

impl RxOffloads {
    /// TCP and UDP checksums.
    pub const CHECKSUM: Self = Self::UDP_CKSUM.union(Self::TCP_CKSUM);
    /// All that a virtio port has.
    pub const VIRTIO: Self = Self::CHECKSUM.union(Self::TCP_LRO).union(Self::SCATTER);
}

impl TxOffloads {
    /// TCP and UDP checksums.
    pub const CHECKSUM: Self = Self::UDP_CKSUM.union(Self::TCP_CKSUM);
    /// TCP and UDP segmentation.
    pub const SEGMENT: Self = Self::TCP_TSO.union(Self::UDP_TSO);
    /// All that a virtio port has.
    pub const VIRTIO: Self = Self::CHECKSUM
        .union(Self::IPV4_CKSUM)
        .union(Self::SEGMENT)
        .union(Self::MULTI_SEGS)
        .union(Self::MBUF_FAST_FREE);
    /// Those that need something done to packets.
    pub const WORK: Self = Self::CHECKSUM.union(Self::IPV4_CKSUM).union(Self::SEGMENT);
}

/// What a port is asked to do, or can do, beside moving packets.
///
/// ```
/// use linecard_pmd::offload::{Offloads, RxOffloads};
/// let asked = Offloads { rx: RxOffloads::CHECKSUM, ..Offloads::default() };
/// assert!(asked.tx.is_empty());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// On receive.
    pub rx: RxOffloads,
    /// On transmit.
    pub tx: TxOffloads,
}

impl Offloads {
    /// All that a virtio port has.
    pub const VIRTIO: Self = Self { rx: RxOffloads::VIRTIO, tx: TxOffloads::VIRTIO };
    /// What is true of any port here without work: several segments, packets of any pool.
    pub const FREE: Self =
        Self { rx: RxOffloads::SCATTER, tx: TxOffloads::MULTI_SEGS.union(TxOffloads::MBUF_FAST_FREE) };
}
