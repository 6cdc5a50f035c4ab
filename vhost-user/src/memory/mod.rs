//! A peer's memory, mapped into this process.
//!
//! ```text
//!   guest address (descriptors) ─┐
//!                                ├─► region ─► place in this process    [guard │ file pages │ guard]
//!   user address (rings) ────────┘
//! ```
//!
//! A map never changes: a new memory table makes a new map, and the rings are rebuilt on it.

mod inflight;
mod iotlb;
mod log;
mod map;
mod region;
pub mod sigbus;
mod unmap;

pub(crate) use inflight::{Inflight, RingInflight, is_available, region_len};
pub(crate) use iotlb::{AHEAD, Entry, Found, Iotlb, Misses, PAGE, Prefetch, Want, Window};
pub(crate) use log::DirtyLog;
pub use map::MemoryMap;
pub(crate) use map::{MAX_REGIONS, MapLimits};
pub(crate) use region::Region;

#[cfg(test)]
mod tests;
