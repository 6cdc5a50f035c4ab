//! What makes each signal of an eventfd take milliseconds.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use linecard_testing::skip;
use rustix::event::epoll;
use rustix::time::{ClockId, clock_gettime};

/// Least that a signal must take to be an attack.
const LEAST: Duration = Duration::from_millis(2);

/// So many dependents of an eventfd that each signal takes long. Whoever signals wakes all of them, on its own core.
#[derive(Debug)]
pub struct Watchers {
    _epolls: Vec<OwnedFd>,
    _copies: Vec<OwnedFd>,
}

impl Watchers {
    /// A hundred thousand, as far as the limits of this process and its user go.
    fn new(event: &OwnedFd) -> Self {
        let copies: Vec<_> = (0..400).map_while(|_| event.try_clone().ok()).collect();
        let epolls = (0..250).map_while(|_| epoll_of(&copies)).collect();
        Self { _epolls: epolls, _copies: copies }
    }

    /// Watchers of `event`, and how long one signal takes with them; `None` on a machine on which that is no attack, which
    /// is said.
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

/// Time that the calling thread has spent on a core.
///
/// # Panics
/// The clock runs backwards.
#[must_use]
pub fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it never goes back")
}
