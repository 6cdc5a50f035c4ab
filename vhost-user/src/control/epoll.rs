//! Waiting for many descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Events taken by one wait.
const BATCH: usize = 64;

/// What to wait for on one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Nothing at all, not even the peer's end.
    None,
    /// That the peer closes, and nothing else.
    End,
    /// That, and room for what is to be sent.
    Write,
    Read,
    ReadWrite,
}

/// An epoll instance; descriptors are known by tokens.
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes a flag, returns a new descriptor or -1.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for `fd` as `to` says, having waited as `from` says.
    pub(super) fn change(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        from: Interest,
        to: Interest,
    ) -> io::Result<()> {
        let operation = match (from, to) {
            _ if from == to => return Ok(()),
            (_, Interest::None) => libc::EPOLL_CTL_DEL,
            (Interest::None, _) => libc::EPOLL_CTL_ADD,
            _ => libc::EPOLL_CTL_MOD,
        };
        let events = match to {
            Interest::None | Interest::End => libc::EPOLLRDHUP,
            Interest::Write => libc::EPOLLRDHUP | libc::EPOLLOUT,
            Interest::Read => libc::EPOLLIN,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
        }
        .cast_unsigned();
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: both descriptors are open; `event` lives until the call returns.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The tokens of what is ready; none after `timeout` (`None`: waits for ever).
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Vec<u64> {
        let mut events = [const { MaybeUninit::<libc::epoll_event>::uninit() }; BATCH];
        // Rounded up, so that waiting for a deadline ends behind it.
        let millis = timeout.map_or(-1, |t| i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        // SAFETY: `events` has room for BATCH events and lives until the call returns.
        let n = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr().cast(), BATCH as libc::c_int, millis)
        };
        // An interrupted wait is an empty one.
        let ready = events.iter().take(usize::try_from(n).unwrap_or(0));
        // SAFETY: the kernel filled the first `n` events.
        ready.map(|event| unsafe { event.assume_init_ref() }.u64).collect()
    }
}

/// Whether the other end of a socket is closed, whatever may still be there to read.
pub(super) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one valid entry, exclusively borrowed until the call returns, which is at once.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
    ready > 0 && entry.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}
