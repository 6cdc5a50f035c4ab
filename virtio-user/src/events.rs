//! One descriptor for all events of a device. Each source is then checked without waiting.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::event::{Timespec, epoll::EventData};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

/// The period for checking sources that report no events.
const PERIOD: Duration = Duration::from_secs(1);

/// Readable when one of its sources is.
#[derive(Debug)]
pub(crate) struct Events(OwnedFd);

impl Events {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Adds a source; closing its last descriptor removes it.
    pub(crate) fn add(&self, part: impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.0, part, EventData::new_u64(0), epoll::EventFlags::IN)?)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Creates a descriptor that is readable after each period.
pub(crate) fn timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let period = Timespec { tv_sec: PERIOD.as_secs().cast_signed(), tv_nsec: 0 };
    let times = Itimerspec { it_interval: period, it_value: period };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
    Ok(timer)
}

/// Returns whether a timer or an eventfd has fired, and clears it.
pub(crate) fn take(fd: impl AsFd) -> bool {
    rustix::io::read(fd, &mut [0; 8]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use linecard_eal::eventfd::EventFd;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn one_descriptor_tells_of_all_parts() {
        let (events, first, second) = (
            Events::new().expect("an epoll"),
            EventFd::new().expect("an eventfd"),
            EventFd::new().expect("an eventfd"),
        );
        events.add(&first).expect("room");
        events.add(&second).expect("room");
        let ready = || {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&now)).expect("poll") > 0
        };
        assert!(!ready() && !take(&first));
        for part in [&first, &second] {
            part.signal();
            assert!(ready() && take(part) && !take(part) && !ready());
        }
        drop(second);
        assert!(!ready());
    }
}
