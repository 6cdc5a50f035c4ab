//! The machine under a packet processor: memory to share with peers, cores, clock, arguments.
//!
//! | module | what is in it |
//! |---|---|
//! | [`memory`] | [`Memory`] → [`Domain`] → [`Segment`] → [`Zone`]: sealed memfds in one address range, the best pages there are |
//! | [`shared`] | [`Shared`], [`SharedSlice`], [`SharedBytes`]: the only way to touch memory a peer may write |
//! | [`cores`] | [`LcoreMap`] in EAL's grammar, [`Workers`] that poll on lcores |
//! | [`clock`] | [`Clock`]: cycles and what they mean in time |
//! | [`gate`] | what a polling and a control thread use in turn, without a lock |
//! | [`quiescence`] | when a polling thread has left what changed under it |
//! | [`notifier`] | eventfds that a peer may make slow |
//! | [`helper`] | where a port's work is done that nobody else may wait for |
//! | [`eventfd`] | signals to a peer that may be hostile |
//! | [`wake`] | how a thread that polls may sleep, and who wakes it |
//! | [`random`] | numbers that follow from a seed |
//! | [`runtime`] | where control sockets lie |
//! | [`inherited`] | descriptors that were passed to this process when it was started |
//! | [`args`], [`log`] | EAL's command line, and `--log-level` for `tracing` |
//!
//! An [`Eal`] holds them together. There are no globals: two of everything may live in one process, and dropping the last
//! handle gives everything back. Root and hugepages are used where present and never needed.
//!
//! Linux on 64-bit machines. Not here: secondary processes, PCI, service cores, physical addresses.
//!
//! `unsafe` is in `sys/` (system calls), `shared.rs` (cells), `memory/map.rs` (mappings), `gate.rs`, and the promise of
//! [`Zone::bytes`].

pub mod args;
pub mod clock;
pub mod cores;
mod eal;
mod error;
pub mod eventfd;
pub mod gate;
#[cfg(all(test, not(loom)))]
mod gate_tests;
pub mod helper;
pub mod inherited;
pub mod log;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod memory;
pub mod notifier;
pub mod quiescence;
pub mod random;
pub mod runtime;
mod setters;
pub mod shared;
mod sync;
mod sys;
mod threads;
pub mod wake;

pub use args::EalArgs;
pub use clock::Clock;
pub use cores::{CoreId, Lcore, LcoreId, LcoreMap, Stop, Workers};
pub use eal::{Eal, EalConfig};
pub use error::{Error, Result};
pub use memory::{
    Domain, Memory, MemoryConfig, PageKind, PagePolicy, PrivateZone, Segment, SegmentEvent, Subscription,
    Usage, Zone,
};
pub use shared::{Shared, SharedBytes, SharedSlice};

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
