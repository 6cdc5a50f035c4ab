//! A CNI plugin that gives containers ports on `linecard switch`, and what belongs to it.
//!
//! The plugin speaks the versions 0.3.0 to 1.1.0 of the Container Network Interface specification. A container reaches its port
//! by an abstract Unix socket in its own network namespace, `@vport/<ifname>`: it needs no volume, no device, no capability
//! and no hugepages. The listening socket is made by the plugin, inside, and passed to the switch.
//!
//! | module | what it is |
//! |---|---|
//! | `environment`, `config` | what a runtime says, checked |
//! | `attach`, `detach` | ADD and CHECK; DEL and GC |
//! | `state` | records of attachments, so that a killed plugin leaves nothing that DEL or GC cannot undo |
//! | `kernel` | the kernel's half of a port whose address is shared |
//! | `result` | results in the layout of each version |
//! | `install` | the plugin and a network made known to runtimes |
//! | `runtime` | a small runtime: network configuration lists, plugins called in their order |
//! | [`netavark`] | the same for podman's netavark, by its plugin API |
//! | [`claim`] | ports by the Container Device Interface (CDI) |
//! | [`check`] | a test of any plugin against the specification |
#![forbid(unsafe_code)]

mod address;
mod attach;
pub mod check;
pub mod claim;
mod config;
mod detach;
mod environment;
mod error;
mod exec;
mod handover;
mod install;
mod kernel;
mod link;
pub mod netavark;
mod netns;
mod plugin;
mod result;
mod runtime;
mod sandbox;
mod state;
#[cfg(feature = "steps")]
pub mod step;
#[cfg(not(feature = "steps"))]
mod step;
mod switch;
mod version;

pub use address::{Cidr, Mac};
pub use config::{Config, MAX_CONFIG, Mode, SOCKET_DIR, STATE_DIR, SWITCH};
pub use environment::{Attachment, Command, Environment, MAX_CONTAINER_ID, MAX_IFNAME};
pub use error::{Code, Error};
pub use exec::{Answer, Run, find_plugin};
pub use handover::abstract_name;
pub use install::{Change, Install, NetworkPlan, PLUGIN};
pub use plugin::{Output, invoke};
pub use runtime::{Network, Target};
pub use sandbox::Sandbox;
pub use version::Version;

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
