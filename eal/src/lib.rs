//! The machine: memory to share with peers, cores, clock, arguments.
//!
//! Linux on 64-bit machines. No globals: two of everything may live in one process.

mod error;
pub mod memory;
pub mod shared;
mod sys;

pub use error::{Error, Result};
pub use memory::{
    Domain, Memory, MemoryConfig, PageKind, PagePolicy, PrivateZone, Segment, SegmentEvent, Subscription,
    Usage, Zone,
};
pub use shared::{Shared, SharedBytes, SharedSlice};
