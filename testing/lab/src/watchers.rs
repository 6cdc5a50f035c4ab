//! Dependents of an eventfd that make each signal take milliseconds.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use linecard_testing::skip;
use rustix::event::epoll;
use rustix::time::{ClockId, clock_gettime};

/// The shortest time of a signal that counts as an attack.
const LEAST: Duration = Duration::from_millis(2);

/// So many dependents of an eventfd that each signal takes long: the signalling thread wakes all of them, on
/// its own core.
#[derive(Debug)]
pub struct Watchers {
    _epolls: Vec<OwnedFd>,
    _copies: Vec<OwnedFd>,
}

impl Watchers {
    /// Creates up to a hundred thousand dependents, within the limits of this process and its user.
    fn new(event: &OwnedFd) -> Self {
        let copies: Vec<_> = (0..400).map_while(|_| event.try_clone().ok()).collect();
        let epolls = (0..250).map_while(|_| epoll_of(&copies)).collect();
        Self { _epolls: epolls, _copies: copies }
    }

    /// Creates watchers of `event`; returns the time of one signal with them. `None`, with a message, on a
    /// machine where signals stay fast.
    ///
    /// # Panics
    /// The eventfd cannot be signalled, or the test must not be skipped.
    #[must_use]
    pub fn slowing(test: &str, event: &OwnedFd) -> Option<(Self, Duration)> {
        let watchers = Self::new(event);
        let signal = || {
            let began = processor_time();
            linecard_eal::eventfd::signal(event.as_fd()).expect("room");
            processor_time() - began
        };
        let took = (0..3).map(|_| signal()).min().expect("three");
        if took < LEAST {
            skip(test, &format!("a signal takes {took:?} here, however many watch"));
            return None;
        }
        Some((watchers, took))
    }
}

fn epoll_of(watched: &[OwnedFd]) -> Option<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
    for fd in watched {
        epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN).ok()?;
    }
    Some(epoll)
}

/// Returns the processor time of the calling thread.
///
/// # Panics
/// The clock runs backwards.
#[must_use]
pub fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it never goes back")
}
