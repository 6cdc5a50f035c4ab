//! The port contract: probe → configure → start, and what a started port is made of.
//!
//! ```text
//! Driver::probe(args) ─► Device ─ configure(config) ─► Configured ─ start(pool) ─► Port { rx, tx, control }
//!                          ▲                                                         │
//!                          └───────────────────────── Port::stop() ──────────────────┘
//! ```
//!
//! `configure`, [`Configured`](crate::Configured) and their errors are in [`config`](crate::config).
//! A started port has no setters that change its shape: stop it, configure it anew, start it.
//! Queues are `Send` and not shared: the thread that polls a queue owns it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use linecard_eal::memory::{Domain, Memory};
use linecard_mempool::{Burst, Packet, Pool};

use crate::args::DevArgs;
use crate::config::{PortConfig, StartError};
use crate::control::PortControl;
use crate::direct::{Frame, Sink};
use crate::error::Error;
use crate::handover::{HandOver, HandedOver};
use crate::offload::Offloads;
use crate::wake::Armed;

/// A kind of port, found by the prefix of a device argument (`net_null` in `net_null0,size=64`).
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_null::NullDriver;
/// assert_eq!((NullDriver.name(), NullDriver.summary().is_empty()), ("net_null", false));
/// ```
pub trait Driver: Sync {
    /// The name that device arguments start with, without the instance number.
    fn name(&self) -> &'static str;
    /// One line for `--help`: what it is, and its arguments.
    fn summary(&self) -> &'static str;
    /// Whether a device that is named by its [address](crate::pci::PciAddress) on a PCI bus is this driver's.
    fn drives_pci(&self) -> bool {
        false
    }
    /// Whether a transmit queue may keep packets after a burst, as long as its peer likes or until the device has sent them.
    /// One that copies them out within the burst says `false`.
    fn keeps_packets(&self) -> bool {
        true
    }
    /// Looks at `args` as [`probe`](Self::probe) does, and opens nothing: whether every key is known, every value possible, and
    /// none missing. What only the device or the machine can tell (nobody listens at a path, an interface is not there) is left to
    /// `probe`. The default finds nothing wrong.
    ///
    /// # Errors
    /// As those of `probe` about arguments.
    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        let _ = args;
        Ok(())
    }
    /// Opens the device that `args` names; nothing moves yet.
    ///
    /// # Errors
    /// Unknown or malformed arguments, or a device that cannot be opened; nothing is left behind.
    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error>;
    /// Opens the device that `args` names with what a predecessor in another process [holds](HandOver::hold) of it. Started,
    /// it moves no packets before it [begins](HandOver::begin); dropped before that, it leaves no trace.
    ///
    /// # Errors
    /// What was handed over cannot be read or served, or this driver takes nothing over; nothing is left behind.
    fn succeed(
        &self,
        context: &ProbeContext,
        args: &DevArgs,
        handed: HandedOver,
    ) -> Result<Box<dyn Device>, Error> {
        let _ = (context, handed);
        Err(Error::Unsupported {
            port: args.name().into(),
            what: format!("taking a device of {} over from another process", self.name()),
            remedy: "open it anew".into(),
        })
    }
}

/// What a driver may use while it probes.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
/// use linecard_pmd::ProbeContext;
/// let memory = Memory::new(MemoryConfig::default())?;
/// let domain = memory.domain("packets")?;
/// let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// assert_eq!(context.domain.name(), "packets");
/// # Ok::<(), linecard_eal::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ProbeContext {
    /// The memory of this process's framework instance.
    pub memory: Memory,
    /// The domain that packets come from where a driver has to choose. What a driver shares with its peer besides packets
    /// it keeps apart ([`Memory::separate`]), so that no other port's peer gets to see it.
    pub domain: Arc<Domain>,
    /// How long probing may wait for a peer to answer.
    pub wait: Duration,
}

impl ProbeContext {
    /// Memory, the domain for packets, and how long to wait for a peer.
    #[must_use]
    pub fn new(memory: Memory, domain: Arc<Domain>, wait: Duration) -> Self {
        Self { memory, domain, wait }
    }
}

linecard_eal::setters!(ProbeContext {
    domain: Arc<Domain>,
    wait: Duration,
});

/// What a device can do, and what it is.
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
/// let info = registry.probe(&context, "net_ring0")?.info();
/// assert_eq!((info.driver, info.default_depth), ("net_ring", 1024));
/// assert!(info.depth.contains(&1) && !info.depth_power_of_two);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Driver name (`net_virtio_user`).
    pub driver: &'static str,
    /// Most receive queues that `start` accepts.
    pub max_rx_queues: u16,
    /// Most transmit queues that `start` accepts.
    pub max_tx_queues: u16,
    /// Smallest and largest ring, in descriptors.
    pub depth: std::ops::RangeInclusive<u16>,
    /// Ring sizes must be powers of two.
    pub depth_power_of_two: bool,
    /// Ring size used where the configuration says 0.
    pub default_depth: u16,
    /// Smallest and largest MTU, in bytes.
    pub mtu: std::ops::RangeInclusive<u16>,
    /// The address the device came with.
    pub mac: [u8; 6],
    /// Offloads that may be asked for.
    pub offloads: Offloads,
}

impl DeviceInfo {
    /// A device of `driver` with the address `mac`: one queue each way, rings of any size, 512 descriptors unless asked
    /// otherwise, an MTU of 68 to 1500 bytes, and the offloads that cost nothing ([`Offloads::FREE`]).
    #[must_use]
    pub fn new(driver: &'static str, mac: [u8; 6]) -> Self {
        Self {
            driver,
            max_rx_queues: 1,
            max_tx_queues: 1,
            depth: 1..=u16::MAX,
            depth_power_of_two: false,
            default_depth: 512,
            mtu: 68..=1500,
            mac,
            offloads: Offloads::FREE,
        }
    }
}

linecard_eal::setters!(DeviceInfo {
    driver: &'static str,
    max_rx_queues: u16,
    max_tx_queues: u16,
    depth: std::ops::RangeInclusive<u16>,
    depth_power_of_two: bool,
    default_depth: u16,
    mtu: std::ops::RangeInclusive<u16>,
    mac: [u8; 6],
    offloads: Offloads,
});

/// An opened device that does not move packets yet. `Send`, and not to be relied on as `Sync`.
///
/// It has no queues to poll; [`configure`](crate::configure) and [`start`](crate::Configured::start) turn it into a [`Port`], and a
/// started port is no device any more:
///
/// ```compile_fail,E0382
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
/// let device = registry.probe(&context, "net_null0")?;
/// let port = configure(device, PortConfig::default())?.start(&pool)?;
/// device.info(); // moved into the port
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Device: Send {
    /// The instance name (`net_virtio_user0`).
    fn name(&self) -> &str;
    /// Limits and identity.
    fn info(&self) -> DeviceInfo;
    /// The device argument that would give it more queue pairs than [`info`](Self::info) tells, if there is one.
    fn queues_argument(&self) -> Option<&'static str> {
        None
    }
    /// Whether single queues of the port can be [stopped](PortControl::stop_queue) and started.
    fn stops_queues(&self) -> bool {
        false
    }
    /// Whether `config` would be accepted, beyond what [`DeviceInfo`] already says.
    ///
    /// # Errors
    /// The first limit that `config` breaks, with what was asked and what is allowed.
    fn check(&self, config: &PortConfig) -> Result<(), Error> {
        let _ = config;
        Ok(())
    }
    /// Makes the queues and lets traffic flow. Use [`configure`](crate::configure) to get here.
    ///
    /// # Errors
    /// The device comes back with the reason, unchanged.
    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError>;
}

/// A started port: queues to hand to polling threads, and the control side that stays.
///
/// `Send`, but not `Sync`: a port is one thread's at a time, and so is each queue. What threads share is
/// [`control`](Self::control).
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
/// let device = registry.probe(&context, "net_ring0")?;
/// let mut port = configure(device, PortConfig::default())?.start(&pool)?;
///
/// let (mut rx, mut tx) = (port.rx.remove(0), port.tx.remove(0));
/// let worker = std::thread::spawn(move || {
///     let mut packets = Burst::new();
///     rx.rx_burst(&mut packets);
///     tx.tx_burst(&mut packets); // what does not fit stays in `packets`
///     (rx, tx)
/// });
/// assert_eq!(port.control.link().up, true); // meanwhile, from here
///
/// let (rx, tx) = worker.join().expect("the worker ends");
/// port.rx.push(rx);
/// port.tx.push(tx);
/// let device = port.stop();
/// assert_eq!(device.name(), "net_ring0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A stopped port is gone, its queues with it:
///
/// ```compile_fail,E0382
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
/// let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let device = port.stop();
/// port.rx[0].rx_burst(&mut Burst::new()); // `port` was moved
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Port {
    /// Receive queues; index = queue number.
    pub rx: Vec<Box<dyn RxQueue>>,
    /// Transmit queues; index = queue number.
    pub tx: Vec<Box<dyn TxQueue>>,
    /// Statistics, link, addresses; usable from any thread while queues are polled elsewhere.
    pub control: Arc<dyn PortControl>,
    /// What turns this port back into a device.
    pub running: Box<dyn Running>,
}

impl Port {
    /// Stops the port; packets that its rings held go back to their pools.
    ///
    /// Queues that were handed to threads must be back in `rx` and `tx`; a missing queue is only a
    /// queue whose packets return when its thread drops it.
    pub fn stop(self) -> Box<dyn Device> {
        let Self { rx, tx, control, running } = self;
        drop(control);
        running.stop(rx, tx)
    }
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port")
            .field("name", &self.control.name())
            .field("rx", &self.rx.len())
            .field("tx", &self.tx.len())
            .finish()
    }
}

/// The part of a driver that stops a started port; called by [`Port::stop`].
///
/// ```
/// use linecard_pmd::{Device, Running, RxQueue, TxQueue};
/// /// A driver whose device needs nothing but to come back.
/// struct Started(Box<dyn Device>);
/// impl Running for Started {
///     fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
///         drop((rx, tx)); // frees what the rings held
///         self.0
///     }
/// }
/// ```
pub trait Running: Send {
    /// How the port goes to another process with its peer connected; `None` for a device that has to be opened there anew.
    fn hand_over(&self) -> Option<&dyn HandOver> {
        None
    }
    /// Takes the queues home, stops the device, returns it ready for another configuration.
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device>;
}

/// One receive queue, owned by the thread that polls it: `Send`, and not to be relied on as `Sync`.
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
/// let mut port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let mut packets = Burst::new();
/// let count = port.rx[0].rx_burst(&mut packets);
/// assert_eq!((count, packets.len()), (64, 64));
/// assert_eq!(port.rx[0].rx_burst(&mut packets), 0); // no room left
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait RxQueue: Send {
    /// Appends received packets to `packets`, at most `packets.room()`; returns how many.
    ///
    /// Never blocks. A peer that broke the rules stops this queue, which then returns 0 for ever.
    fn rx_burst(&mut self, packets: &mut Burst) -> usize;
    /// Receives as [`rx_burst`](Self::rx_burst) does, but may show the frames to `sink` while they still lie in their sender's
    /// buffers; see [`direct`](crate::direct). Returns how many frames came, those included with which `sink` dealt.
    ///
    /// `sink` is called once at most. If it was, what is appended to `packets` are the frames with which it did not deal, in
    /// their order. The sender gets no buffer back before `sink` returned.
    ///
    /// The default shows nothing.
    fn rx_direct(&mut self, packets: &mut Burst, sink: &mut Sink<'_>) -> usize {
        let _ = sink;
        self.rx_burst(packets)
    }
    /// The data path chosen at start, for people (`split mergeable`).
    fn path(&self) -> &'static str;
    /// Asks for a wake-up when packets come, and looks whether some are there already; see [`wake`](crate::wake).
    ///
    /// Never blocks. The default is a queue that has to be polled.
    fn arm(&mut self) -> Armed {
        Armed::Unable
    }
    /// Asks for no wake-up any more. Call it when you wake: until then a peer goes on signalling.
    fn disarm(&mut self) {}
    /// What to wait for reading on while the queue is armed: there is one from the first
    /// [`Armed::Asleep`] on, and it stays the same as long as the queue exists.
    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// One transmit queue, owned by the thread that fills it: `Send`, and not to be relied on as `Sync`.
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
/// let config = PortConfig::default().rx_depth(10).tx_depth(10);
/// let mut port = configure(registry.probe(&context, "net_ring0")?, config)?.start(&pool)?;
/// let mut packets = Burst::new();
/// pool.get_bulk(&mut packets, 16)?;
/// assert_eq!(port.tx[0].tx_burst(&mut packets), 10);
/// assert_eq!(packets.clear(), 6); // dropped by us, and ours to count
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait TxQueue: Send {
    /// Takes packets from the front of `packets`; returns how many. What did not fit stays.
    ///
    /// Never blocks. Packets that can never be sent (too long, say) are taken, dropped and counted.
    fn tx_burst(&mut self, packets: &mut Burst) -> usize;
    /// Sends from the front of `frames`, as [`tx_burst`](Self::tx_burst) would if they were packets; see
    /// [`direct`](crate::direct). Returns how many were taken; for the others there is no room. `None` when this queue takes
    /// packets only, at this moment.
    ///
    /// The default takes packets only.
    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        let _ = frames;
        None
    }
    /// Finishes what earlier bursts left to do (completed packets return to their pool).
    fn reclaim(&mut self) {}
    /// For applications: these packets, meant for this queue, are about to be dropped, for this reason. Does nothing
    /// but tell whoever captures; see [`observer`](crate::observer).
    fn note_dropped(&mut self, packets: &[Packet], cause: &str) {
        let _ = (packets, cause);
    }
    /// For queues that lose packets on another thread: somebody captures this queue (`true`, before each burst), or no
    /// longer does (`false`, once). Now is the time to tell what was [`lost`](crate::observer::lost) since; a queue that
    /// never was watched need not keep it.
    fn watched(&mut self, on: bool) {
        let _ = on;
    }
    /// The data path chosen at start, for people (`split in-order`).
    fn path(&self) -> &'static str;
}

impl<Q: RxQueue + ?Sized> RxQueue for Box<Q> {
    #[inline(always)]
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        (**self).rx_burst(packets)
    }

    #[inline(always)]
    fn rx_direct(&mut self, packets: &mut Burst, sink: &mut Sink<'_>) -> usize {
        (**self).rx_direct(packets, sink)
    }

    fn path(&self) -> &'static str {
        (**self).path()
    }

    fn arm(&mut self) -> Armed {
        (**self).arm()
    }

    fn disarm(&mut self) {
        (**self).disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        (**self).event()
    }
}

impl<Q: TxQueue + ?Sized> TxQueue for Box<Q> {
    #[inline(always)]
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        (**self).tx_burst(packets)
    }

    #[inline(always)]
    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        (**self).tx_direct(frames)
    }

    #[inline(always)]
    fn reclaim(&mut self) {
        (**self).reclaim();
    }

    fn note_dropped(&mut self, packets: &[Packet], cause: &str) {
        (**self).note_dropped(packets, cause);
    }

    fn watched(&mut self, on: bool) {
        (**self).watched(on);
    }

    fn path(&self) -> &'static str {
        (**self).path()
    }
}
