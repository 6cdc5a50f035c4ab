//! Eventfds that a peer sent, for notifications in either direction.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use linecard_eal::notifier::{Notifier, SignalBudget};
use linecard_eal::wake::Source;
use linecard_wire::PeerFd;
use rustix::fs::OFlags;

/// An eventfd of the peer. Polling threads signal it; only a thread of the port waits on it.
///
/// The peer shares the open file, so it can fill the counter and make writes block. The file is therefore not
/// written directly; see [`linecard_eal::eventfd`]. The peer can also add it to millions of epoll instances,
/// all of which a close would have to walk, so it is not closed here either; see [`linecard_eal::notifier`].
#[derive(Debug)]
pub(crate) struct Event(Arc<Notifier<PeerFd>>);

impl Event {
    /// Accepts `fd` if it is an eventfd, and makes writes to it non-blocking for the cases in which a write
    /// is unavoidable. Returns `None` otherwise.
    pub(crate) fn accept(fd: PeerFd, signal_budget: &Arc<SignalBudget>) -> Option<Self> {
        is_eventfd(fd.as_fd()).then_some(())?;
        let flags = rustix::fs::fcntl_getfl(fd.as_fd()).ok()?;
        rustix::fs::fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK).ok()?;
        Some(Self(Arc::new(Notifier::new(fd, signal_budget))))
    }

    /// The descriptor, for a thread that waits for the peer's signals.
    pub(crate) fn source(&self) -> Source {
        Arc::clone(&self.0) as Source
    }

    /// Adds one to the counter. Returns whether it counted; a full counter means that earlier signals are
    /// still unread.
    pub(crate) fn signal(&self) -> bool {
        self.0.notify()
    }
}

impl Event {
    /// As [`signal`](Self::signal), from the control thread of the port, for which nobody else waits: at once.
    pub(crate) fn signal_from_control(&self) -> bool {
        self.0.notify_from_own_thread()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether `fd` is an eventfd, by its link in /proc. Without /proc the test is that it has no file type.
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
