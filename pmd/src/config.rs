//! Configuration of a device before it is started: request, limits, errors.

use linecard_mempool::Pool;

use crate::error::Error;
use crate::offload::Offloads;
use crate::port::{Device, DeviceInfo, Port};
use crate::queue::QueueId;

/// The configuration requested for a port. A depth of 0 means the device's default.
///
/// ```
/// use linecard_pmd::PortConfig;
/// let config = PortConfig::default().rx_queues(2).tx_queues(2);
/// assert_eq!((config.rx_depth, config.mtu), (0, 1500));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortConfig {
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Descriptors of each receive ring.
    pub rx_depth: u16,
    /// Descriptors of each transmit ring.
    pub tx_depth: u16,
    /// Largest layer-3 packet, in bytes.
    pub mtu: u16,
    /// Offloads; none by default.
    pub offloads: Offloads,
    /// Queues that do not start with the port, but later by [`start_queue`](crate::PortControl::start_queue);
    /// none by default.
    pub deferred: Vec<QueueId>,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_depth: 0,
            tx_depth: 0,
            mtu: 1500,
            offloads: Offloads::default(),
            deferred: Vec::new(),
        }
    }
}

linecard_eal::setters!(PortConfig {
    rx_queues: u16,
    tx_queues: u16,
    rx_depth: u16,
    tx_depth: u16,
    mtu: u16,
    offloads: Offloads,
    deferred: impl Into<Vec<QueueId>> as into,
});

/// A device that was not started, with the reason. As an error it displays only the reason.
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
/// let device = registry.probe(&context, "net_null0")?;
/// let refused = configure(device, PortConfig::default().rx_queues(999)).err().expect("too many");
/// assert_eq!(refused.to_string(), "net_null0: 999 receive queues requested, the device has 256; ask for 1 to 256");
/// let port = configure(refused.device, PortConfig::default())?.start(&pool)?;
/// # drop(port);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StartError {
    /// The device, unchanged.
    pub device: Box<dyn Device>,
    /// The reason.
    pub error: Error,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for StartError {}

impl From<StartError> for Error {
    /// Returns the reason and closes the device.
    fn from(refused: StartError) -> Self {
        refused.error
    }
}

impl std::fmt::Debug for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartError").field("device", &self.device.name()).field("error", &self.error).finish()
    }
}

/// A device with an accepted configuration.
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
/// let configured = configure(device, PortConfig::default().rx_depth(256))?;
/// assert_eq!((configured.config().rx_depth, configured.config().tx_depth), (256, 1024));
/// let device = configured.into_device();
/// # drop((device, pool));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Configured {
    device: Box<dyn Device>,
    config: PortConfig,
}

/// Checks `config` against the limits of `device` and fills in default depths.
///
/// [`Configured`] and [`StartError`] are the two outcomes.
///
/// # Errors
/// The first limit that is exceeded, with the device.
pub fn configure(device: Box<dyn Device>, mut config: PortConfig) -> Result<Configured, StartError> {
    let info = device.info();
    for depth in [&mut config.rx_depth, &mut config.tx_depth] {
        if *depth == 0 {
            *depth = info.default_depth;
        }
    }
    match limits(&*device, &info, &config).and_then(|()| device.check(&config)) {
        Ok(()) => Ok(Configured { device, config }),
        Err(error) => Err(StartError { device, error }),
    }
}

/// Checks that `device` has as many queues as `config` requests. This is the first check of [`configure`].
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver]);
/// let device = registry.probe(&context, "net_null0")?;
/// let config = PortConfig::default().tx_queues(0);
/// assert!(linecard_pmd::config::check_queues(&*device, &config).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The device has fewer; the remedy names the device argument that provides more, if there is one.
pub fn check_queues(device: &dyn Device, config: &PortConfig) -> Result<(), Error> {
    let info = device.info();
    let check = |what, asked, max| {
        if (1..=max).contains(&asked) {
            return Ok(());
        }
        let most = device.most_queue_pairs();
        let remedy = match device.queues_argument().filter(|_| asked > max && most > max) {
            Some(key) if asked <= most => format!("add {key}={asked} to its arguments"),
            Some(key) => format!("add {key}={most} to its arguments, and ask for 1 to {most}"),
            None => format!("ask for 1 to {max}"),
        };
        Err(Error::Queues { port: device.name().into(), what, asked, max, remedy })
    };
    check("receive", config.rx_queues, info.max_rx_queues)?;
    check("transmit", config.tx_queues, info.max_tx_queues)
}

fn limits(device: &dyn Device, info: &DeviceInfo, config: &PortConfig) -> Result<(), Error> {
    let port = device.name();
    check_queues(device, config)?;
    for asked in [config.rx_depth, config.tx_depth] {
        let shape = !info.depth_power_of_two || asked.is_power_of_two();
        if !info.depth.contains(&asked) || !shape {
            return Err(Error::Depth {
                port: port.into(),
                asked,
                min: *info.depth.start(),
                max: *info.depth.end(),
                need: if info.depth_power_of_two { "a power of two" } else { "a number" },
            });
        }
    }
    if !info.mtu.contains(&config.mtu) {
        let (min, max) = (*info.mtu.start(), *info.mtu.end());
        return Err(Error::Mtu { port: port.into(), asked: config.mtu, min, max });
    }
    let rx = config.offloads.rx.difference(info.offloads.rx);
    let tx = config.offloads.tx.difference(info.offloads.tx);
    if !rx.is_empty() || !tx.is_empty() {
        return Err(Error::Unsupported {
            port: port.into(),
            what: format!("an offload: receive [{rx}], transmit [{tx}]"),
            remedy: format!(
                "ask for some of receive [{}], transmit [{}]",
                info.offloads.rx, info.offloads.tx
            ),
        });
    }
    check_deferred(device, config)
}

/// Checks that deferred queues exist and that the device can start single queues.
fn check_deferred(device: &dyn Device, config: &PortConfig) -> Result<(), Error> {
    let port = device.name();
    for queue in config.deferred.iter().copied() {
        let queues = match queue {
            QueueId::Receive(_) => config.rx_queues,
            QueueId::Transmit(_) => config.tx_queues,
        };
        if queue.index() >= queues {
            return Err(Error::NoQueue { port: port.into(), queue, queues });
        }
    }
    match config.deferred.first() {
        Some(queue) if !device.stops_queues() => Err(Error::Unsupported {
            port: port.into(),
            what: format!("a deferred start of {queue}"),
            remedy: "have it start with the port".into(),
        }),
        _ => Ok(()),
    }
}

impl Configured {
    /// The configuration that will be used, with defaults filled in.
    pub fn config(&self) -> &PortConfig {
        &self.config
    }

    /// Creates the queues with buffers from `pool` and starts traffic.
    ///
    /// # Errors
    /// The reason, with the unchanged device.
    pub fn start(self, pool: &Pool) -> Result<Port, StartError> {
        self.device.start(&self.config, pool)
    }

    /// Returns the device, not started.
    pub fn into_device(self) -> Box<dyn Device> {
        self.device
    }
}
