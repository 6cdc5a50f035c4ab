//! Offloads of a port: those requested, those that the peer accepts, and the software for the others.
//!
//! ```text
//!   received:  header ── describe ─► metadata (RX_L4_CKSUM_NONE, RX_LRO) ─► application
//!   sent:      application ─► metadata (TX_…, or the RX_… of a packet passed on) ── TxRequest ─► header
//!                                   └─ SoftTx: whatever the peer does not take is done here ─┘
//! ```
//! A packet that was received with a partial checksum may be sent unchanged: its checksum is completed later.

mod metadata;
mod software;

use std::fmt;

use bitflags::bitflags;

pub use linecard_net::request::AcceptedOffloads;
pub use metadata::{Malformed, TxRequest, asks, describe, segmenter};
pub use software::{SoftLoss, SoftTx, do_now, finish_received};

/// Parsing and display of the sets of offloads.
macro_rules! names {
    ($($name:ident)*) => {$(
        impl $name {
            /// The offload of this name, in upper or lower case.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::from_name(&name.to_ascii_uppercase())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                let mut names = self.iter_names();
                for (name, _) in names.by_ref() {
                    write!(f, "{separator}{name}")?;
                    separator = " ";
                }
                let rest = names.remaining();
                if rest.is_empty() { Ok(()) } else { write!(f, "{separator}{:#x}", rest.bits()) }
            }
        }
    )*};
}

names! { RxOffloads TxOffloads }

bitflags! {
    /// Receive offloads of a port, DPDK's `RTE_ETH_RX_OFFLOAD_`.
    ///
    /// ```
    /// use linecard_pmd::offload::RxOffloads;
    /// assert_eq!(RxOffloads::CHECKSUM.to_string(), "UDP_CKSUM TCP_CKSUM");
    /// assert_eq!(RxOffloads::named("tcp_lro"), Some(RxOffloads::TCP_LRO));
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RxOffloads: u64 {
        /// VLAN tags are removed from the data and reported in the metadata.
        const VLAN_STRIP = 1 << 0;
        /// The state of IPv4 header checksums is reported.
        const IPV4_CKSUM = 1 << 1;
        /// The state of UDP checksums is reported; they may be partial.
        const UDP_CKSUM = 1 << 2;
        /// The state of TCP checksums is reported; they may be partial.
        const TCP_CKSUM = 1 << 3;
        /// Packets may be larger than the MTU, to be segmented when they are sent on.
        const TCP_LRO = 1 << 4;
        /// A packet may take several buffers.
        const SCATTER = 1 << 13;
        /// The hash of each flow is reported ([`rss`](crate::rss)).
        const RSS_HASH = 1 << 19;
        /// DPDK's bits without a name here are kept, so that they can be displayed and refused.
        const _ = !0;
    }
}

bitflags! {
    /// Transmit offloads of a port, DPDK's `RTE_ETH_TX_OFFLOAD_`. Software does those that the peer does not
    /// accept.
    ///
    /// ```
    /// use linecard_pmd::offload::TxOffloads;
    /// let asked = TxOffloads::from_bits_retain(0x2e);
    /// assert!(asked.contains(TxOffloads::TCP_TSO) && !asked.contains(TxOffloads::UDP_TSO));
    /// assert_eq!(asked.to_string(), "IPV4_CKSUM UDP_CKSUM TCP_CKSUM TCP_TSO");
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TxOffloads: u64 {
        /// VLAN tags are inserted into the data.
        const VLAN_INSERT = 1 << 0;
        /// IPv4 header checksums are filled in.
        const IPV4_CKSUM = 1 << 1;
        /// UDP checksums are filled in.
        const UDP_CKSUM = 1 << 2;
        /// TCP checksums are filled in.
        const TCP_CKSUM = 1 << 3;
        /// Large TCP packets are segmented.
        const TCP_TSO = 1 << 5;
        /// Large UDP packets are segmented.
        const UDP_TSO = 1 << 6;
        /// A packet may have several segments; always true here.
        const MULTI_SEGS = 1 << 15;
        /// All packets of a queue are from one pool and not shared; a hint that is not needed here.
        const MBUF_FAST_FREE = 1 << 16;
        /// DPDK's bits without a name here are kept, so that they can be displayed and refused.
        const _ = !0;
    }
}

impl RxOffloads {
    /// TCP and UDP checksums.
    pub const CHECKSUM: Self = Self::UDP_CKSUM.union(Self::TCP_CKSUM);
    /// All receive offloads of a virtio port.
    pub const VIRTIO: Self = Self::CHECKSUM.union(Self::TCP_LRO).union(Self::SCATTER);
}

impl TxOffloads {
    /// TCP and UDP checksums.
    pub const CHECKSUM: Self = Self::UDP_CKSUM.union(Self::TCP_CKSUM);
    /// TCP and UDP segmentation.
    pub const SEGMENT: Self = Self::TCP_TSO.union(Self::UDP_TSO);
    /// All transmit offloads of a virtio port.
    pub const VIRTIO: Self = Self::CHECKSUM
        .union(Self::IPV4_CKSUM)
        .union(Self::SEGMENT)
        .union(Self::MULTI_SEGS)
        .union(Self::MBUF_FAST_FREE);
    /// The offloads that require changes to packets.
    pub const WORK: Self = Self::CHECKSUM.union(Self::IPV4_CKSUM).union(Self::SEGMENT);
}

/// The offloads that a port is asked for, or supports.
///
/// ```
/// use linecard_pmd::offload::{Offloads, RxOffloads};
/// let asked = Offloads { rx: RxOffloads::CHECKSUM, ..Offloads::default() };
/// assert!(asked.tx.is_empty());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Receive offloads.
    pub rx: RxOffloads,
    /// Transmit offloads.
    pub tx: TxOffloads,
}

impl Offloads {
    /// All offloads of a virtio port.
    pub const VIRTIO: Self = Self { rx: RxOffloads::VIRTIO, tx: TxOffloads::VIRTIO };
    /// The offloads that any port supports at no cost: several segments, packets of any pool.
    pub const FREE: Self =
        Self { rx: RxOffloads::SCATTER, tx: TxOffloads::MULTI_SEGS.union(TxOffloads::MBUF_FAST_FREE) };
}
