//! Packet memory: pools with per-thread caches, packets, bursts.
//!
//! ```text
//!  private memory (no peer maps it)                shared memory (a segment of the domain)
//!  ┌──────┬──────┬──────┬─────                     ┌──────────┬───────────┬─────────┬──────────
//!  │ Meta │ Meta │ Meta │ …    ── Meta::buf ─────► │ headroom │ data room │ padding │ headroom …
//!  └──────┴──────┴──────┴─────                     └──────────┴───────────┴─────────┴──────────
//!   64 B each, one line                             stride: an odd number of 64-byte lines
//! ```
//!
//! A backend that maps the domain can scribble on packet data, and on nothing else: metadata, free lists and caches are
//! private. A free packet's pointer lies in one of four places:
//! - a *magazine* (half of [`PoolConfig::cache`] pointers) that a thread has loaded, or the previous one it keeps:
//!   reached without any locked instruction;
//! - a full magazine in the pool's *depot*, a lock-free stack: one compare-and-swap for all its packets;
//! - the depot's *loose* stack of single packets, for threads and pools without caches;
//! - the magazines of a thread that has ended: they are adopted by the next thread, or by whoever runs out.
//!
//! Packets cached by *other live* threads stay there: a pool needs some more packets than are in use at once
//! ([`PoolConfig::cache`] says how many).

mod sync;

pub(crate) mod closing;
pub(crate) mod slots;
pub(crate) mod stack;

#[cfg(not(loom))]
mod burst;
#[cfg(not(loom))]
mod debug;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod meta;
#[cfg(not(loom))]
mod packet;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod words;

#[cfg(not(loom))]
pub use self::{
    burst::{BURST, Burst, Drain},
    debug::{Violation, ViolationKind},
    error::{Error, Exhausted, NoRoom, Result, TooShort},
    meta::Meta,
    packet::{Packet, PacketSegment, Reader, Segments},
    pool::{Buffers, DATA_ROOM, HEADROOM, Pool, PoolConfig, PoolStats},
    words::{Extent, MetaWords},
};
#[cfg(not(loom))]
linecard_eal::threads! {
    Packet: Send + Sync;
    Pool: Send + Sync;
    Burst: Send + Sync;
    Drain<'static>: Send + Sync;
    PacketSegment<'static>: neither;
}

/// The vocabulary of a packet's metadata, defined in `net`, which reads and writes headers by it.
#[cfg(not(loom))]
pub use linecard_net::{Offload, PacketType, TxOffload};

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
