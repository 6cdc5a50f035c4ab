//! Packet capture: copies the packets of a port's queues for another process, without slowing the port.
//!
//! ```text
//!   polling thread                          control thread                     capturing process
//!   rx_burst ── Watched queue ── Point      Hub ── Server (Unix socket) ◄──── Client: "capture port=0"
//!                    │  one relaxed load     │                       ────►   one memfd with a ring per queue
//!                    └── copies ─► ring ═════╪═══════════════════════════►   Stream: records in order of time
//! ```
//! A program passes its started ports to [`serve`], which is one line. Or it creates a [`Hub`], lets it
//! [`watch`](Hub::watch) its started ports and [`serve`](Hub::serve) a control socket, which
//! `linecard capture` finds. While no capture runs, a burst costs one relaxed load (and one more call, unless
//! the program keeps the queues unboxed). During a capture, the polling thread truncates frames to the
//! snapshot length, filters them and copies them into a ring that only this queue fills. If the ring is full,
//! the copy is dropped and counted. The polling thread never waits and makes no system call except to read
//! the clock; it starts and stops using rings between bursts.
//!
//! A program that wants a file, without another process, calls [`dump_port`], or [`dump`] for packets that it
//! has; [`read`] returns the frames.
//!
//! Dropped packets are captured with the reason as a comment if the code that drops them has the packet:
//! drivers call [`dropped`](linecard_pmd::observer::dropped), applications
//! [`TxQueue::note_dropped`](linecard_pmd::TxQueue::note_dropped). A packet that was accepted and shown as
//! sent, but is lost later (in flight when its backend disconnected, or a piece of a packet that was
//! segmented in software), is captured once more with a comment that says so.
//!
//! Trust: the socket belongs to its owner, in a directory that only the owner may enter. A client that may
//! connect sees all packets of the ports, and can corrupt only the copies that it requested: rings are sealed
//! memfds, each index in them is masked, and each side has one thread.

mod client;
mod dump;
mod hub;
mod memory;
pub mod pcap;
mod point;
mod protocol;
mod queues;
mod record;
mod server;
mod socket;
mod stream;
/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;

pub use self::client::{Client, Listed};
pub use self::dump::{Dump, Frames, PortDump, SavedFrame, dump, dump_port, dump_port_with, read};
pub use self::hub::{Hub, Session};
pub use self::protocol::{Options, Totals};
pub use self::queues::{WatchedRx, WatchedTx};
pub use self::record::Frame;
pub use self::server::Server;
pub use self::socket::{ControlSocket, serve};
pub use self::stream::Stream;

/// Why a capture is not possible; one sentence.
///
/// ```
/// use linecard_capture::{Hub, Options};
/// let refused = Hub::new().open(3, &Options::default()).err().expect("no such port");
/// assert_eq!(refused.to_string(), "there is no port 3; no port is watched");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The request cannot be fulfilled.
    #[error("{0}")]
    Refused(String),
    /// The directory for the control socket cannot be used.
    #[error("{0}; give another --file-prefix, or do without capture")]
    Folder(#[from] linecard_eal::Error),
    /// A system call failed.
    #[error("{action}: {source}; {remedy}")]
    System {
        /// The action that failed.
        action: String,
        /// The error of the system call.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

impl CaptureError {
    fn system(action: impl Into<String>, source: impl Into<std::io::Error>, remedy: &'static str) -> Self {
        Self::System { action: action.into(), source: source.into(), remedy }
    }
}
