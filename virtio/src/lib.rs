//! Virtqueues: the split and packed ring formats of virtio 1.3, with **both** the driver half and the device
//! half of each.
//!
//! This crate handles addresses, lengths and tokens, but no packets and no sockets. A frontend has
//! [`DriverQueue`]s in its own memory, a backend has [`DeviceQueue`]s in its peer's memory. The other side
//! may rewrite any word of a ring at any time, so each word is read once, into a value, and checked
//! ([`PeerFault`]).
//!
//! | | driver half | device half |
//! |---|---|---|
//! | split | [`split::Driver`] | [`split::Device`] |
//! | packed | [`packed::Driver`] | [`packed::Device`] |
//!
//! A control queue, whose requests have readable and writable elements, has its own driver half:
//! [`ControlQueue`].
//!
//! In-order use (IN_ORDER) and direction (WRITABLE) are const generics, selected when a queue starts, so that
//! the loops over a burst have no branches on configuration.

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
