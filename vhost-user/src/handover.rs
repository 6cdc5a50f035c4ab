//! A port that goes from one process to the next with its frontend connected.

use std::os::fd::OwnedFd;

use crate::error::Error;
use crate::session::Taken;
use crate::session::snapshot::Snapshot;

/// A port between two backends: what [`Backend::hand_over`](crate::Backend::hand_over) gives and
/// [`Backend::take_over`](crate::Backend::take_over) takes.
///
/// Both parts have to reach the successor, the descriptors in their order: over a Unix socket (`SCM_RIGHTS`, at most 253 in a
/// message), or by being inherited. There are at most three for each ring, one for each memory region, and five.
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
    /// The state of the connection and its rings, in a form that earlier and later versions read.
    pub state: Vec<u8>,
    /// Descriptors that `state` refers to by their places.
    pub descriptors: Vec<OwnedFd>,
}

impl HandOver {
    /// What another process gave, put together again.
    pub fn new(state: Vec<u8>, descriptors: Vec<OwnedFd>) -> Self {
        Self { state, descriptors }
    }

    pub(crate) fn read(self) -> Result<(Snapshot, Taken<OwnedFd>), Error> {
        let snapshot = Snapshot::from_bytes(&self.state);
        let snapshot = snapshot.map_err(|reason| Error::TakeOver { reason: reason.into() })?;
        Ok((snapshot, Taken::new(self.descriptors)))
    }
}
