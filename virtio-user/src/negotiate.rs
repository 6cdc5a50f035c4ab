//! Negotiation between a device's offer and the port's options (virtio 1.3, Device Initialization).

use linecard_pmd::Offloads;
use linecard_pmd::offload::{RxOffloads, TxOffloads};
use linecard_pmd::rss::{KEY_LEN, MAX_TABLE, RssTypes};
use linecard_virtio::{Features, Layout};

use crate::args::Options;
use crate::backend::{Backend, status};
use crate::control_queue::{CONTROLLED, HASHING};
use crate::error::Error;
use crate::log::{PortLog, tell};

/// Selects the features that the device offers and the options request.
pub(crate) fn choose(offered: Features, options: &Options, pairs: u16) -> Result<Features, Error> {
    let wanted = Features::VERSION_1
        .union(Features::INDIRECT_DESC)
        .union(Features::PROTOCOL_FEATURES)
        .with(Features::NET_MRG_RXBUF, options.mrg_rxbuf)
        .with(Features::IN_ORDER, options.in_order)
        .with(Features::RING_PACKED, options.packed_vq)
        .with(Features::EVENT_IDX, options.event_idx)
        .with(Features::NET_MAC, options.device_mac)
        .union(CONTROL)
        .union(Features::NET_MTU)
        .with(Features::NET_SPEED_DUPLEX, options.speed.is_none())
        .with(SEVERAL_PAIRS, pairs > 1)
        .with(Features::NET_HASH_REPORT, options.offloads.rx.contains(RxOffloads::RSS_HASH));
    let features = (offered & wanted.union(offloads(options))).without_orphans();
    if !features.contains(Features::VERSION_1) {
        return Err(Error::Feature { name: "VIRTIO_F_VERSION_1" });
    }
    if pairs > 1 && !features.intersects(SEVERAL_PAIRS) {
        return Err(Error::Feature { name: "VIRTIO_NET_F_MQ (several queues)" });
    }
    for asked in options.queue_sizes() {
        Layout::check_size(layout(features), u32::from(asked)).map_err(|_| Error::RingSize { asked })?;
    }
    Ok(features)
}

/// Features with which a device may use several queue pairs. Its control queue then follows all pairs that it
/// has.
pub(crate) const SEVERAL_PAIRS: Features = Features::NET_MQ.union(Features::NET_RSS);

/// The features that need a control queue.
const CONTROL: Features = Features::NET_CTRL_VQ
    .union(Features::NET_CTRL_RX)
    .union(Features::NET_CTRL_VLAN)
    .union(Features::NET_CTRL_MAC_ADDR)
    .union(Features::NET_GUEST_ANNOUNCE);

/// Returns the offered features that the port can use. A device that filters VLANs drops all of them at
/// first, so VLAN filtering is used only if the port filters VLANs from the start.
pub(crate) fn offered(backend: &dyn Backend, vlans: bool) -> Features {
    let features = backend.offer().features;
    if !backend.has_control_queue() || !features.contains(Features::NET_CTRL_VQ) {
        return features - CONTROLLED;
    }
    features
        - Features::empty()
            .with(Features::NET_CTRL_VLAN, !vlans)
            .with(Features::NET_GUEST_ANNOUNCE, !backend.tells_announcements())
}

/// Returns the features that correspond to the requested offloads.
fn offloads(options: &Options) -> Features {
    let Offloads { rx, tx } = options.offloads;
    let guest = guest_offloads(rx, options.mrg_rxbuf);
    guest
        .with(Features::NET_CTRL_GUEST_OFFLOADS, !guest.is_empty())
        .with(Features::NET_CSUM, tx.intersects(TxOffloads::CHECKSUM.union(TxOffloads::SEGMENT)))
        .with(Features::NET_HOST_TSO4, tx.contains(TxOffloads::TCP_TSO))
        .with(Features::NET_HOST_TSO6, tx.contains(TxOffloads::TCP_TSO))
        .with(Features::NET_HOST_ECN, tx.contains(TxOffloads::TCP_TSO))
        .with(Features::NET_HOST_USO, tx.contains(TxOffloads::UDP_TSO))
}

/// Returns the offloads that the device may leave to a port with these receive offloads. A large packet needs
/// several receive buffers.
pub(crate) fn guest_offloads(rx: RxOffloads, mrg_rxbuf: bool) -> Features {
    let large = rx.contains(RxOffloads::TCP_LRO) && mrg_rxbuf;
    Features::empty()
        .with(Features::NET_GUEST_CSUM, large || rx.intersects(RxOffloads::CHECKSUM))
        .with(Features::GUEST_SEGMENTS, large)
}

/// Returns the ring format that `features` select.
pub(crate) fn layout(features: Features) -> Layout {
    if features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split }
}

/// Negotiates features, and verifies that the device accepts them.
pub(crate) fn agree(
    backend: &mut dyn Backend,
    options: &Options,
    pairs: u16,
    vlans: bool,
    log: &PortLog,
) -> Result<Features, Error> {
    use status::{ACKNOWLEDGE, DRIVER, DRIVING, FAILED, FEATURES_OK, NEEDS_RESET};
    let offer = backend.offer();
    if pairs > offer.pairs {
        return Err(Error::Queues { asked: pairs, offered: u64::from(offer.pairs) });
    }
    let unusable = unusable_hashing(backend, log)?;
    let features = choose(offered(backend, vlans) - unusable, options, pairs)?;
    backend.set_status(ACKNOWLEDGE)?;
    backend.set_status(ACKNOWLEDGE | DRIVER)?;
    backend.set_features(features)?;
    backend.set_status(DRIVING)?;
    match backend.status()? {
        Some(got) if got & (NEEDS_RESET | FAILED) != 0 || got & FEATURES_OK == 0 => {
            Err(Error::Status { features: features.to_string(), status: u64::from(got) })
        }
        _ => Ok(features),
    }
}

/// Sets DRIVER_OK: the device may use the rings.
pub(crate) fn driver_ok(backend: &mut dyn Backend) -> Result<(), Error> {
    backend.set_status(status::DRIVING | status::DRIVER_OK)?;
    backend.sync()
}

/// Offsets in the configuration space of a network device (virtio 1.3, Network Device: Device configuration
/// layout).
const MTU_AT: u32 = 10;
const SPEED_AT: u32 = 12;

/// Returns the device's maximum MTU, without the Ethernet header; `None` if the device reports none.
pub(crate) fn max_mtu(backend: &mut dyn Backend, features: Features) -> Result<Option<u16>, Error> {
    let mut bytes = [0; 2];
    let told = features.contains(Features::NET_MTU) && backend.config(MTU_AT, &mut bytes)?;
    Ok(Some(u16::from_le_bytes(bytes)).filter(|mtu| told && *mtu != 0))
}

/// Returns the device's medium: Mbit/s if known, and whether it is full duplex.
pub(crate) fn speed(backend: &mut dyn Backend, features: Features) -> Result<(Option<u32>, bool), Error> {
    /// The highest valid speed; all ones means "unknown".
    const MAX_SPEED: u32 = 0x7fff_ffff;
    /// `duplex` for half duplex; 1 is full duplex, 0xff unknown.
    const HALF: u8 = 0;
    let mut bytes = [0; 5];
    if !features.contains(Features::NET_SPEED_DUPLEX) || !backend.config(SPEED_AT, &mut bytes)? {
        return Ok((None, true));
    }
    let [a, b, c, d, duplex] = bytes;
    let speed = u32::from_le_bytes([a, b, c, d]);
    Ok((Some(speed).filter(|speed| *speed <= MAX_SPEED), duplex != HALF))
}

/// Offset of the key length, table length and types (virtio 1.2, Network Device: Device configuration
/// layout).
const RSS_AT: u32 = 17;

/// Returns the packet types that a device hashes. Empty if its limits are invalid or too small for the port's
/// keys and tables; the specification requires room for a 40-byte key and 128 entries.
pub(crate) fn hash_types(backend: &mut dyn Backend, features: Features) -> Result<RssTypes, Error> {
    let mut bytes = [0; 7];
    if !features.intersects(HASHING) || !backend.config(RSS_AT, &mut bytes)? {
        return Ok(RssTypes::empty());
    }
    let [key, low, high, types @ ..] = bytes;
    let table = usize::from(u16::from_le_bytes([low, high]));
    let enough = usize::from(key) >= KEY_LEN && (table >= MAX_TABLE || !features.contains(Features::NET_RSS));
    Ok(if enough { RssTypes::from_bits_truncate(u32::from_le_bytes(types)) } else { RssTypes::empty() })
}

/// Returns the hashing features that the device offers but cannot provide.
fn unusable_hashing(backend: &mut dyn Backend, log: &PortLog) -> Result<Features, Error> {
    let offered = backend.offer().features;
    let mut unusable = Features::empty();
    for feature in [Features::NET_RSS, Features::NET_HASH_REPORT] {
        if offered.contains(feature) && hash_types(backend, feature)?.is_empty() {
            tell!(log, DEBUG, "the device has no room for keys and tables: no {feature}");
            unusable |= feature;
        }
    }
    Ok(unusable)
}

/// Returns the device's own address.
pub(crate) fn mac(backend: &mut dyn Backend) -> Result<Option<[u8; 6]>, Error> {
    /// The offset of the address in the configuration space.
    const MAC: u32 = 0;
    let mut mac = [0; 6];
    let told = backend.offer().features.contains(Features::NET_MAC) && backend.config(MAC, &mut mac)?;
    // Neither a group address nor zero.
    Ok((told && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac))
}
