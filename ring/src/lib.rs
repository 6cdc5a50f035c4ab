//! Lock-free rings of fixed-size elements, modelled on DPDK's `rte_ring`.
//!
//! - [`spsc`] and [`mpmc`]: handles that enqueue and dequeue, one by one, in bulk (all or nothing) or in
//!   bursts.
//! - [`Config`]: exact or power-of-two capacity, watermark, heap or [`SharedMemory`] of the caller that other
//!   processes may map.
//! - [`Single`], [`Multi`], [`Rts`], [`Hts`]: the sync modes of `rte_ring`, chosen per side as type
//!   parameters. [`Adaptive`] is [`Single`] until a handle is cloned and [`Multi`] from then on.
//! - [`Reservation`] and [`Peek`]: zero-copy views, `reserve → write → publish`, `peek → read → release`.
//!
//! | | SP/SC | MP/MC | RTS | HTS |
//! |---|---|---|---|---|
//! | threads per side | 1 | any | any | any |
//! | locked instructions per burst | 0 | 1 | 2 | 1 |
//! | waits for other threads of its side | never | to publish | when far behind | to begin |
//! | zero-copy views | yes | no | no | yes |
//!
//! Elements are `Copy`: a ring never drops any. Elements left in a ring when its last handle is dropped are
//! forgotten.
//!
//! In shared memory every index is masked and every count is checked against the geometry read at attach. A
//! peer that overwrites the ring can only corrupt elements and counts. A hostile process that shares a side's
//! head can block that side forever; between processes that do not trust each other, use [`Single`] on both
//! sides, which never waits.

mod config;
mod consumer;
mod end;
mod error;
mod layout;
mod mode;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod moved;
pub mod mpmc;
mod prefetch;
mod producer;
mod slots;
pub mod spsc;
mod storage;
mod sync;
/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
mod view;

pub use config::{Config, Ends, MAX_CAPACITY, Plain, SharedMemory};
pub use consumer::Consumer;
pub use error::{AllWritten, Error, NotWritten};
pub use mode::{Adaptive, Exclusive, Hts, Mode, Multi, MultiThread, Rts, Single};
pub use moved::Moved;
pub use producer::Producer;
pub use view::{Peek, Reservation};
