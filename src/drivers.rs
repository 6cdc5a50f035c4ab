//! The drivers in this build. Each driver is a feature of the same name.

use crate::pmd::{Driver, Registry};

#[cfg(feature = "net_af_packet")]
pub use linecard_net_af_packet as net_af_packet;
#[cfg(feature = "net_af_xdp")]
pub use linecard_net_af_xdp as net_af_xdp;
#[cfg(feature = "net_impair")]
pub use linecard_net_impair as net_impair;
#[cfg(feature = "net_null")]
pub use linecard_net_null as net_null;
#[cfg(feature = "net_pcap")]
pub use linecard_net_pcap as net_pcap;
#[cfg(feature = "net_ring")]
pub use linecard_net_ring as net_ring;
#[cfg(feature = "net_tap")]
pub use linecard_net_tap as net_tap;
#[cfg(feature = "net_vduse")]
pub use linecard_net_vduse as net_vduse;
#[cfg(feature = "net_vxlan")]
pub use linecard_net_vxlan as net_vxlan;
#[cfg(feature = "net_vhost")]
pub use linecard_vhost_user as vhost_user;
#[cfg(any(feature = "net_virtio_pci", feature = "net_virtio_user"))]
pub use linecard_virtio_user as virtio_user;

#[cfg(feature = "net_vhost")]
use linecard_vhost_user::Descriptors;
#[cfg(all(any(feature = "net_virtio_pci", feature = "net_virtio_user"), not(feature = "net_vhost")))]
use linecard_virtio_user::Descriptors;

#[cfg(feature = "net_impair")]
static IMPAIR: net_impair::ImpairDriver = net_impair::ImpairDriver::new(drivers);
#[cfg(any(feature = "net_vhost", feature = "net_virtio_pci", feature = "net_virtio_user"))]
static DESCRIPTORS: Descriptors = Descriptors::new();
#[cfg(feature = "net_vhost")]
static VHOST: vhost_user::VhostDriver = vhost_user::VhostDriver::sharing(&DESCRIPTORS);
#[cfg(feature = "net_vduse")]
static VDUSE: net_vduse::VduseDriver = net_vduse::VduseDriver::new(&VHOST);
#[cfg(feature = "net_virtio_user")]
static VIRTIO_USER: crate::container::Found<virtio_user::VirtioUser> =
    crate::container::Found::new(virtio_user::VirtioUser::sharing(&DESCRIPTORS));

#[cfg(feature = "net_virtio_pci")]
static VIRTIO_PCI: virtio_user::VirtioPci = virtio_user::VirtioPci::sharing(&DESCRIPTORS);

/// The drivers, in the order in which they are listed.
static DRIVERS: &[&dyn Driver] = &[
    #[cfg(feature = "net_vhost")]
    &VHOST,
    #[cfg(feature = "net_virtio_user")]
    &VIRTIO_USER,
    #[cfg(feature = "net_virtio_pci")]
    &VIRTIO_PCI,
    #[cfg(feature = "net_vduse")]
    &VDUSE,
    #[cfg(feature = "net_af_xdp")]
    &net_af_xdp::AfXdpDriver,
    #[cfg(feature = "net_null")]
    &net_null::NullDriver,
    #[cfg(feature = "net_ring")]
    &net_ring::RingDriver,
    #[cfg(feature = "net_pcap")]
    &net_pcap::PcapDriver,
    #[cfg(feature = "net_tap")]
    &net_tap::TapDriver,
    #[cfg(feature = "net_af_packet")]
    &net_af_packet::AfPacketDriver,
    #[cfg(feature = "net_vxlan")]
    &net_vxlan::VxlanDriver,
    #[cfg(feature = "net_impair")]
    &IMPAIR,
];

/// Drivers of this project that are not in this build.
pub(crate) static LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "net_af_packet"))]
    "net_af_packet",
    #[cfg(not(feature = "net_af_xdp"))]
    "net_af_xdp",
    #[cfg(not(feature = "net_impair"))]
    "net_impair",
    #[cfg(not(feature = "net_null"))]
    "net_null",
    #[cfg(not(feature = "net_pcap"))]
    "net_pcap",
    #[cfg(not(feature = "net_ring"))]
    "net_ring",
    #[cfg(not(feature = "net_tap"))]
    "net_tap",
    #[cfg(not(feature = "net_vduse"))]
    "net_vduse",
    #[cfg(not(feature = "net_vhost"))]
    "net_vhost",
    #[cfg(not(feature = "net_virtio_pci"))]
    "net_virtio_pci",
    #[cfg(not(feature = "net_virtio_user"))]
    "net_virtio_user",
    #[cfg(not(feature = "net_vxlan"))]
    "net_vxlan",
];

/// Every driver in this build: the drivers that `--vdev` and `port attach` can name.
///
/// ```
/// let names: Vec<_> = linecard::drivers().drivers().map(|driver| driver.name()).collect();
/// assert!(names.contains(&"net_null"));
/// ```
#[must_use]
pub fn drivers() -> Registry {
    Registry::new(DRIVERS)
}

/// The budget of file descriptors that peers of [these drivers'](drivers) ports may make this process hold:
/// one total for frontends and backends.
///
/// A program that makes vhost-user backends itself lets them share it.
///
/// ```
/// use linecard::vhost_user::{Control, ProcessLimits};
/// let control = Control::sharing(ProcessLimits::of_this_process(), linecard::descriptors());
/// assert_eq!(linecard::descriptors().resource().used(), 0);
/// # drop(control);
/// ```
#[cfg(any(feature = "net_vhost", feature = "net_virtio_pci", feature = "net_virtio_user"))]
#[must_use]
pub fn descriptors() -> &'static Descriptors {
    &DESCRIPTORS
}
