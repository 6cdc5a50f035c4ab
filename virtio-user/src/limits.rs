//! The limits on what a backend may make its port consume.

/// The limits on what a backend may make one port consume. A backend has no reason to send descriptors. A
/// connection that exceeds a limit ends with an error that names it, and the port connects again once some
/// descriptors are closed.
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
    /// The open descriptors of the backend over all connections: the connection itself, and the descriptors
    /// that it sent until they are closed. Default: 64.
    pub descriptors: u64,
    /// The jobs that may wait for the port's closing thread: descriptors to close, and slow kicks. At the
    /// limit, slow kicks are not sent. Default: 1024.
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
