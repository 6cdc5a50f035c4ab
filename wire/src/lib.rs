//! vhost-user messages on a Unix socket: framing, payloads and file descriptors.
//!
//! ```text
//!   0         4        8       12
//!   ┌─────────┬────────┬───────┬───────────────────┐
//!   │ request │ flags  │ size  │ payload ≤ 4096 B  │   + at most 32 file descriptors (SCM_RIGHTS)
//!   └─────────┴────────┴───────┴───────────────────┘
//!               │ bits 0-1 version (1) · bit 2 reply · bit 3 reply wanted
//! ```
//!
//! All numbers are in native byte order (QEMU `docs/interop/vhost-user.rst`, "Message Specification").
//! Frontends and backends both use this crate, without depending on each other: [`Connection`] transfers
//! whole [`Message`]s without blocking, [`payload`] converts payload bytes into checked values, and
//! [`socket`] creates and connects sockets. Request codes and feature bits come from the `vhost` crate. Its
//! connections are not used, because they have no deadlines, cannot resume a partially read message, and lack
//! `SET_STATUS`, `NET_SET_MTU` and 32-bit ring bases.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use linecard_wire::{Connection, FrontendReq, OutMessage, payload::Payload};
//!
//! let (a, b) = UnixStream::pair()?;
//! let (mut frontend, mut backend) = (Connection::new(a)?, Connection::new(b)?);
//! frontend.send(&OutMessage::request(FrontendReq::SET_FEATURES, &7u64.to_bytes()))?;
//! let message = backend.read()?.expect("it was sent");
//! assert_eq!(message.request, FrontendReq::SET_FEATURES as u32);
//! assert_eq!(u64::from_bytes(&message.payload)?, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod connection;
mod descriptor;
mod error;
pub mod ledger;
mod message;
pub mod payload;
pub mod rate;
pub mod socket;
mod sys;
mod unusable;

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use descriptor::{Closer, PeerFd};
pub use error::Error;
pub use message::{
    HEADER_LEN, Header, MAX_FDS, MAX_PAYLOAD, Message, NEED_REPLY, OutMessage, REPLY, VERSION,
};
pub use vhost::vhost_user::message::{
    BackendReq, FrontendReq, VhostUserProtocolFeatures as ProtocolFeatures,
    VhostUserVirtioFeatures as TransportFeatures,
};
