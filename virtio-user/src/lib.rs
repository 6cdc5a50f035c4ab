//! Drivers for virtio-net devices. `net_virtio_user` is the frontend without a PCI device: it reaches its
//! device over a vhost-user socket, the kernel's vhost-net or vhost-vdpa, or an application's own
//! [`Backend`]. `net_virtio_pci` drives a PCI device through VFIO (feature `pci`).
//!
//! ```text
//!   application                 control thread (each port has one)
//!   Receive / Transmit          Session: connect · handshake · watch · reclaim
//!        │ enter a gate               │ opens and closes the gates
//!        ▼                            ▼
//!   Rx<Q, MERGE> / Tx<Q>  ◄── rings::rx_path, tx_path: chosen once, when a backend connects
//!        │                            │ the traits Connect and Backend
//!        │                       vhost_user (client, server), kernel (vhost-net, vhost-vdpa), pci, or another
//!        │ buffers                    │ messages, ioctls, registers
//!   ═════╪════ shared memory ═════════╪═════ socket, device ══════ backend
//! ```
//!
//! A backend may write anything, at any time, into its rings and its socket. The worst effect is the loss of
//! its port: the port goes down, takes back its buffers and connects again.
//!
//! **Supported**: split and packed rings, in-order, mergeable receive buffers, indirect descriptors, several
//! queue pairs, client and server mode, reconnection, memory that grows, checksum and segmentation offloads
//! (negotiated when the port is configured with them, completed in software where the backend does not accept
//! them); `/dev/vhost-net` with a tap interface (split rings only, as the kernel has no others);
//! `/dev/vhost-vdpa-N` with the device's control queue; a receive filter (promiscuous and all-multicast mode,
//! addresses, VLANs) independent of the backend; RSS and hashes where the device offers them; starting and
//! stopping single queues.

mod args;
mod asks;
pub mod backend;
mod control;
mod control_queue;
mod device;
#[cfg(test)]
mod differential;
mod doorbell;
mod driver;
mod error;
mod events;
mod kernel;
mod kick;
mod limits;
mod log;
mod losses;
mod memory;
mod missing;
mod negotiate;
mod owed;
mod path;
#[cfg(feature = "pci")]
mod pci;
mod queue;
mod rings;
mod rx;
mod session;
mod sys;
mod thread;
mod tx;
mod vhost_user;

pub use backend::{Backend, Connect};
pub use driver::VirtioUser;
pub use error::Error;
pub use limits::{Limits, ProcessLimits};
pub use linecard_wire::ledger::Descriptors;
#[cfg(feature = "pci")]
pub use pci::VirtioPci;

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
