//! Telemetry: the counters of a running program, for other programs.
//!
//! ```text
//!   control side of ports, pools, memory ──► Telemetry ──► Socket    DPDK's protocol: `dpdk-telemetry.py`, `linecard top`
//!   (any thread; pollers only count)             └───────► Endpoint  HTTP, OpenMetrics or older text: Prometheus
//! ```
//! [`serve`] and [`serve_metrics`] each enable one of them in one line. A program whose ports come and go
//! creates a [`Telemetry`] and registers them with it.
//!
//! Nothing is counted for telemetry: answers read the counters that the polling threads maintain anyway, on
//! the thread that answers. That thread sleeps four times as long as it worked, so that permanent requests
//! use at most a fifth of a core.
//!
//! Access: the socket has mode 0600 in a directory that only its user may enter; the HTTP endpoint answers
//! everyone who can connect. Both only allow reading.
#![forbid(unsafe_code)]

mod command;
mod eal;
mod error;
mod ethdev;
mod folder;
mod format;
mod http;
mod mempool;
pub mod openmetrics;
mod pace;
mod server;
mod state;
/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
mod text;
mod value;

pub use self::error::TelemetryError;
pub use self::folder::folder;
pub use self::http::Endpoint;
pub use self::server::{MAX_CLIENTS, MAX_OUTPUT, Socket};
pub use self::state::{Drops, LcoreUsage, PortEntry, Telemetry};
pub use self::value::Value;

use linecard_eal::Eal;
use linecard_mempool::Pool;
use linecard_pmd::Port;

/// The version in `/info` and in the greeting.
pub const VERSION: &str = concat!("Linecard ", env!("CARGO_PKG_VERSION"));

/// Makes started ports and pools visible to `dpdk-telemetry.py` and `linecard top`, while the returned socket
/// exists; `ports` are numbered in order. The program is found by the `--file-prefix` with which `eal` was
/// created.
///
/// A port that stops is shown as stopped. For ports that come and go, use a [`Telemetry`].
///
/// ```
/// # use linecard_eal::{Eal, EalArgs};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let prefix = format!("--file-prefix=lc-doc-telemetry-{}", std::process::id());
/// # let eal = Eal::new(&EalArgs::parse([prefix.as_str(), "--no-huge"])?.0)?;
/// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// # let domain = eal.default_domain();
/// # let context = ProbeContext::new(eal.memory().clone(), domain, std::time::Duration::ZERO);
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver]);
/// # let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let socket = linecard_telemetry::serve(&eal, &[&port], &[&pool])?;
/// assert!(socket.path().exists()); // dpdk-telemetry.py --file-prefix NAME
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The directory, the socket or its thread cannot be created.
pub fn serve(eal: &Eal, ports: &[&Port], pools: &[&Pool]) -> Result<Socket, TelemetryError> {
    Telemetry::of(eal, ports, pools).serve(&eal.memory().config().name)
}

/// Offers the counters of started ports and pools to Prometheus, at `HOST:PORT` or `unix:PATH`, while the
/// returned endpoint exists. Everyone who can connect can read them.
///
/// ```
/// # use linecard_eal::{Eal, EalArgs};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let eal = Eal::new(&EalArgs::parse(["--no-huge"])?.0)?;
/// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// let endpoint = linecard_telemetry::serve_metrics(&eal, "127.0.0.1:0", &[], &[&pool])?;
/// println!("http://{}/metrics", endpoint.address());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The address cannot be listened on.
pub fn serve_metrics(
    eal: &Eal,
    address: &str,
    ports: &[&Port],
    pools: &[&Pool],
) -> Result<Endpoint, TelemetryError> {
    Telemetry::of(eal, ports, pools).serve_metrics(address)
}
