//! Virtqueues: the ring formats of virtio 1.3, split and packed, and **both** halves of each.
//!
//! No packets and no sockets here: addresses, lengths and tokens. A frontend owns [`DriverQueue`]s in its own memory,
//! a backend [`DeviceQueue`]s in its peer's. Every word of a ring may be rewritten by the other side at any time;
//! it is read once, into a value, and checked there ([`PeerFault`]).
//!
//! | | driver half | device half |
//! |---|---|---|
//! | split | [`split::Driver`] | [`split::Device`] |
//! | packed | [`packed::Driver`] | [`packed::Device`] |
//!
//! A control queue, whose requests have readable and writable elements, has a driver half of its own: [`ControlQueue`].
//!
//! Order (IN_ORDER) and direction (WRITABLE) are const generics, chosen once when a queue starts, so that the loops
//! over a burst have no branch on configuration.

mod config;
mod control;
mod error;
pub mod event;
mod fault;
mod features;
pub mod layout;
/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(all(test, loom))]
mod loom_tests;
#[doc(hidden)]
#[cfg(all(any(test, feature = "model"), not(loom)))]
pub mod model;
pub mod net;
pub mod packed;
mod queue;
mod segments;
mod slot;
pub mod split;
mod suppression;
mod sync;
mod walk;

pub use config::{DeviceConfig, DriverConfig, IndirectTables};
pub use control::ControlQueue;
pub use error::{Error, NotLent, NotSubmitted};
pub use fault::PeerFault;
pub use features::Features;
pub use layout::{Layout, RingAddrs, RingMemory};
pub use queue::{
    Access, Buffer, Chain, Completion, DeviceMemory, DeviceQueue, DriverQueue, Element, Head, Lookahead,
    Translation, Used,
};
pub use segments::{Piece, SegList};
pub use suppression::{DeviceSuppression, Unasked};
