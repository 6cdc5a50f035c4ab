//! Lock-free rings of fixed-size elements, in the manner of DPDK's rte_ring.
//!
//! - [`spsc`] and [`mpmc`]: handles to put in and take out, one by one, in bulk (all or nothing) or in bursts.
//! - [`Config`]: exact or power-of-two capacity, watermark, heap, or [`SharedMemory`] of the caller's that other processes may map.
//! - [`Single`], [`Multi`], [`Rts`], [`Hts`]: rte_ring's sync modes, chosen per side as type parameters; and
//!   [`Adaptive`], which is the first until a handle is cloned and the second from then on.
//! - [`Reservation`] and [`Peek`]: zero-copy views, `reserve → write → publish`, `peek → read → release`.
//!
//! | | SP/SC | MP/MC | RTS | HTS |
//! |---|---|---|---|---|
//! | threads per side | 1 | any | any | any |
//! | locked instructions per burst | 0 | 1 | 2 | 1 |
//! | waits for other threads of its side | never | to publish | when far behind | to begin |
//! | zero-copy views | yes | no | no | yes |
//!
//! Elements are `Copy`: a ring never drops any. What remains in a ring when its last handle goes is forgotten.
//!
//! In shared memory every index is masked and every count checked against the geometry read at attach, so a
//! peer that scribbles on the ring garbles elements and counts and nothing else. A side that shares its head
//! with a hostile process can be made to wait for ever; between processes that do not trust each other use
//! [`Single`] on both sides, which never waits.

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
