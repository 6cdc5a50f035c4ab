//! The interface between applications and drivers: drivers, devices, ports, their configuration and their
//! statistics.
//!
//! | module | what |
//! |---|---|
//! | [`port`] | [`Driver`] → [`Device`] → [`Configured`] → [`Port`]: probe, configure, start, stop |
//! | [`config`] | the configuration requested for a port, and the checks on it |
//! | [`control`] | link, statistics, addresses of a started port |
//! | [`args`] | typed access to device arguments |
//! | [`pci`] | the address of a device on a PCI bus |
//! | [`direct`] | frames that are copied only once, from one peer's buffer to another's |
//! | [`wake`] | sleeping until a packet arrives: armed queues, [`Adaptive`] |
//! | [`rss`] | receive-side scaling: the headers that are hashed, and the queue for a hash |
//! | [`stats`] | counters that one thread writes and any thread reads |
//! | [`local`] | a complete control side for ports that negotiate nothing |
//! | [`registry`] | the drivers of a program |
//! | [`observer`] | reports of dropped packets: the hook for packet capture |
//! | [`contain`](mod@contain) | a panic in a burst stops one queue, not the polling thread |
//!
//! Drivers are separate crates that depend on this one. The test suite `linecard_lab::contract` defines what
//! every driver must do.
//!
//! A port from its device argument to its last packet:
//! ```
//! use std::time::Duration;
//! use linecard_eal::{Memory, MemoryConfig};
//! use linecard_mempool::{Burst, Pool, PoolConfig};
//! use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
//!
//! let memory = Memory::new(MemoryConfig::default())?;
//! let domain = memory.domain("packets")?;
//! let pool = Pool::new(&domain, PoolConfig::default())?;
//! let context = ProbeContext::new(memory, domain, Duration::from_secs(1));
//!
//! let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
//! let device = registry.probe(&context, "net_null0,size=128")?;
//! let mut port = configure(device, PortConfig::default())
//!     .and_then(|configured| configured.start(&pool))
//!     .map_err(|refused| refused.error)?;
//!
//! let mut packets = Burst::new();
//! port.rx[0].rx_burst(&mut packets);
//! port.tx[0].tx_burst(&mut packets);
//! assert_eq!(port.control.stats().obytes, 64 * 128);
//!
//! let device = port.stop(); // may be configured and started again
//! assert_eq!((device.name(), pool.stats().in_use), ("net_null0", 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod args;
pub mod config;
pub mod contain;
pub mod control;
pub mod direct;
pub mod error;
pub mod filter;
pub mod handover;
pub mod link;
pub mod local;
pub mod observer;
pub mod offload;
pub mod pci;
pub mod port;
pub mod queue;
pub mod registry;
pub mod rss;
pub mod spread;
pub mod stats;
pub mod wake;

pub use args::DevArgs;
pub use config::{Configured, PortConfig, StartError, configure};
pub use control::{Link, PortControl, PortStats};
pub use error::Error;
pub use offload::Offloads;
pub use port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
pub use queue::QueueId;
pub use registry::Registry;
pub use wake::{Adaptive, Armed};

linecard_eal::threads! {
    Port: Send, not Sync;
    dyn RxQueue: Send, not Sync;
    dyn TxQueue: Send, not Sync;
    dyn Device: Send, not Sync;
    dyn Running: Send, not Sync;
    Configured: Send, not Sync;
    dyn PortControl: Send + Sync;
    Registry: Send + Sync;
    ProbeContext: Send + Sync;
    DevArgs: Send, not Sync;
    Error: Send + Sync;
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
