//! The port contract, and the drivers that are one file or folder each.
//!
//! | module | what |
//! |---|---|
//! | [`port`] | [`Driver`] → [`Device`] → [`Configured`] → [`Port`]: probe, configure, start, stop |
//! | [`config`] | what a port is asked to be, and what is refused |
//! | [`control`] | link, statistics, addresses of a started port |
//! | [`args`] | device arguments, taken by type |
//! | [`wake`] | how a thread that polls queues may sleep: armed queues, [`Adaptive`] |
//! | [`stats`] | counters that one thread writes and any reads |
//! | [`local`] | a ready control side for ports that negotiate nothing |
//! | [`netdev`] | interfaces of the kernel, in any namespace |
//! | [`registry`] | the drivers of a program |
//! | [`capture`] | copies of what passes, for another process |
//! | [`contain`](mod@contain) | a panic in a burst costs a queue, not the polling thread |
//! | [`null`], [`ring`](mod@ring), [`pcap`], [`impair`] | drivers: nowhere; a ring in this process; capture files; a bad line |
//! | [`tap`] | driver: the kernel's stack behind an interface of our own |
//! | [`af_packet`], [`af_xdp`] | drivers: an interface of the kernel, by packet sockets, by XDP sockets |
//! | `contract` | what every driver must do, as tests (feature `contract`) |
//!
//! A port from its argument to its last packet:
//! ```
//! use std::time::Duration;
//! use linecard_eal::{Memory, MemoryConfig};
//! use linecard_mempool::{Burst, Pool, PoolConfig};
//! use linecard_pmd::{PortConfig, ProbeContext, Registry, configure, null, ring};
//!
//! let memory = Memory::new(MemoryConfig::default())?;
//! let domain = memory.domain("packets")?;
//! let pool = Pool::new(&domain, PoolConfig::default())?;
//! let context = ProbeContext { memory, domain, wait: Duration::from_secs(1) };
//!
//! let registry = Registry::new(&[&null::NullDriver, &ring::RingDriver]);
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

pub mod af_packet;
pub mod af_xdp;
pub mod args;
pub mod capture;
mod chain;
pub mod config;
pub mod contain;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod control;
pub mod error;
pub mod impair;
pub mod local;
pub mod netdev;
pub mod null;
pub mod offload;
mod packet_socket;
pub mod pcap;
pub mod port;
pub mod registry;
pub mod ring;
pub mod stats;
pub mod tap;
pub mod wake;

pub use args::DevArgs;
pub use config::{Configured, PortConfig, StartError, configure};
pub use control::{Link, PortControl, PortStats};
pub use error::Error;
pub use offload::Offloads;
pub use port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
pub use registry::Registry;
pub use wake::{Adaptive, Armed};
