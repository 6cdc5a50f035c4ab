//! The control side of a started port: link, statistics, addresses.

use std::sync::Arc;

use crate::error::Error;
use crate::filter::RxFilter;
use crate::link::LinkEvents;
use crate::offload::RxOffloads;
use crate::queue::QueueId;
use crate::rss::Rss;

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

/// What any thread may ask of a started port: `Send` and `Sync`.
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
/// Whoever implements it says what is different, and names in [`inner`](Self::inner) what answers the rest: a driver its
/// [`LocalControl`](crate::local::LocalControl), a port around another one that other's control side.
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
    /// What answers every question that this one leaves to it. Not for a port's users: it may know less.
    fn inner(&self) -> &dyn PortControl;
    /// The instance name (`net_vhost0`).
    fn name(&self) -> &str {
        self.inner().name()
    }
    /// Link state now.
    fn link(&self) -> Link {
        self.inner().link()
    }
    /// Who is told when the link goes up or down, where the port tells that; `None` where the link has to be looked at.
    fn link_events(&self) -> Option<&Arc<LinkEvents>> {
        self.inner().link_events()
    }
    /// The port's address.
    fn mac(&self) -> [u8; 6] {
        self.inner().mac()
    }
    /// Changes the port's address.
    ///
    /// # Errors
    /// The device has a fixed address, or `mac` is multicast or zero.
    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.inner().set_mac(mac)
    }
    /// Largest layer-3 packet, in bytes.
    fn mtu(&self) -> u16 {
        self.inner().mtu()
    }
    /// Whether frames for other addresses are received too.
    fn promiscuous(&self) -> bool {
        self.inner().promiscuous()
    }
    /// Turns promiscuous receive on or off; software devices that see every frame just remember it.
    fn set_promiscuous(&self, on: bool) {
        self.inner().set_promiscuous(on);
    }
    /// Whether frames to all multicast groups are received; a software device without a [filter](Self::rx_filter) gets
    /// every frame that its peer sends.
    fn allmulticast(&self) -> bool {
        self.inner().allmulticast()
    }
    /// Turns all-multicast mode on or off.
    ///
    /// # Errors
    /// The port has no such switch, and is not in the mode asked for.
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
    /// What the port receives, by destination and VLAN, where it filters itself; `None` where its peer or the kernel does,
    /// or nobody.
    fn rx_filter(&self) -> Option<&RxFilter> {
        self.inner().rx_filter()
    }
    /// Switches receive offloads while the port runs: those of `asked` are on then, of the ones that the port was started with. A device
    /// follows a moment later; packets that are on their way are received as they are.
    ///
    /// # Errors
    /// The port or its device cannot, or it was started without one of them: stop it, change them, and start it.
    fn set_rx_offloads(&self, asked: RxOffloads) -> Result<(), Error> {
        self.inner().set_rx_offloads(asked)
    }
    /// How the device is to spread flows over the receive queues, where it can be asked for that; `None` where it never can.
    fn rss(&self) -> Option<&Arc<Rss>> {
        self.inner().rss()
    }
    /// Totals, the sum of all queues.
    fn stats(&self) -> PortStats {
        self.inner().stats()
    }
    /// Totals of one queue pair; zeros for a queue that does not exist.
    fn queue_stats(&self, queue: u16) -> PortStats {
        self.inner().queue_stats(queue)
    }
    /// Descriptors of a queue's ring, where there is one: what the port was configured with may be more than its device or peer has.
    fn depth(&self, queue: QueueId) -> Option<u16> {
        self.inner().depth(queue)
    }
    /// How many descriptors of a queue are in use: of a receive queue, packets that wait to be received; of a transmit queue, those
    /// that its peer has not finished with. 0 while there is no peer.
    ///
    /// The queue is kept from its polling thread for a moment, as between two bursts. It costs nothing while nobody asks.
    ///
    /// # Errors
    /// The port cannot tell, or has no such queue; its peer makes its control thread wait.
    fn used_descriptors(&self, queue: QueueId) -> Result<u16, Error> {
        self.inner().used_descriptors(queue)
    }
    /// Whether a queue is started: all are when the port is, but those that [`stop_queue`](Self::stop_queue) stopped and the
    /// [deferred](crate::PortConfig::deferred) ones.
    fn queue_started(&self, queue: QueueId) -> bool {
        self.inner().queue_started(queue)
    }
    /// Starts a queue that is stopped; packets pass when this returns, if the link is up.
    ///
    /// # Errors
    /// The port cannot stop single queues, or has no such queue; its peer makes its control thread wait, or refuses.
    fn start_queue(&self, queue: QueueId) -> Result<(), Error> {
        self.inner().start_queue(queue)
    }
    /// Stops a queue; the others go on, and its thread may go on polling it. Stopped, a receive queue returns no packets and gets none
    /// of its peer, a transmit queue takes none. What was received before stays in the queue until it is started, or the port is
    /// stopped. A queue stays stopped when the peer goes and another comes.
    ///
    /// # Errors
    /// As [`start_queue`](Self::start_queue).
    fn stop_queue(&self, queue: QueueId) -> Result<(), Error> {
        self.inner().stop_queue(queue)
    }
    /// Named counters, every cause of a drop among them, in a fixed order.
    fn xstats(&self) -> Vec<(String, u64)> {
        self.inner().xstats()
    }
    /// Counts packets by size and kind of address as well (`rx_q0_size_64_packets`, `rx_q0_multicast_packets`, …: DPDK's
    /// names), or no more; what was counted is among the [`xstats`](Self::xstats). It costs work for each packet, so it is off
    /// until it is asked for. False where a port cannot.
    fn count_classes(&self, on: bool) -> bool {
        self.inner().count_classes(on)
    }
    /// Starts all totals from zero again.
    fn reset_stats(&self) {
        self.inner().reset_stats();
    }
    /// What was negotiated with the peer, for people; empty where nothing is negotiated.
    fn features(&self) -> String {
        self.inner().features()
    }
    /// The data paths in use (`rx split mergeable, tx split in-order`), for people.
    fn paths(&self) -> String {
        self.inner().paths()
    }
}
