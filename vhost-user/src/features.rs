//! Virtio and vhost-user features that a backend offers.

use linecard_virtio::Features;
use linecard_wire::ProtocolFeatures;

use crate::session::protocol_features;

/// The maximum number of queue pairs of a device: ring indices must fit the eight bits of `SET_VRING_KICK`.
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

/// Virtio features that a device offers by default. As in DPDK, large packets from the driver need `tso=1`,
/// and translated addresses need `iommu-support=1`.
pub(crate) const DEFAULT: Features =
    OFFERED.difference(Features::HOST_SEGMENTS).difference(Features::ACCESS_PLATFORM);

/// vhost-user protocol features of a device: those that some request needs, and those that belong to no
/// request. `CONFIG` depends on `BackendConfig::config_space`; `BACKEND_REQ` is offered only with
/// `ACCESS_PLATFORM`, because translations need it.
pub(crate) fn protocol(config_space: bool, features: Features) -> ProtocolFeatures {
    let about_none = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    let mut all = about_none | protocol_features();
    all.set(ProtocolFeatures::CONFIG, config_space);
    all.set(ProtocolFeatures::BACKEND_REQ, features.contains(Features::ACCESS_PLATFORM));
    all
}
