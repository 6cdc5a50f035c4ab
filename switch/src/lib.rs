//! A learning Ethernet switch over any ports of Linecard, and the API of its control socket.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Switch`] | ports, workers, and what is done to them while frames pass |
//! | [`fdb`] | the table of addresses that all workers share |
//! | [`frame`], [`rate`], [`rules`] | what of a frame decides, how much may pass, what a port may do |
//! | [`api`] | the control socket: types, client |
//! | [`keep`] | what a process after this one needs should this one be killed |
//! | [`metrics`] | counters as OpenMetrics text |
//! | [`server`] | the control socket: who answers |
//! | [`state`] | ports that survive a restart |
//! | [`TelemetryFeed`] | telemetry: DPDK's client, `linecard top` |
//! | [`upgrade`] | another process that goes on with everything |
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

/// For the crates that use this one and not `eal`.
#[doc(hidden)]
pub use linecard_eal::setters;
pub use switch::{MAX_PORTS, Switch, SwitchConfig};
pub use telemetry::TelemetryFeed;

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
