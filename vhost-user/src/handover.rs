//! The state of a port that moves to another process while its frontend stays connected.

use std::os::fd::OwnedFd;

use crate::error::Error;
use crate::session::Taken;
use crate::session::snapshot::Snapshot;

/// A port between two backends: [`Backend::hand_over`](crate::Backend::hand_over) returns it, and
/// [`Backend::take_over`](crate::Backend::take_over) accepts it.
///
/// Both parts must reach the successor, and the descriptors must keep their order. They can be sent over a
/// Unix socket (`SCM_RIGHTS`, at most 253 per message) or inherited. There are at most three descriptors for
/// each ring, one for each memory region, and five more.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
///
/// let path = std::env::temp_dir().join(format!("hand-over-doc-{}", std::process::id()));
/// let config = BackendConfig::new("port0", &path, Mode::Listen).hand_over(true);
/// let mut old = Backend::new(&Control::new(), config.clone())?;
/// let _frontend = UnixStream::connect(&path)?;
///
/// let handed = old.hand_over()?;
/// drop(old);
/// // … in the next process:
/// let new = Backend::take_over(&Control::new(), config, handed)?;
/// assert!(path.exists(), "its name has come along");
/// drop(new);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct HandOver {
    /// The state of the connection and its rings, in a format that earlier and later versions can read.
    pub state: Vec<u8>,
    /// The descriptors that `state` refers to by index.
    pub descriptors: Vec<OwnedFd>,
}

impl HandOver {
    /// Reassembles a hand-over from the parts that another process sent.
    pub fn new(state: Vec<u8>, descriptors: Vec<OwnedFd>) -> Self {
        Self { state, descriptors }
    }

    pub(crate) fn read(self) -> Result<(Snapshot, Taken<OwnedFd>), Error> {
        let snapshot = Snapshot::from_bytes(&self.state);
        let snapshot = snapshot.map_err(|reason| Error::TakeOver { reason: reason.into() })?;
        Ok((snapshot, Taken::new(self.descriptors)))
    }
}
