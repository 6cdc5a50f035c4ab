//! What a sender leaves to whoever receives its packet: finish a checksum, cut it into segments.
//!
//! A neutral form between a driver's wire format and packet metadata; see virtio 1.3, Network Device:
//! Device Operation.

use crate::offload::Partial;

/// Which protocol's segments a large packet stands for.
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
    /// UDP over either.
    Udp,
}

/// How a large packet is to be cut.
///
/// ```
/// use linecard_net::request::{Gso, GsoKind};
/// let gso = Gso { kind: GsoKind::TcpV4, ecn: false, size: 1448 };
/// assert_eq!(gso.size, 1448);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What it is.
    pub kind: GsoKind,
    /// Its first segment announces a reduced window (RFC 3168, CWR).
    pub ecn: bool,
    /// Bytes of payload in each segment; not 0.
    pub size: u16,
}

/// What is left to the receiver of one packet.
///
/// ```
/// use linecard_net::{offload::Partial, request::Request};
/// let partial = Some(Partial { csum_start: 34, csum_offset: 6 });
/// assert_ne!(Request { partial, ..Request::default() }, Request::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The checksum to finish.
    pub partial: Option<Partial>,
    /// How to cut it; only together with `partial`.
    pub gso: Option<Gso>,
    /// Bytes of all headers; a hint.
    pub header_len: u16,
    /// Nothing to finish: the sender found the checksum to be right.
    pub data_valid: bool,
}

/// What the receiver of packets takes unfinished; the rest has to be done before.
///
/// ```
/// use linecard_net::request::AcceptedOffloads;
/// assert!(!AcceptedOffloads::default().csum);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedOffloads {
    /// Checksums that hold the pseudo-header's sum only. Everything below needs this.
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
