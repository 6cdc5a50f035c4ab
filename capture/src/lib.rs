//! Capture: copies of what passes a port's queues, for another process, without slowing the port.
//!
//! ```text
//!   polling thread                          control thread                     capturing process
//!   rx_burst ── Watched queue ── Point      Hub ── Server (Unix socket) ◄──── Client: "capture port=0"
//!                    │  one relaxed load     │                       ────►   one memfd with a ring per queue
//!                    └── copies ─► ring ═════╪═══════════════════════════►   Stream: records in order of time
//! ```
//! A program hands its started ports to [`serve`], which is one line; or it makes a [`Hub`], lets it [`watch`](Hub::watch) its started ports, and [`serve`](Hub::serve)s a control
//! socket; `linecard capture` finds it. Off, a burst costs one relaxed load (and one more call, unless the program
//! holds the queues as what they are). On, frames are cut to
//! the snapshot length, filtered in the polling thread and copied into a ring that only this queue fills; a full ring
//! drops the copy and counts it. The polling thread never waits and makes no system call but the clock's; it picks
//! rings up, and gives them back, between bursts.
//!
//! A program that wants a file and no other process calls [`dump_port`], or [`dump`] for packets that it has, and [`read`]
//! gives the frames back.
//!
//! Packets that are dropped come with the reason as a comment where the place of the drop has the packet: drivers
//! call [`dropped`](linecard_pmd::observer::dropped), applications [`TxQueue::note_dropped`](linecard_pmd::TxQueue::note_dropped). A packet that was taken, and
//! shown as sent, and is lost later (in flight when its backend went, a piece of a packet that was cut in software), comes
//! once more with a comment that says so.
//!
//! Trust: the socket belongs to its owner, in a folder that only the owner enters. Whoever may connect sees all
//! packets of the ports, and can garble the copies that it asked for, nothing else: rings are sealed memfds, each
//! index in them is masked, and there is one thread at either side.

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

/// Why there is no capture; one sentence.
///
/// ```
/// use linecard_capture::{Hub, Options};
/// let refused = Hub::new().open(3, &Options::default()).err().expect("no such port");
/// assert_eq!(refused.to_string(), "there is no port 3; no port is watched");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// What was asked for is not there, or not possible.
    #[error("{0}")]
    Refused(String),
    /// There is no folder for the control socket.
    #[error("{0}; give another --file-prefix, or do without capture")]
    Folder(#[from] linecard_eal::Error),
    /// The operating system said no.
    #[error("{action}: {source}; {remedy}")]
    System {
        /// What was tried.
        action: String,
        /// What the system answered.
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
