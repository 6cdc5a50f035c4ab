//! Conversion between the requests of a virtio-net header and a packet's metadata.

use linecard_mempool::{Offload, Packet, TxOffload};
use linecard_net::gso::Segmenter;
use linecard_net::offload::Partial;
use linecard_net::parse::{Layers, parse, parse_ip};
use linecard_net::request::{Gso, GsoKind, Request};
use linecard_net::transport::tcp_flags;
use linecard_net::{Header, PacketType};

use super::AcceptedOffloads;
use super::software::finish;

/// The number of bytes at the front of a packet in which headers are parsed.
const HEADERS: usize = 256;
/// Flags by which an application requests offloads.
const TX_ASKS: Offload = Offload::from_bits_retain(
    Offload::TX_L4_MASK.bits()
        | Offload::TX_IP_CKSUM.bits()
        | Offload::TX_TCP_SEG.bits()
        | Offload::TX_UDP_SEG.bits(),
);

/// Whether flags request anything from the receiver of a packet, or from software before it is sent.
///
/// ```
/// use linecard_mempool::Offload;
/// use linecard_pmd::offload::asks;
/// assert!(asks(Offload::TX_TCP_CKSUM) && asks(Offload::RX_L4_CKSUM_NONE));
/// assert!(!asks(Offload::RX_L4_CKSUM_GOOD | Offload::RX_RSS_HASH));
/// ```
#[inline(always)]
#[must_use]
pub fn asks(flags: Offload) -> bool {
    flags.intersects(TX_ASKS | Offload::RX_LRO)
        || flags & Offload::RX_L4_CKSUM_MASK == Offload::RX_L4_CKSUM_NONE
}

/// The metadata of a packet requests an offload that does not fit the packet.
///
/// ```
/// assert!(linecard_pmd::offload::Malformed.to_string().contains("offload"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the offload flags do not fit the packet; set them for the headers that are there")]
pub struct Malformed;

/// Writes the requests of a received packet's sender into the packet's metadata.
///
/// # Errors
/// The request does not fit the packet, or exceeds `accepted`: drop the packet.
///
/// A checksum of a known protocol stays partial ([`Offload::RX_L4_CKSUM_NONE`]); any other is completed here.
/// `request` must have been checked against the packet's length.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Offload, Pool, PoolConfig};
/// use linecard_net::request::Request;
/// use linecard_pmd::offload::{AcceptedOffloads, describe};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut packet = pool.get().ok_or("empty")?;
/// packet.copy_from_slice(&[0; 60])?;
/// let valid = Request { data_valid: true, ..Request::default() };
/// describe(&mut packet, valid, AcceptedOffloads::default())?;
/// assert_eq!(packet.offload(), Offload::RX_L4_CKSUM_GOOD);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn describe(packet: &mut Packet, request: Request, accepted: AcceptedOffloads) -> Result<(), Malformed> {
    if is_described(packet, request, accepted) { Ok(()) } else { Err(Malformed) }
}

fn is_described(packet: &mut Packet, request: Request, accepted: AcceptedOffloads) -> bool {
    let Some(partial) = request.partial else {
        if request.data_valid {
            packet.set_offload(Offload::RX_L4_CKSUM_GOOD);
        }
        return request.gso.is_none();
    };
    let layers = look(packet, 0);
    let known = Partial::of(&layers) == Some(partial);
    match request.gso {
        _ if !accepted.csum => false,
        Some(gso) => known && describe_large(packet, &layers, gso, accepted),
        None if known => {
            note(packet, &layers, Offload::RX_L4_CKSUM_NONE, 0);
            true
        }
        None => finish(packet, partial, packet.len()),
    }
}

/// Returns how to segment a contiguous frame as its sender requested; `None` if the headers do not match the
/// request.
///
/// ```
/// use linecard_pmd::offload::segmenter;
/// assert!(segmenter(&[0; 60], linecard_net::request::Request::default()).is_none(), "nobody said how");
/// ```
#[must_use]
pub fn segmenter(frame: &[u8], request: Request) -> Option<Segmenter> {
    let (layers, gso) = (parse(frame), request.gso?);
    let said = Partial::of(&layers) == request.partial && kind_of(&layers) == Some(gso.kind);
    let payload = frame.len().checked_sub(layers.payload_start()).filter(|_| said)?;
    Segmenter::new(&layers, payload, gso.size)
}

/// Marks a packet for segmentation, if its headers match the sender's request.
fn describe_large(packet: &mut Packet, layers: &Layers, gso: Gso, accepted: AcceptedOffloads) -> bool {
    let payload = packet.len().checked_sub(layers.payload_start());
    let possible = payload.and_then(|payload| Segmenter::new(layers, payload, gso.size)).is_some();
    if !possible || kind_of(layers) != Some(gso.kind) || !takes_kind(accepted, layers) {
        return false;
    }
    note(packet, layers, Offload::RX_L4_CKSUM_NONE | Offload::RX_LRO, gso.size);
    true
}

fn note(packet: &mut Packet, layers: &Layers, flags: Offload, segment: u16) {
    let lengths = TxOffload::new(layers.l2_len, layers.l3_len, layers.l4_len).with_tso_segsz(segment);
    packet.set_packet_type(layers.packet_type);
    packet.set_tx_offload(flags, lengths);
}

/// Parses the headers of a packet. With an `l2_len` of 0 the link header is parsed too.
fn look(packet: &Packet, l2_len: u16) -> Layers {
    let mut copy = [0; HEADERS];
    let front = front(packet, &mut copy);
    if l2_len == 0 {
        return parse(front);
    }
    let l3 = front.get(usize::from(l2_len)..).unwrap_or_default();
    Layers { l2_len, ..parse_ip(l3) }
}

/// The first bytes of a packet, across its segments.
fn front<'a>(packet: &'a Packet, copy: &'a mut [u8; HEADERS]) -> &'a [u8] {
    let data = packet.data();
    if let Some(data) = data.get(..HEADERS) {
        return data;
    }
    if data.len() == packet.len() {
        return data;
    }
    let len = packet.read_at(0, copy);
    &copy[..len]
}

fn kind_of(layers: &Layers) -> Option<GsoKind> {
    match layers.packet_type.l4() {
        PacketType::L4_UDP => Some(GsoKind::Udp),
        PacketType::L4_TCP if layers.packet_type.is_ipv4() => Some(GsoKind::TcpV4),
        PacketType::L4_TCP => Some(GsoKind::TcpV6),
        _ => None,
    }
}

fn takes_kind(accepted: AcceptedOffloads, layers: &Layers) -> bool {
    match (kind_of(layers), layers.packet_type.is_ipv4()) {
        (Some(GsoKind::TcpV4), _) => accepted.tso4,
        (Some(GsoKind::TcpV6), _) => accepted.tso6,
        (Some(GsoKind::Udp), true) => accepted.uso4,
        (Some(GsoKind::Udp), false) => accepted.uso6,
        (None, _) => false,
    }
}

/// The offloads that a packet's metadata requests, and the headers that they apply to.
///
/// `TX_` flags take precedence over the `RX_` flags of a packet that is passed on.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Offload, Pool, PoolConfig};
/// use linecard_pmd::offload::{Malformed, TxRequest};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut packet = pool.get().ok_or("empty")?;
/// packet.copy_from_slice(&[0; 60])?;
/// assert_eq!(TxRequest::of(&packet), Ok(None));
/// packet.set_offload(Offload::TX_TCP_CKSUM);
/// assert_eq!(TxRequest::of(&packet), Err(Malformed)); // sixty zeros are no TCP
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRequest {
    pub(super) layers: Layers,
    /// Payload bytes per segment.
    pub(super) gso: Option<u16>,
    /// The transport checksum must be filled in.
    pub(super) csum: bool,
    /// The IPv4 header checksum must be filled in.
    pub(super) ip: bool,
    /// The checksum field already contains the pseudo-header's sum.
    pub(super) prepared: bool,
    ecn: bool,
}

impl TxRequest {
    /// Reads the metadata; `None` if it requests nothing.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn of(packet: &Packet) -> Result<Option<Self>, Malformed> {
        let flags = packet.offload();
        if !asks(flags) {
            return Ok(None);
        }
        let (lengths, asked) = (packet.tx_offload(), flags.intersects(TX_ASKS));
        let layers = look(packet, if asked { lengths.l2_len() } else { 0 });
        let (transport, cut) =
            if asked { asked_for(flags)? } else { (None, flags.contains(Offload::RX_LRO)) };
        let l4 = layers.packet_type.l4();
        let ip = flags.contains(Offload::TX_IP_CKSUM);
        let csum = !asked || transport.is_some();
        let fits = transport.is_none_or(|asked| asked == l4)
            && (!csum || Partial::of(&layers).is_some() && !layers.source_routed)
            && (!ip || layers.packet_type.is_ipv4());
        let payload = packet.len().checked_sub(layers.payload_start()).ok_or(Malformed)?;
        let size = lengths.tso_segsz();
        if !fits || cut && Segmenter::new(&layers, payload, size).is_none() {
            return Err(Malformed);
        }
        // A packet that fits one segment is an ordinary packet.
        let gso = (cut && payload > usize::from(size)).then_some(size);
        let ip = ip || cut && asked && layers.packet_type.is_ipv4();
        let ecn = gso.is_some() && l4 == PacketType::L4_TCP && announces_reduction(packet, &layers);
        Ok(Some(Self { layers, gso, csum, ip, prepared: !asked, ecn }))
    }

    /// Whether everything, apart from the IPv4 header checksum, can be left to a receiver that accepts
    /// `accepted`.
    #[must_use]
    pub fn is_taken(&self, accepted: AcceptedOffloads) -> bool {
        let csum = !self.csum || accepted.csum;
        csum && (self.gso.is_none() || takes_kind(accepted, &self.layers) && (!self.ecn || accepted.ecn))
    }

    /// The request that is left to the receiver.
    #[must_use]
    pub fn request(&self) -> Request {
        let partial: Option<Partial> = Partial::of(&self.layers).filter(|_| self.csum);
        let kind = kind_of(&self.layers);
        let gso = self.gso.zip(kind).map(|(size, kind)| Gso { kind, ecn: self.ecn, size });
        let header_len = u16::try_from(self.layers.payload_start()).unwrap_or(0);
        Request { partial, gso, header_len, data_valid: false }
    }
}

/// The transport protocol that `TX_` flags refer to, and whether packets must be segmented.
fn asked_for(flags: Offload) -> Result<(Option<PacketType>, bool), Malformed> {
    const NONE: Offload = Offload::empty();
    let cut = (flags.contains(Offload::TX_TCP_SEG), flags.contains(Offload::TX_UDP_SEG));
    match (cut, flags & Offload::TX_L4_MASK) {
        ((true, false), NONE | Offload::TX_TCP_CKSUM) => Ok((Some(PacketType::L4_TCP), true)),
        ((false, true), NONE | Offload::TX_UDP_CKSUM) => Ok((Some(PacketType::L4_UDP), true)),
        ((false, false), Offload::TX_TCP_CKSUM) => Ok((Some(PacketType::L4_TCP), false)),
        ((false, false), Offload::TX_UDP_CKSUM) => Ok((Some(PacketType::L4_UDP), false)),
        ((false, false), NONE) => Ok((None, false)),
        _ => Err(Malformed),
    }
}

/// Whether a TCP header has the CWR flag.
fn announces_reduction(packet: &Packet, layers: &Layers) -> bool {
    let mut copy = [0; HEADERS];
    let l4 = front(packet, &mut copy).get(layers.l4_start()..).unwrap_or_default();
    linecard_net::transport::Tcp::load(l4).is_some_and(|tcp| tcp.flags & tcp_flags::CWR != 0)
}
