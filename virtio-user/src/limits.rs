//! What a backend may make its port take.

/// What a backend may make one port take. It has no reason to send descriptors; a connection over which more come ends, with a
/// sentence that names the limit, and the port connects again when some are closed.
///
/// ```
/// use linecard_virtio_user::{Limits, VirtioUser};
/// let mut limits = Limits::default();
/// assert_eq!(limits.descriptors, 64);
/// limits.descriptors = 16;
/// let driver = VirtioUser::new().with_limits(limits);
/// # drop(driver);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Descriptors that are open for it, over all connections: the connection, and what it sent until that is closed. By
    /// default 64.
    pub descriptors: u64,
    /// What may wait for the port's closing thread: descriptors to be closed, and kicks that take long. With as much, such
    /// kicks are not sent. By default 1024.
    pub closings: u32,
}

impl Limits {
    pub(crate) const fn new() -> Self {
        Self { descriptors: 64, closings: 1024 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}
