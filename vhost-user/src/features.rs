//! What this backend offers.

use linecard_virtio::Features;
use linecard_wire::ProtocolFeatures;

use crate::session::protocol_features;

/// Queue pairs a device may have at most: ring indices must fit the eight bits of `SET_VRING_KICK`.
pub const MAX_QUEUE_PAIRS: u16 = 128;

/// Virtio features that a device may offer.
pub(crate) const OFFERED: Features = Features::VERSION_1
    .union(Features::NET_CSUM)
    .union(Features::HOST_SEGMENTS)
    .union(Features::NET_GUEST_CSUM)
    .union(Features::GUEST_SEGMENTS)
    .union(Features::NET_MRG_RXBUF)
    .union(Features::NET_MTU)
    .union(Features::NET_MQ)
    .union(Features::ANY_LAYOUT)
    .union(Features::IN_ORDER)
    .union(Features::INDIRECT_DESC)
    .union(Features::EVENT_IDX)
    .union(Features::RING_PACKED)
    .union(Features::LOG_ALL)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::PROTOCOL_FEATURES);

/// Virtio features of a device unless it is told otherwise: as in DPDK, large packets of the driver only with `tso=1`, translated
/// addresses only with `iommu-support=1`.
pub(crate) const DEFAULT: Features =
    OFFERED.difference(Features::HOST_SEGMENTS).difference(Features::ACCESS_PLATFORM);

/// vhost-user protocol features of every device: those that a request needs, and those that are about no request.
/// `CONFIG` comes on demand: see `BackendConfig::config_space`; so does `BACKEND_REQ`, which translated addresses need.
pub(crate) fn protocol(config_space: bool, features: Features) -> ProtocolFeatures {
    let about_none = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    let mut all = about_none | protocol_features();
    all.set(ProtocolFeatures::CONFIG, config_space);
    all.set(ProtocolFeatures::BACKEND_REQ, features.contains(Features::ACCESS_PLATFORM));
    all
}
