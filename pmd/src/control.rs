//! The control side of a started port: link, statistics, addresses.

use std::sync::Arc;

use crate::error::Error;
use crate::filter::RxFilter;
use crate::link::LinkEvents;
use crate::offload::RxOffloads;
use crate::queue::QueueId;
use crate::rss::Rss;

/// Whether frames can pass, and at which nominal speed.
///
/// ```
/// use linecard_pmd::Link;
/// assert!(Link::UP.up && !Link::DOWN.up);
/// assert_eq!(Link::UP.speed_mbps, Some(10_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether a peer is connected and its rings are enabled.
    pub up: bool,
    /// Nominal speed in Mbit/s; `None` when unknown.
    pub speed_mbps: Option<u32>,
    /// Whether the link is full duplex.
    pub full_duplex: bool,
}

impl Link {
    /// Up, with the 10 Gbit/s that DPDK's software ports report.
    pub const UP: Self = Self { up: true, speed_mbps: Some(10_000), full_duplex: true };
    /// Down.
    pub const DOWN: Self = Self { up: false, ..Self::UP };
}

/// Totals since the start or the last [`PortControl::reset_stats`], under DPDK's names (`rte_eth_stats`).
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
    /// Packets that the device had no room for.
    pub imissed: u64,
    /// Packets received in error and dropped.
    pub ierrors: u64,
    /// Packets that the port could not send and dropped.
    pub oerrors: u64,
    /// Failed allocations of a receive buffer.
    pub rx_nombuf: u64,
}

/// The control side of a started port, usable from any thread: `Send` and `Sync`.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
/// let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let control = std::sync::Arc::clone(&port.control);
/// let watcher = std::thread::spawn(move || (control.link().up, control.stats().ipackets));
/// assert_eq!(watcher.join().expect("no panic"), (true, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An implementation overrides the methods that differ and names in [`inner`](Self::inner) the control side
/// that answers the others: a driver names its [`LocalControl`](crate::local::LocalControl), a port that
/// wraps another one the wrapped port's control side.
///
/// ```
/// use linecard_pmd::{Link, PortControl, local::{Identity, LocalControl}, stats::{AnyLoss, PortCounters}};
/// /// A port whose link is always down.
/// struct Unplugged(LocalControl<AnyLoss, AnyLoss>);
/// impl PortControl for Unplugged {
///     fn inner(&self) -> &dyn PortControl {
///         &self.0
///     }
///
///     fn link(&self) -> Link {
///         Link::DOWN
///     }
/// }
/// let identity = Identity::new("net_null0", [2, 0, 0, 0, 0, 1], 1500);
/// let control = Unplugged(LocalControl::new(identity, PortCounters::new(1, 1)));
/// assert_eq!((control.name(), control.link().up), ("net_null0", false));
/// ```
pub trait PortControl: Send + Sync {
    /// The control side that answers every method that this one does not override. Not for users of a port:
    /// it may know less.
    fn inner(&self) -> &dyn PortControl;
    /// The instance name (`net_vhost0`).
    fn name(&self) -> &str {
        self.inner().name()
    }
    /// The current link state.
    fn link(&self) -> Link {
        self.inner().link()
    }
    /// The registry for callbacks on link changes, if the port reports them; `None` if the link must be
    /// polled.
    fn link_events(&self) -> Option<&Arc<LinkEvents>> {
        self.inner().link_events()
    }
    /// The port's MAC address.
    fn mac(&self) -> [u8; 6] {
        self.inner().mac()
    }
    /// Changes the port's MAC address.
    ///
    /// # Errors
    /// The device has a fixed address, or `mac` is a multicast or zero address.
    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.inner().set_mac(mac)
    }
    /// Largest layer-3 packet, in bytes.
    fn mtu(&self) -> u16 {
        self.inner().mtu()
    }
    /// Whether frames for other stations are received too.
    fn promiscuous(&self) -> bool {
        self.inner().promiscuous()
    }
    /// Turns promiscuous mode on or off. Software devices that receive every frame only store the setting.
    fn set_promiscuous(&self, on: bool) {
        self.inner().set_promiscuous(on);
    }
    /// Whether frames to all multicast groups are received. A software device without a
    /// [filter](Self::rx_filter) receives every frame that its peer sends.
    fn allmulticast(&self) -> bool {
        self.inner().allmulticast()
    }
    /// Turns all-multicast mode on or off.
    ///
    /// # Errors
    /// The port cannot switch the mode and is not in the requested mode.
    fn set_allmulticast(&self, on: bool) -> Result<(), Error> {
        if let Some(filter) = self.rx_filter() {
            filter.set_allmulticast(on);
        }
        if self.allmulticast() == on {
            return Ok(());
        }
        let what = if on { "all-multicast mode" } else { "receiving some multicast groups only" };
        let remedy = if on { "turn promiscuous mode on" } else { "drop the frames after they are received" };
        Err(Error::Unsupported { port: self.name().into(), what: what.into(), remedy: remedy.into() })
    }
    /// The port's own receive filter by destination and VLAN; `None` if its peer, the kernel, or nothing
    /// filters.
    fn rx_filter(&self) -> Option<&RxFilter> {
        self.inner().rx_filter()
    }
    /// Switches receive offloads while the port runs: those in `asked` are on afterwards, of the ones that
    /// the port was started with. The device follows a moment later; packets already on their way are
    /// received unchanged.
    ///
    /// # Errors
    /// The port or its device does not support this, or the port was started without one of the offloads:
    /// stop it, change the offloads, and start it.
    fn set_rx_offloads(&self, asked: RxOffloads) -> Result<(), Error> {
        self.inner().set_rx_offloads(asked)
    }
    /// How the device spreads flows over the receive queues, if it can be configured; `None` if it never can.
    fn rss(&self) -> Option<&Arc<Rss>> {
        self.inner().rss()
    }
    /// The totals of all queues.
    fn stats(&self) -> PortStats {
        self.inner().stats()
    }
    /// The totals of one queue pair; zeros for a queue that does not exist.
    fn queue_stats(&self, queue: u16) -> PortStats {
        self.inner().queue_stats(queue)
    }
    /// The number of descriptors of a queue's ring, if it has one. It may be less than the configured depth
    /// if the device or peer has fewer.
    fn depth(&self, queue: QueueId) -> Option<u16> {
        self.inner().depth(queue)
    }
    /// The number of descriptors of a queue that are in use: for a receive queue, packets that wait to be
    /// received; for a transmit queue, packets that the peer has not finished with. 0 while no peer is
    /// connected.
    ///
    /// The call briefly keeps the queue from its polling thread, as between two bursts. It costs nothing
    /// otherwise.
    ///
    /// # Errors
    /// The port cannot determine it, or has no such queue, or its peer blocks the control thread.
    fn used_descriptors(&self, queue: QueueId) -> Result<u16, Error> {
        self.inner().used_descriptors(queue)
    }
    /// Whether a queue is started. All queues start with the port, except
    /// [deferred](crate::PortConfig::deferred) ones and those that [`stop_queue`](Self::stop_queue) stopped.
    fn queue_started(&self, queue: QueueId) -> bool {
        self.inner().queue_started(queue)
    }
    /// Starts a stopped queue. Packets pass once this has returned, if the link is up.
    ///
    /// # Errors
    /// The port cannot stop single queues, or has no such queue, or its peer blocks the control thread or
    /// refuses.
    fn start_queue(&self, queue: QueueId) -> Result<(), Error> {
        self.inner().start_queue(queue)
    }
    /// Stops a queue; the others continue, and its thread may continue to poll it. A stopped receive queue
    /// returns no packets and gets none from its peer; a stopped transmit queue takes none. Packets received
    /// before stay in the queue until it is started or the port is stopped. The queue stays stopped when
    /// another peer connects.
    ///
    /// # Errors
    /// As [`start_queue`](Self::start_queue).
    fn stop_queue(&self, queue: QueueId) -> Result<(), Error> {
        self.inner().stop_queue(queue)
    }
    /// Named counters in a fixed order, including one per cause of drops.
    fn xstats(&self) -> Vec<(String, u64)> {
        self.inner().xstats()
    }
    /// Turns counting by packet size and kind of address on or off; the counters are among the
    /// [`xstats`](Self::xstats) under DPDK's names (`rx_q0_size_64_packets`, `rx_q0_multicast_packets`, …).
    /// Off by default, because it costs work per packet. Returns false if the port cannot do this.
    fn count_classes(&self, on: bool) -> bool {
        self.inner().count_classes(on)
    }
    /// Resets all totals to zero.
    fn reset_stats(&self) {
        self.inner().reset_stats();
    }
    /// The features negotiated with the peer, for display; empty if nothing is negotiated.
    fn features(&self) -> String {
        self.inner().features()
    }
    /// The data paths in use (`rx split mergeable, tx split in-order`), for display.
    fn paths(&self) -> String {
        self.inner().paths()
    }
}
