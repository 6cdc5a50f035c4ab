//! Waiting for many descriptors.
//!
//! The loop of a port's thread is ours, and not `polling`, `async-io` or `smol`:
//! - each port has a thread that does so much for its frontend in a round and no more (`MESSAGES_PER_TURN` and a budget of time, in
//!   `endpoint.rs`); an executor would choose between tasks by itself, and its tasks have no budgets;
//! - `async-io` starts one thread for all ports, through which they would wait for each other, and at a time of its own choosing;
//! - a socket can be watched for the peer's end alone here ([`Interest::End`]); `polling` always asks for more;
//! - what is left are four calls of `rustix`, against some ten crates.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Waits for `fd` as `to` says, having waited as `from` says.
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
            Interest::ReadWrite => EventFlags::IN | EventFlags::OUT,
        };
        let data = EventData::new_u64(token);
        Ok(match (from, to) {
            _ if from == to => return Ok(()),
            (_, Interest::None) => epoll::delete(&self.0, fd),
            (Interest::None, _) => epoll::add(&self.0, fd, data, events),
            _ => epoll::modify(&self.0, fd, data, events),
        }?)
    }

    /// The tokens of what is ready; none after `timeout` (`None`: waits for ever).
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Vec<u64> {
        let mut events = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        // In whole milliseconds, rounded up, so that waiting for a deadline ends behind it.
        let timeout = timeout.map(|t| {
            let millis = t.as_micros().div_ceil(1000).min(i32::MAX as u128) as u64;
            Timespec::try_from(Duration::from_millis(millis)).unwrap_or_default()
        });
        // An interrupted wait is an empty one.
        let ready = epoll::wait(&self.0, &mut events, timeout.as_ref());
        ready.map_or_else(|_| Vec::new(), |(ready, _)| ready.iter().map(|event| event.data.u64()).collect())
    }
}

/// Whether the other end of a socket is closed, whatever may still be there to read.
pub(super) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut entry = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    poll(&mut entry, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        && entry[0].revents().intersects(ended)
}
