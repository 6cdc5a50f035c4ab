//! A learning Ethernet switch over any Linecard ports, and the API of its control socket.
//!
//! | module | contents |
//! |---|---|
//! | [`Switch`] | the ports and workers, and the operations on them while frames pass |
//! | [`fdb`] | the table of addresses that all workers share |
//! | [`frame`], [`rate`], [`rules`] | the header fields that decide, rate limits, the rules of a port |
//! | [`api`] | the control socket: types, client |
//! | [`keep`] | the state that the next process needs if this one is killed |
//! | [`metrics`] | counters as OpenMetrics text |
//! | [`server`] | the control socket: server |
//! | [`state`] | ports that survive a restart |
//! | [`TelemetryFeed`] | telemetry: DPDK's client, `linecard top` |
//! | [`upgrade`] | a second process that takes over everything |
#![forbid(unsafe_code)]

mod addresses;
pub mod api;
mod attach;
mod balance;
mod direct;
pub mod fdb;
mod forward;
#[cfg(any(test, feature = "model"))]
pub mod forwarder;
pub mod frame;
mod guard;
pub mod keep;
mod lanes;
pub mod metrics;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod neighbours;
mod opening;
mod origin;
mod placement;
mod port;
pub mod rate;
mod relations;
pub mod rules;
pub mod server;
mod share;
mod span;
pub mod state;
mod switch;
mod telemetry;
mod trace;
pub mod upgrade;
mod usage;
mod worker;

/// For crates that depend on this one but not on `eal`.
#[doc(hidden)]
pub use linecard_eal::setters;
pub use switch::{MAX_PORTS, Switch, SwitchConfig};
pub use telemetry::TelemetryFeed;

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
