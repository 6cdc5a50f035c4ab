//! State that survives a killed process: the next process finds there what it needs to go on.
//!
//! ```text
//!   switch ── FDSTORE=1, one socket per port ──► service manager (systemd), or the keeper of `linecard switch --keep`
//!     │ whenever a port changes: its state and its descriptors, in one message into that socket, which is not read
//!     ✗ killed
//!   next  ◄── LISTEN_FDS: the sockets; reads the last message of each, and goes on
//! ```
//! A message and its descriptors are in a socket's queue as a whole or not at all, so nothing is ever half
//! written. The service manager holds one descriptor per port, none of which a peer has sent. Messages are
//! read only once, so that state which makes one process fail does not make the next one fail, too.

mod addresses;
mod place;
mod recover;
mod store;

pub(crate) use self::addresses::KeptAddresses;
pub use self::place::{Kept, KeptPort, UnusableState};
pub use self::recover::Recovered;
pub use self::store::{Store, find};

use serde::{Deserialize, Serialize};

use crate::upgrade::PortRecord;

/// The version of the format in which a switch keeps its ports; other formats are not read.
pub const FORMAT: u32 = 1;

/// The content of a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// A port. The state of its device follows; its descriptors are beside the message.
    Port(PortRecord),
    /// The control socket, beside the message; device and inode of its path.
    Control { name: Option<(u64, u64)> },
    /// Learned addresses, in a file beside the message.
    Addresses,
}
