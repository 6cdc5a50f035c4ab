//! Work that a sender leaves to the receiver of its packet: completing a checksum, segmentation.
//!
//! This form is independent of a driver's wire format and of packet metadata; see virtio 1.3, Network Device:
//! Device Operation.

use crate::offload::Partial;

/// The protocol of the segments of a large packet.
///
/// ```
/// use linecard_net::request::GsoKind;
/// assert_ne!(GsoKind::TcpV4, GsoKind::TcpV6);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv4 or IPv6.
    Udp,
}

/// How to segment a large packet.
///
/// ```
/// use linecard_net::request::{Gso, GsoKind};
/// let gso = Gso { kind: GsoKind::TcpV4, ecn: false, size: 1448 };
/// assert_eq!(gso.size, 1448);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocol.
    pub kind: GsoKind,
    /// Whether its first segment announces a reduced window (RFC 3168, CWR).
    pub ecn: bool,
    /// The number of payload bytes in each segment; not 0.
    pub size: u16,
}

/// The work left to the receiver of one packet.
///
/// ```
/// use linecard_net::{offload::Partial, request::Request};
/// let partial = Some(Partial { csum_start: 34, csum_offset: 6 });
/// assert_ne!(Request { partial, ..Request::default() }, Request::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The checksum to complete.
    pub partial: Option<Partial>,
    /// The segmentation; only together with `partial`.
    pub gso: Option<Gso>,
    /// The length of all headers in bytes; a hint.
    pub header_len: u16,
    /// Whether the sender found the checksum to be correct, so that there is nothing to complete.
    pub data_valid: bool,
}

/// The work that a receiver of packets accepts; the sender does the rest.
///
/// ```
/// use linecard_net::request::AcceptedOffloads;
/// assert!(!AcceptedOffloads::default().csum);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedOffloads {
    /// Checksums that contain only the pseudo-header's sum. All other fields require this.
    pub csum: bool,
    /// Large TCP packets over IPv4.
    pub tso4: bool,
    /// Large TCP packets over IPv6.
    pub tso6: bool,
    /// Large TCP packets that announce a reduced window (CWR).
    pub ecn: bool,
    /// Large UDP packets over IPv4.
    pub uso4: bool,
    /// Large UDP packets over IPv6.
    pub uso6: bool,
}
