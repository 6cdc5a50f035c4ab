//! vhost-user backends: the device side of a virtual network card, as a switch or a network function
//! implements it.
//!
//! ```text
//!   frontend (DPDK virtio-user, QEMU, our own)            this process
//!   ─────────────────────────────────────────            ────────────────────────────────────────────────
//!   socket ◄──────── messages, descriptors ────────►  control thread of the port: session
//!                                                                  │ gates (no lock, no wait)
//!   rings, buffers ◄──────── shared memory ────────►  polling threads: slot ─ ring ─ bursts ─ packets
//! ```
//!
//! - Each [`Backend`] has its own thread, so a frontend can delay only its own port. The backends of one
//!   [`Control`] divide the limits of the process fairly.
//! - A *session* checks a request completely before it changes anything. A refused request has no effect.
//! - A [`MemoryMap`] is checked, surrounded by guard pages, and immutable. A new memory table makes a new
//!   map, and the rings are rebuilt on it.
//! - A *gate* lets the polling thread and the control thread use a ring in turn, without a locked instruction
//!   in the polling thread.
//! - A ring's data path is selected once, from the negotiated features.
//!
//! A frontend may write anything, at any time, into its rings, buffers, descriptors and socket. The worst
//! that it can cause is the loss of its own port.
//!
//! System calls go through `rustix`. `libc` is used only for `mmap`, `mprotect` and `madvise` at chosen
//! addresses (`memory/region.rs`, `memory/unmap.rs`; `rustix` declares them unsafe as well), and for calls
//! that `rustix` lacks: signal handlers (`memory/sigbus.rs`), `sysconf` (`limits.rs`) and `getrusage`
//! (`datapath/fault_budget.rs`).
//!
//! **Supported**: split and packed rings, mergeable buffers, indirect descriptors, in-order use, event index,
//! multiple queue pairs, reply-ack, status, configuration space, memory slots, MTU, RARP, device reset,
//! reconnection in both directions, listening sockets passed by another process, hand-over to another process
//! ([`HandOver`]), the dirty log of a live migration, the inflight region, IOMMU address translation (IOTLB
//! messages), and a backend restart under a running driver (a split ring resumes at its used index, a packed
//! ring where its flags show). **Not supported** (refused, not ignored): postcopy, backend requests other
//! than for translations, crypto, legacy big-endian rings.

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
