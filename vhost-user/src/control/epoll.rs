//! An epoll instance for the sockets and the eventfd of a port.
//!
//! A port's thread has its own loop instead of `polling`, `async-io` or `smol`, because:
//! - the thread serves its frontend within fixed budgets per round (`MESSAGES_PER_TURN` and a time budget, in
//!   `endpoint.rs`); an executor schedules tasks itself and gives them no budgets;
//! - `async-io` starts one thread for all ports, which would make them wait for each other;
//! - a socket can be watched only for the peer's end ([`Interest::End`]); `polling` always requests more
//!   events;
//! - the loop needs four calls of `rustix`, instead of about ten crates.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The maximum number of events returned by one wait.
const BATCH: usize = 64;

/// The events to wait for on one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Nothing, not even the peer's end.
    None,
    /// Only the peer's end.
    End,
    /// The peer's end, and room to send.
    Write,
    Read,
}

/// An epoll instance that identifies descriptors by tokens.
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Changes the events awaited on `fd` from those of `from` to those of `to`.
    pub(super) fn change(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        from: Interest,
        to: Interest,
    ) -> io::Result<()> {
        let events = match to {
            Interest::None | Interest::End => EventFlags::RDHUP,
            Interest::Write => EventFlags::RDHUP | EventFlags::OUT,
            Interest::Read => EventFlags::IN,
        };
        let data = EventData::new_u64(token);
        Ok(match (from, to) {
            _ if from == to => return Ok(()),
            (_, Interest::None) => epoll::delete(&self.0, fd),
            (Interest::None, _) => epoll::add(&self.0, fd, data, events),
            _ => epoll::modify(&self.0, fd, data, events),
        }?)
    }

    /// Returns the tokens of ready descriptors, or none after `timeout` (`None` waits forever).
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Vec<u64> {
        let mut events = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        // Rounded up to whole milliseconds, so that the wait for a deadline ends after it.
        let timeout = timeout.map(|t| {
            let millis = t.as_micros().div_ceil(1000).min(i32::MAX as u128) as u64;
            Timespec::try_from(Duration::from_millis(millis)).unwrap_or_default()
        });
        // An interrupted wait returns no events.
        let ready = epoll::wait(&self.0, &mut events, timeout.as_ref());
        ready.map_or_else(|_| Vec::new(), |(ready, _)| ready.iter().map(|event| event.data.u64()).collect())
    }
}

/// Whether the peer has closed its end of a socket, even if unread data is left.
pub(super) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut entry = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    poll(&mut entry, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        && entry[0].revents().intersects(ended)
}
