//! The port contract: what a driver is, what a port is asked to be, and what it tells.
//!
//! | module | what |
//! |---|---|
//! | [`port`] | [`Driver`] → [`Device`] → [`Configured`] → [`Port`]: probe, configure, start, stop |
//! | [`config`] | what a port is asked to be, and what is refused |
//! | [`control`] | link, statistics, addresses of a started port |
//! | [`args`] | device arguments, taken by type |
//! | [`pci`] | where a device is on a PCI bus |
//! | [`direct`] | frames that are copied once, from one peer's buffer to another's |
//! | [`wake`] | how a thread that polls queues may sleep: armed queues, [`Adaptive`] |
//! | [`rss`] | receive-side scaling: what is hashed, and which queue a hash names |
//! | [`stats`] | counters that one thread writes and any reads |
//! | [`local`] | a ready control side for ports that negotiate nothing |
//! | [`registry`] | the drivers of a program |
//! | [`observer`] | who is told of packets that are dropped: the hook of a capture |
//! | [`contain`](mod@contain) | a panic in a burst costs a queue, not the polling thread |
//!
//! Drivers are crates of their own and depend on this one. What every driver must do is a suite of tests,
//! `linecard_lab::contract`.
//!
//! A port from its argument to its last packet:
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
