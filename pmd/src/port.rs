//! Drivers, devices and ports: probe → configure → start.
//!
//! ```text
//! Driver::probe(args) ─► Device ─ configure(config) ─► Configured ─ start(pool) ─► Port { rx, tx, control }
//!                          ▲                                                         │
//!                          └───────────────────────── Port::stop() ──────────────────┘
//! ```
//!
//! `configure`, [`Configured`](crate::Configured) and their errors are in [`config`](crate::config).
//! A started port has no setters that change its queues: stop it, configure it again, and start it. A queue is `Send`
//! and not shared: the thread that polls it owns it.

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

/// A kind of port, selected by the prefix of a device argument (`net_null` in `net_null0,size=64`).
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_null::NullDriver;
/// assert_eq!((NullDriver.name(), NullDriver.summary().is_empty()), ("net_null", false));
/// ```
pub trait Driver: Sync {
    /// The prefix of device names, without the instance number.
    fn name(&self) -> &'static str;
    /// One line for `--help`: a description and the arguments.
    fn summary(&self) -> &'static str;
    /// Whether this driver opens devices that are named by their [address](crate::pci::PciAddress) on a PCI bus.
    fn drives_pci(&self) -> bool {
        false
    }
    /// Whether a transmit queue may keep packets after a burst: until the peer returns them or the device has sent
    /// them. `false` for a driver that copies packets within the burst.
    fn keeps_packets(&self) -> bool {
        true
    }
    /// Checks `args` as [`probe`](Self::probe) does without opening anything: every key is known, every value is
    /// possible, and none is missing. Problems that only show on the device or the machine (no listener at a path, a
    /// missing interface) are left to `probe`. The default accepts everything.
    ///
    /// # Errors
    /// The errors of `probe` about arguments.
    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        let _ = args;
        Ok(())
    }
    /// Opens the device that `args` names; no packets move yet.
    ///
    /// # Errors
    /// Unknown or malformed arguments, or a device that cannot be opened. Nothing remains open.
    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error>;
    /// Opens the device that `args` names with the state that a predecessor in another process [holds](HandOver::hold). The
    /// started port moves no packets before it [begins](HandOver::begin). Dropped before that, it leaves no trace.
    ///
    /// # Errors
    /// The handed-over state cannot be read or used, or this driver does not support a handover. Nothing remains open.
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

/// The resources that a driver may use while it probes.
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
    /// The domain that packets come from if a driver has to choose one. A driver allocates other memory that it shares
    /// with its peer separately ([`Memory::separate`]), so that no other port's peer can see it.
    pub domain: Arc<Domain>,
    /// The maximum time to wait for a peer's answer.
    pub wait: Duration,
}

impl ProbeContext {
    /// Creates a context of memory, a domain for packets, and the maximum time to wait for a peer.
    #[must_use]
    pub fn new(memory: Memory, domain: Arc<Domain>, wait: Duration) -> Self {
        Self { memory, domain, wait }
    }
}

linecard_eal::setters!(ProbeContext {
    domain: Arc<Domain>,
    wait: Duration,
});

/// The identity and the limits of a device.
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
    /// The smallest and largest ring size, in descriptors.
    pub depth: std::ops::RangeInclusive<u16>,
    /// Whether ring sizes must be powers of two.
    pub depth_power_of_two: bool,
    /// The ring size used if the configuration says 0.
    pub default_depth: u16,
    /// Smallest and largest MTU, in bytes.
    pub mtu: std::ops::RangeInclusive<u16>,
    /// The device's initial MAC address.
    pub mac: [u8; 6],
    /// Offloads that a configuration may request.
    pub offloads: Offloads,
}

impl DeviceInfo {
    /// A device of `driver` with the address `mac` and these defaults: one queue each way, rings of any size, 512
    /// descriptors by default, an MTU of 68 to 1500 bytes, and the offloads that cost nothing ([`Offloads::FREE`]).
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

/// An opened device that does not move packets yet. `Send`; do not rely on `Sync`.
///
/// It has no queues to poll. [`configure`](crate::configure) and [`start`](crate::Configured::start) turn it into a
/// [`Port`], which consumes the device:
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
    /// The device argument that provides more queue pairs than [`info`](Self::info) reports, if any.
    fn queues_argument(&self) -> Option<&'static str> {
        None
    }
    /// The most queue pairs that [`queues_argument`](Self::queues_argument) can provide. Default: no limit.
    fn most_queue_pairs(&self) -> u16 {
        u16::MAX
    }
    /// Whether single queues of the port can be [stopped](PortControl::stop_queue) and started.
    fn stops_queues(&self) -> bool {
        false
    }
    /// Checks `config` against limits that [`DeviceInfo`] does not express.
    ///
    /// # Errors
    /// The first limit that `config` exceeds, with the requested and the allowed value.
    fn check(&self, config: &PortConfig) -> Result<(), Error> {
        let _ = config;
        Ok(())
    }
    /// Creates the queues and starts traffic. Applications call this through [`configure`](crate::configure).
    ///
    /// # Errors
    /// The reason, with the unchanged device.
    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError>;
}

/// A started port: queues for polling threads, and a control side.
///
/// `Send`, but not `Sync`: one thread at a time uses a port or a queue. Threads share [`control`](Self::control).
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
/// A stopped port and its queues no longer exist:
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
    /// Turns this port back into a device.
    pub running: Box<dyn Running>,
}

impl Port {
    /// Stops the port; packets in its rings return to their pools.
    ///
    /// Put queues that were handed to threads back into `rx` and `tx` first. The packets of a missing queue return only
    /// when its thread drops it.
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
    /// Access to the handover of the port to another process while its peer stays connected; `None` for a device that
    /// must be reopened there.
    fn hand_over(&self) -> Option<&dyn HandOver> {
        None
    }
    /// Takes back the queues, stops the device, and returns it ready for another configuration.
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device>;
}

/// One receive queue, owned by the thread that polls it. `Send`; do not rely on `Sync`.
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
    /// Appends received packets to `packets`, at most `packets.room()`, and returns their number.
    ///
    /// Never blocks. A queue whose peer violated the protocol stops and returns 0 from then on.
    fn rx_burst(&mut self, packets: &mut Burst) -> usize;
    /// Receives as [`rx_burst`](Self::rx_burst) does, but may first pass the frames to `sink` in the sender's buffers; see
    /// [`direct`](crate::direct). Returns the number of frames received, including those that `sink` handled.
    ///
    /// `sink` is called at most once. The frames that it did not handle are then appended to `packets`, in order. The
    /// sender gets no buffer back before `sink` has returned.
    ///
    /// The default never calls `sink`.
    fn rx_direct(&mut self, packets: &mut Burst, sink: &mut Sink<'_>) -> usize {
        let _ = sink;
        self.rx_burst(packets)
    }
    /// The name of the data path chosen at start (`split mergeable`), for display.
    fn path(&self) -> &'static str;
    /// Requests a wake-up when packets arrive, and checks whether some have already arrived; see [`wake`](crate::wake).
    ///
    /// Never blocks. The default is for a queue that must be polled.
    fn arm(&mut self) -> Armed {
        Armed::Unable
    }
    /// Creates what [`arm`](Self::arm) needs: descriptors, and for some drivers a thread. Call it before the queue is
    /// given to the thread that polls it; otherwise the first `arm` does this.
    fn prepare_arm(&mut self) {}
    /// The first half of [`arm`](Self::arm), for a thread that arms several queues: requests the wake-up. Returns
    /// whether a [fence](linecard_eal::wake::fence) has to follow, one for all queues, before
    /// [`finish_arm`](Self::finish_arm); without it, a wake-up may be lost.
    ///
    /// The default does nothing, and leaves everything to `finish_arm`.
    fn begin_arm(&mut self) -> bool {
        false
    }
    /// The second half of [`arm`](Self::arm), after [`begin_arm`](Self::begin_arm) and the fence: checks whether
    /// packets have already arrived. The default is a complete [`arm`](Self::arm).
    fn finish_arm(&mut self) -> Armed {
        self.arm()
    }
    /// Withdraws the request for a wake-up. Call it after waking: until then the peer continues to signal.
    fn disarm(&mut self) {}
    /// The descriptor to wait on for reading while the queue is armed. It exists from the first [`Armed::Asleep`] on
    /// and stays the same for the lifetime of the queue.
    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// One transmit queue, owned by the thread that fills it. `Send`; do not rely on `Sync`.
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
    /// Takes packets from the front of `packets` and returns their number. Packets that do not fit stay.
    ///
    /// Never blocks. Packets that can never be sent (too long, for example) are taken, dropped and counted.
    fn tx_burst(&mut self, packets: &mut Burst) -> usize;
    /// Sends from the front of `frames`, as [`tx_burst`](Self::tx_burst) would if they were packets; see
    /// [`direct`](crate::direct). Returns how many were taken; the others have no room. `None` if this queue currently
    /// takes packets only.
    ///
    /// The default takes packets only.
    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        let _ = frames;
        None
    }
    /// Finishes work that earlier bursts deferred, such as returning completed packets to their pool.
    fn reclaim(&mut self) {}
    /// For applications: reports that `packets`, meant for this queue, are about to be dropped, and why. This only
    /// informs a packet capture; see [`observer`](crate::observer).
    fn note_dropped(&mut self, packets: &[Packet], cause: &str) {
        let _ = (packets, cause);
    }
    /// For queues that lose packets on another thread: `true` before each burst while the queue is captured, and
    /// `false` once when the capture ends. The queue reports packets [`lost`](crate::observer::lost) since the last
    /// call; a queue that was never watched need not record them.
    fn watched(&mut self, on: bool) {
        let _ = on;
    }
    /// The name of the data path chosen at start (`split in-order`), for display.
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

    fn prepare_arm(&mut self) {
        (**self).prepare_arm();
    }

    fn begin_arm(&mut self) -> bool {
        (**self).begin_arm()
    }

    fn finish_arm(&mut self) -> Armed {
        (**self).finish_arm()
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
