//! The eventfd at the other end of a notification.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use linecard_eal::notifier::{Notifier, SignalBudget};
use linecard_eal::wake::Source;
use linecard_wire::PeerFd;
use rustix::fs::OFlags;

/// An eventfd of the peer, signalled by whoever polls, and waited on by a thread of the port's alone.
///
/// The peer shares the open file: it may fill the counter and make writes to it block. So it is never written;
/// see [`linecard_eal::eventfd`]. It may be watched by millions of epolls: see [`linecard_eal::notifier`], and nor is it closed
/// here, which would forget them all.
#[derive(Debug)]
pub(crate) struct Event(Arc<Notifier<PeerFd>>);

impl Event {
    /// Takes `fd` if it is an eventfd, and makes writes to it non-blocking (where we have to write, after all); gives
    /// nothing back otherwise.
    pub(crate) fn accept(fd: PeerFd, signal_budget: &Arc<SignalBudget>) -> Option<Self> {
        is_eventfd(fd.as_fd()).then_some(())?;
        let flags = rustix::fs::fcntl_getfl(fd.as_fd()).ok()?;
        rustix::fs::fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK).ok()?;
        Some(Self(Arc::new(Notifier::new(fd, signal_budget))))
    }

    /// The descriptor, for a thread that waits for the peer.
    pub(crate) fn source(&self) -> Source {
        Arc::clone(&self.0) as Source
    }

    /// Adds one; whether it counted. A full counter means that the peer has long been told.
    pub(crate) fn signal(&self) -> bool {
        self.0.notify()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Asks the kernel what `fd` is: its link in /proc, or, where there is no /proc, that it has no file type.
fn is_eventfd(fd: BorrowedFd<'_>) -> bool {
    match std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Ok(link) => link.as_os_str() == "anon_inode:[eventfd]",
        Err(_) => std::fs::metadata("/proc/self").is_err() && has_no_type(fd).unwrap_or(false),
    }
}

fn has_no_type(fd: BorrowedFd<'_>) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::File::from(fd.try_clone_to_owned()?);
    Ok(file.metadata()?.mode() & libc::S_IFMT == 0)
}
