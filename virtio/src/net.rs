//! The header before every packet of a network device (virtio 1.3, Network Device: Device Operation), and what each side
//! takes of the other by the features that were negotiated.

pub use linecard_net::vnet::*;

use linecard_net::request::AcceptedOffloads;

use crate::features::Features;

/// What the device takes of what the driver sends, when `features` are negotiated.
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

/// What the driver takes of what the device delivers, when `features` are negotiated.
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
