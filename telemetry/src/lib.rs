//! Telemetry: the counters of a running program, for whoever may ask.
//!
//! ```text
//!   control side of ports, pools, memory ──► Telemetry ──► Socket    DPDK's protocol: `dpdk-telemetry.py`, `linecard top`
//!   (any thread; pollers only count)             └───────► Endpoint  HTTP, OpenMetrics or older text: Prometheus
//! ```
//! [`serve`] and [`serve_metrics`] switch either on in one line. A program whose ports come and go makes a [`Telemetry`]
//! and tells it what there is.
//!
//! Nothing is counted for telemetry: an answer reads counters that the polling threads write anyway, on the thread that
//! answers. That thread rests four times as long as it worked, so that whoever asks without pause gets a fifth of a core
//! at most.
//!
//! Who may ask: the socket has mode 0600 in a folder that only its user enters; the HTTP endpoint answers everybody who can
//! connect. Both only read.
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

/// What `/info` and the greeting say.
pub const VERSION: &str = concat!("Linecard ", env!("CARGO_PKG_VERSION"));

/// Lets `dpdk-telemetry.py` and `linecard top` see started ports and pools, for as long as what is returned lives;
/// `ports` are numbered as they come. The program is found by the `--file-prefix` that `eal` was made with.
///
/// A port that stops is forgotten. For ports that come and go, use a [`Telemetry`].
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
/// The folder, the socket or its thread cannot be made.
pub fn serve(eal: &Eal, ports: &[&Port], pools: &[&Pool]) -> Result<Socket, TelemetryError> {
    Telemetry::of(eal, ports, pools).serve(&eal.memory().config().name)
}

/// Offers the counters of started ports and pools to Prometheus, at `HOST:PORT` or `unix:PATH`, for as long as what is
/// returned lives. Whoever can connect there can read them.
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
/// Nobody can listen there.
pub fn serve_metrics(
    eal: &Eal,
    address: &str,
    ports: &[&Port],
    pools: &[&Pool],
) -> Result<Endpoint, TelemetryError> {
    Telemetry::of(eal, ports, pools).serve_metrics(address)
}
