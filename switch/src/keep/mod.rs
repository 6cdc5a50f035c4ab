//! A switch whose process may be killed: what the next process needs is kept outside of it, and found there again.
//!
//! ```text
//!   switch ── FDSTORE=1, one socket a port ──► service manager (systemd), or the keeper of `linecard switch --keep`
//!     │ each time that a port changes: its state and its descriptors, in one message into that socket, which nobody reads
//!     ✗ killed
//!   next  ◄── LISTEN_FDS: the sockets; reads the last message of each, and goes on
//! ```
//! A message and its descriptors are in a socket's queue as a whole or not at all, so nothing is ever half written, and the service
//! manager holds one descriptor a port, none of which a peer has sent. Messages are read once: what makes a process fail does
//! not make the next one fail, too.

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

/// The form in which a switch keeps its ports; another one is not read.
pub const FORMAT: u32 = 1;

/// What is kept in a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// A port; the state of its device behind it, its descriptors beside it.
    Port(PortRecord),
    /// The control socket, beside this; device and inode of its name.
    Control { name: Option<(u64, u64)> },
    /// Learned addresses, in the file beside this.
    Addresses,
}
