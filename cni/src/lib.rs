//! A CNI plugin that gives containers ports on `linecard switch`, and related tools.
//!
//! The plugin implements versions 0.3.0 to 1.1.0 of the Container Network Interface specification. A
//! container reaches its port through an abstract Unix socket in its own network namespace,
//! `@vport/<ifname>`: it needs no volume, device, capability or hugepages. The plugin creates the listening
//! socket inside the namespace and passes it to the switch.
//!
//! | module | contents |
//! |---|---|
//! | `environment`, `config` | the input of a runtime, checked |
//! | `attach`, `detach` | ADD and CHECK; DEL and GC |
//! | `state` | records of attachments, so that DEL or GC can undo everything that a killed plugin did |
//! | `kernel` | the kernel's half of a port whose address is shared |
//! | `result` | results in the layout of each version |
//! | `install` | installation of the plugin and a network for runtimes |
//! | `runtime` | a small runtime: network configuration lists, plugins called in order |
//! | [`netavark`] | the same for podman's netavark, through its plugin API |
//! | [`claim`] | ports through the Container Device Interface (CDI) |
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
