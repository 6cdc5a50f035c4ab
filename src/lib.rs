//! Linecard: userspace packet processing. Virtio-user and vhost-user ports, rings and packet pools,
//! without root and without hugepages.
//!
//! A packet's way through a program:
//!
//! ```
//! use linecard::prelude::*;
//!
//! let (args, _) = EalArgs::parse(["--no-huge", "-m", "32"].map(Into::into))?;
//! let eal = Eal::new(&args)?;
//! let domain = eal.default_domain();
//! let pool = Pool::new(&domain, PoolConfig { packets: 1024, ..PoolConfig::default() })?;
//!
//! let wait = std::time::Duration::from_secs(1);
//! let context = ProbeContext { memory: eal.memory().clone(), domain, wait };
//! let device = linecard::drivers().probe(&context, "net_null0")?;
//! let mut port = configure(device, PortConfig::default()).map_err(|e| e.error)?.start(&pool).map_err(|e| e.error)?;
//!
//! let mut packets = Burst::new();
//! port.rx[0].rx_burst(&mut packets);
//! for packet in packets.iter_mut() {
//!     packet.data_mut()[0] = 2;
//! }
//! port.tx[0].tx_burst(&mut packets);
//! assert!(packets.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use linecard_eal as eal;
pub use linecard_mempool as mempool;
pub use linecard_net as net;
pub use linecard_pmd as pmd;
pub use linecard_ring as ring;
pub use linecard_vhost_user as vhost_user;
pub use linecard_virtio as virtio;
pub use linecard_virtio_user as virtio_user;

static IMPAIR: pmd::impair::ImpairDriver = pmd::impair::ImpairDriver::new(drivers);
static VHOST: vhost_user::VhostDriver = vhost_user::VhostDriver::new();
static VIRTIO_USER: virtio_user::VirtioUser = virtio_user::VirtioUser::new();

/// Every driver there is: what `--vdev` and `port attach` can name.
///
/// ```
/// let names: Vec<_> = linecard::drivers().drivers().map(|driver| driver.name()).collect();
/// assert!(names.contains(&"net_null"));
/// ```
#[must_use]
pub fn drivers() -> pmd::Registry {
    pmd::Registry::new(&[
        &VHOST,
        &VIRTIO_USER,
        &pmd::af_xdp::AfXdpDriver,
        &pmd::null::NullDriver,
        &pmd::ring::RingDriver,
        &pmd::pcap::PcapDriver,
        &pmd::tap::TapDriver,
        &pmd::af_packet::AfPacketDriver,
        &IMPAIR,
    ])
}

/// What nearly every program needs.
pub mod prelude {
    pub use crate::eal::{Eal, EalArgs, Stop, Workers};
    pub use crate::mempool::{Burst, Packet, Pool, PoolConfig};
    pub use crate::pmd::{Port, PortConfig, ProbeContext, RxQueue, TxQueue, configure};
}
