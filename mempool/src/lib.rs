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
//! A backend that maps the domain can overwrite packet data, but nothing else: metadata, free lists and
//! caches are private. The pointer to a free packet is in one of four places:
//! - a *magazine* (half of [`PoolConfig::cache`] pointers) loaded by a thread, or the thread's previous
//!   magazine: reached without a locked instruction;
//! - a full magazine in the pool's *depot*, a lock-free stack: one compare-and-swap for all its packets;
//! - the depot's *loose* stack of single packets, for threads and pools without caches;
//! - a magazine of a thread that has ended: the next thread, or a thread that runs out of packets, adopts it.
//!
//! Packets cached by *other live* threads are not available, so a pool needs more packets than are in use at
//! once ([`PoolConfig::cache`] says how many).

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

/// Flags and types in a packet's metadata, defined in `net`, which parses and writes headers with them.
#[cfg(not(loom))]
pub use linecard_net::{Offload, PacketType, TxOffload};

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
