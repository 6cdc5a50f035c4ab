//! The eventfd at the other end of a notification.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use linecard_wire::PeerFd;

/// An eventfd of the peer, written to and never waited on.
///
/// The peer shares the open file: it may fill the counter and make writes to it block. So it is never written;
/// see [`linecard_eal::eventfd`].
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    /// Takes `fd` if it is an eventfd, and makes writes to it non-blocking (where we have to write, after all); gives
    /// nothing back otherwise.
    pub(crate) fn accept(fd: PeerFd) -> Option<Self> {
        is_eventfd(fd.as_fd()).then_some(())?;
        let fd = fd.into_owned();
        // SAFETY: F_GETFL reads the flags of a descriptor we own.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        // SAFETY: F_SETFL changes the flags of a descriptor we own.
        let set = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) };
        (flags >= 0 && set == 0).then_some(Self(fd))
    }

    /// Adds one; whether it counted. A full counter means that the peer has long been told.
    pub(crate) fn signal(&self) -> bool {
        linecard_eal::eventfd::signal(self.0.as_fd()).is_ok()
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
