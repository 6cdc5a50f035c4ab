//! vhost-user backends: the side of a virtual network card that a switch or a network function is on.
//!
//! ```text
//!   frontend (DPDK virtio-user, QEMU, our own)            this process
//!   ─────────────────────────────────────────            ────────────────────────────────────────────────
//!   socket ◄──────── messages, descriptors ────────►  control thread of the port: session
//!                                                                  │ gates (no lock, no wait)
//!   rings, buffers ◄──────── shared memory ────────►  polling threads: slot ─ ring ─ bursts ─ packets
//! ```
//!
//! - each [`Backend`] has a thread of its own, so that a peer makes nobody wait but its own port; the backends of one [`Control`]
//!   share the limits of the process fairly;
//! - a *session* checks every request whole before it changes anything; a refused request leaves no trace;
//! - a [`MemoryMap`] is checked, guarded, and never changes; rings are built anew on a new one;
//! - a *gate* lets the polling thread and the control thread use a ring in turn; polling pays no locked
//!   instruction for it;
//! - a ring's data path is chosen once, from what was negotiated.
//!
//! A frontend may write anything, at any time, into its rings, buffers, descriptors and socket. The worst it
//! can do is lose its own port.
//!
//! System calls go through `rustix`. What is left to `libc`, and why: `mmap`, `mprotect` and `madvise` over addresses of our own choice
//! (`memory/region.rs`, `memory/unmap.rs`; unsafe in `rustix`, too), signal handlers (`memory/sigbus.rs`), `sysconf`
//! (`limits.rs`) and `getrusage` (`datapath/fault_budget.rs`), which `rustix` does not have.
//!
//! **Supported**: split and packed rings, mergeable buffers, indirect descriptors, in-order, event index, several
//! queues, reply-ack, status, configuration, memory slots, MTU, RARP, device reset, reconnection in both
//! directions, sockets that were passed, hand-over to another process ([`HandOver`]), the dirty log of a live migration, the
//! inflight region, addresses that an IOMMU translates (IOTLB messages), restarts under a running driver (a split ring is resumed behind its used index, a packed one where its flags
//! say). **Not supported** (refused, not ignored): postcopy, other backend
//! requests than for translations, crypto, legacy big-endian rings.

mod backend;
mod control;
mod datapath;
mod error;
mod event;
mod features;
mod handover;
mod limits;
mod memory;
mod peer;
mod port;
mod session;
mod slot;

pub use backend::{Backend, BackendConfig, Mode};
pub use control::Control;
pub use error::{Error, Refusal, RegionError};
pub use features::MAX_QUEUE_PAIRS;
pub use handover::HandOver;
pub use limits::{Limits, ProcessLimits};
pub use linecard_wire::ledger::Descriptors;
pub use linecard_wire::socket::{Access, Listener, SocketError, UnusableSocket};
pub use memory::MemoryMap;
pub use memory::sigbus;
pub use peer::Peer;
pub use port::{Receive, RxLoss, Transmit, TxLoss, VhostDriver};

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
