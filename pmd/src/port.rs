//! The port contract: probe → configure → start, and what a started port is made of.
//!
//! ```text
//! Driver::probe(args) ─► Device ─ configure(config) ─► Configured ─ start(pool) ─► Port { rx, tx, control }
//!                          ▲                                                         │
//!                          └───────────────────────── Port::stop() ──────────────────┘
//! ```
//!
//! A started port has no setters that change its shape: stop it, configure it anew, start it.
//! Queues are `Send` and not shared: the thread that polls a queue owns it.

use std::sync::Arc;
use std::time::Duration;

use linecard_eal::memory::{Domain, Memory};
use linecard_mempool::{Burst, Pool};

use crate::args::DevArgs;
use crate::control::PortControl;
use crate::error::Error;

/// A kind of port, found by the prefix of a device argument (`net_null` in `net_null0,size=64`).
pub trait Driver: Sync {
    /// The name that device arguments start with, without the instance number.
    fn name(&self) -> &'static str;
    /// One line for `--help`: what it is, and its arguments.
    fn summary(&self) -> &'static str;
    /// Opens the device that `args` names; nothing moves yet.
    ///
    /// # Errors
    /// Unknown or malformed arguments, or a device that cannot be opened; nothing is left behind.
    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error>;
}

/// What a driver may use while it probes.
#[derive(Clone)]
pub struct ProbeContext {
    /// The memory of this process's framework instance.
    pub memory: Memory,
    /// The domain that packets and rings of this port come from, and all that a peer gets to see.
    pub domain: Arc<Domain>,
    /// How long probing may wait for a peer to answer.
    pub wait: Duration,
}

/// What a device can do, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// What the user asks of a port. Zero in a depth means "the device's default".
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl Default for PortConfig {
    fn default() -> Self {
        Self { rx_queues: 1, tx_queues: 1, rx_depth: 0, tx_depth: 0, mtu: 1500 }
    }
}

/// An opened device that does not move packets yet.
pub trait Device: Send {
    /// The instance name (`net_virtio_user0`).
    fn name(&self) -> &str;
    /// Limits and identity.
    fn info(&self) -> DeviceInfo;
    /// Whether `config` would be accepted, beyond what [`DeviceInfo`] already says.
    ///
    /// # Errors
    /// The first limit that `config` breaks, with what was asked and what is allowed.
    fn check(&self, config: &PortConfig) -> Result<(), Error> {
        let _ = config;
        Ok(())
    }
    /// Makes the queues and lets traffic flow. Use [`configure`] to get here.
    ///
    /// # Errors
    /// The device comes back with the reason, unchanged.
    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError>;
}

/// A device that did not start, handed back with the reason.
pub struct StartError {
    /// The device, as it was.
    pub device: Box<dyn Device>,
    /// Why.
    pub error: Error,
}

impl std::fmt::Debug for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartError").field("device", &self.device.name()).field("error", &self.error).finish()
    }
}

/// A device with an accepted configuration.
pub struct Configured {
    device: Box<dyn Device>,
    config: PortConfig,
}

/// Checks `config` against what `device` allows, filling in default depths.
///
/// # Errors
/// The device comes back with the first limit that is broken.
pub fn configure(device: Box<dyn Device>, mut config: PortConfig) -> Result<Configured, StartError> {
    let info = device.info();
    for depth in [&mut config.rx_depth, &mut config.tx_depth] {
        if *depth == 0 {
            *depth = info.default_depth;
        }
    }
    match limits(device.name(), &info, &config).and_then(|()| device.check(&config)) {
        Ok(()) => Ok(Configured { device, config }),
        Err(error) => Err(StartError { device, error }),
    }
}

fn limits(port: &str, info: &DeviceInfo, config: &PortConfig) -> Result<(), Error> {
    let queues = |what, asked, max| match asked {
        0 => Err(Error::Queues { port: port.into(), what, asked, max }),
        n if n > max => Err(Error::Queues { port: port.into(), what, asked, max }),
        _ => Ok(()),
    };
    queues("receive", config.rx_queues, info.max_rx_queues)?;
    queues("transmit", config.tx_queues, info.max_tx_queues)?;
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
    Ok(())
}

impl Configured {
    /// The configuration as it will be used, defaults filled in.
    pub fn config(&self) -> &PortConfig {
        &self.config
    }

    /// Makes the queues from `pool` and lets traffic flow.
    ///
    /// # Errors
    /// The device comes back with the reason, unchanged.
    pub fn start(self, pool: &Pool) -> Result<Port, StartError> {
        self.device.start(&self.config, pool)
    }

    /// The device again, not started.
    pub fn into_device(self) -> Box<dyn Device> {
        self.device
    }
}

/// A started port: queues to hand to polling threads, and the control side that stays.
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

/// The part of a driver that stops a started port.
pub trait Running: Send {
    /// Takes the queues home, stops the device, returns it ready for another configuration.
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device>;
}

/// One receive queue, owned by the thread that polls it.
pub trait RxQueue: Send {
    /// Appends received packets to `packets`, at most `packets.room()`; returns how many.
    ///
    /// Never blocks. A peer that broke the rules stops this queue, which then returns 0 for ever.
    fn rx_burst(&mut self, packets: &mut Burst) -> usize;
    /// The data path chosen at start, for people (`split mergeable`).
    fn path(&self) -> &'static str;
}

/// One transmit queue, owned by the thread that fills it.
pub trait TxQueue: Send {
    /// Takes packets from the front of `packets`; returns how many. What did not fit stays.
    ///
    /// Never blocks. Packets that can never be sent (too long, say) are taken, dropped and counted.
    fn tx_burst(&mut self, packets: &mut Burst) -> usize;
    /// Finishes what earlier bursts left to do (completed packets return to their pool).
    fn reclaim(&mut self) {}
    /// The data path chosen at start, for people (`split in-order`).
    fn path(&self) -> &'static str;
}
