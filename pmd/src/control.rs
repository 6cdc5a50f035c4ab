//! The control side of a started port: link, statistics, addresses.

use crate::error::Error;

/// Whether frames can pass, and at what nominal speed.
///
/// ```
/// use linecard_pmd::Link;
/// assert!(Link::UP.up && !Link::DOWN.up);
/// assert_eq!(Link::UP.speed_mbps, Some(10_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// A peer is connected and its rings are enabled.
    pub up: bool,
    /// Nominal speed in Mbit/s; `None` when unknown.
    pub speed_mbps: Option<u32>,
    /// Full duplex.
    pub full_duplex: bool,
}

impl Link {
    /// Up, at the 10 Gbit/s that DPDK's software ports claim.
    pub const UP: Self = Self { up: true, speed_mbps: Some(10_000), full_duplex: true };
    /// Down.
    pub const DOWN: Self = Self { up: false, ..Self::UP };
}

/// Totals since start or since [`PortControl::reset_stats`]; DPDK's names (`rte_eth_stats`).
///
/// ```
/// use linecard_pmd::PortStats;
/// let lost = |stats: PortStats| stats.imissed + stats.ierrors + stats.oerrors;
/// assert_eq!(lost(PortStats { imissed: 2, oerrors: 1, ..PortStats::default() }), 3);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub ipackets: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes received, without FCS.
    pub ibytes: u64,
    /// Bytes sent, without FCS.
    pub obytes: u64,
    /// Packets the device had no room for.
    pub imissed: u64,
    /// Packets received in error and dropped.
    pub ierrors: u64,
    /// Packets that could not be sent and were dropped by the port.
    pub oerrors: u64,
    /// Times a receive buffer could not be allocated.
    pub rx_nombuf: u64,
}

/// What any thread may ask of a started port.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext { memory, domain, wait: std::time::Duration::from_secs(1) };
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
/// let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let control = std::sync::Arc::clone(&port.control);
/// let watcher = std::thread::spawn(move || (control.link().up, control.stats().ipackets));
/// assert_eq!(watcher.join().expect("no panic"), (true, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait PortControl: Send + Sync {
    /// The instance name (`net_vhost0`).
    fn name(&self) -> &str;
    /// Link state now.
    fn link(&self) -> Link;
    /// The port's address.
    fn mac(&self) -> [u8; 6];
    /// Changes the port's address.
    ///
    /// # Errors
    /// The device has a fixed address, or `mac` is multicast or zero.
    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error>;
    /// Largest layer-3 packet, in bytes.
    fn mtu(&self) -> u16;
    /// Whether frames for other addresses are received too.
    fn promiscuous(&self) -> bool;
    /// Turns promiscuous receive on or off; software devices that see every frame just remember it.
    fn set_promiscuous(&self, on: bool);
    /// Whether frames to all multicast groups are received; a software device gets every frame that its peer sends.
    fn allmulticast(&self) -> bool {
        true
    }
    /// Totals, the sum of all queues.
    fn stats(&self) -> PortStats;
    /// Totals of one queue pair; zeros for a queue that does not exist.
    fn queue_stats(&self, queue: u16) -> PortStats;
    /// Named counters, every cause of a drop among them, in a fixed order.
    fn xstats(&self) -> Vec<(String, u64)>;
    /// Starts all totals from zero again.
    fn reset_stats(&self);
    /// What was negotiated with the peer, for people; empty where nothing is negotiated.
    fn features(&self) -> String {
        String::new()
    }
    /// The data paths in use (`rx split mergeable, tx split in-order`), for people.
    fn paths(&self) -> String {
        String::new()
    }
}
