//! The virtio header of network packets (virtio 1.3, Network Device: Device Operation), and the offloads that
//! each side accepts according to the negotiated features.

pub use linecard_net::vnet::*;

use linecard_net::request::AcceptedOffloads;

use crate::features::Features;

/// The offloads that the device accepts from the driver with `features`.
///
/// ```
/// use linecard_virtio::{Features, net::device_accepts};
/// let takes = device_accepts(Features::NET_CSUM | Features::NET_HOST_TSO4);
/// assert!(takes.csum && takes.tso4 && !takes.tso6);
/// ```
#[must_use]
pub const fn device_accepts(features: Features) -> AcceptedOffloads {
    AcceptedOffloads {
        csum: features.contains(Features::NET_CSUM),
        tso4: features.contains(Features::NET_HOST_TSO4),
        tso6: features.contains(Features::NET_HOST_TSO6),
        ecn: features.contains(Features::NET_HOST_ECN),
        uso4: features.contains(Features::NET_HOST_USO),
        uso6: features.contains(Features::NET_HOST_USO),
    }
}

/// The offloads that the driver accepts from the device with `features`.
///
/// ```
/// use linecard_virtio::{Features, net::driver_accepts};
/// assert!(driver_accepts(Features::NET_GUEST_CSUM).csum);
/// ```
#[must_use]
pub const fn driver_accepts(features: Features) -> AcceptedOffloads {
    AcceptedOffloads {
        csum: features.contains(Features::NET_GUEST_CSUM),
        tso4: features.contains(Features::NET_GUEST_TSO4),
        tso6: features.contains(Features::NET_GUEST_TSO6),
        ecn: features.contains(Features::NET_GUEST_ECN),
        uso4: features.contains(Features::NET_GUEST_USO4),
        uso6: features.contains(Features::NET_GUEST_USO6),
    }
}
