//! The environment of a packet processor: memory shared with peers, cores, clock, arguments.
//!
//! | module | content |
//! |---|---|
//! | [`memory`] | [`Memory`] → [`Domain`] → [`Segment`] → [`Zone`]: sealed memfds in one address range, in the largest pages available |
//! | [`shared`] | [`Shared`], [`SharedSlice`], [`SharedBytes`]: the only access to memory that a peer may write |
//! | [`cores`] | [`LcoreMap`] in EAL's grammar, [`Workers`] that poll on lcores |
//! | [`clock`] | [`Clock`]: a cycle counter and its conversion to time |
//! | [`gate`] | a value that a polling and a control thread use in turn, without a lock |
//! | [`quiescence`] | detection of when a polling thread no longer uses data that was replaced |
//! | [`notifier`] | eventfds whose signalling a peer may slow down |
//! | [`helper`] | a thread per port for work whose duration a peer decides |
//! | [`eventfd`] | signals to a peer that may be hostile |
//! | [`wake`] | sleep and wake-up of threads that poll |
//! | [`random`] | pseudo-random numbers from a seed |
//! | [`runtime`] | directories of control sockets |
//! | [`inherited`] | descriptors passed to this process when it was started |
//! | [`liveness`] | notice of the end of another process's thread |
//! | [`args`], [`log`] | EAL's command line, and `--log-level` for `tracing` |
//!
//! An [`Eal`] combines them. There are no globals: several instances may exist in one process, and dropping
//! the last handle releases all resources. Root and hugepages are used if available and never required.
//!
//! Supported: Linux on 64-bit machines. Not supported: secondary processes, PCI, service cores, physical
//! addresses.
//!
//! `unsafe` is in `sys/` (system calls), `shared.rs` (cells), `memory/map.rs` (mappings), `gate.rs`, `liveness.rs`, and the
//! condition of [`Zone::bytes`].

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
pub mod liveness;
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
