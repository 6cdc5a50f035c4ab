//! The machine: memory to share with peers, cores, clock, arguments.
//!
//! Linux on 64-bit machines. No globals: two of everything may live in one process.

pub mod args;
pub mod clock;
pub mod cores;
mod eal;
mod error;
pub mod log;
pub mod memory;
pub mod shared;
mod sys;

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
