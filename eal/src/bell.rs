//! Eventfds that a peer may make slow.
//!
//! Whoever holds an eventfd may watch it with any number of epolls, and each signal tells all of them before it returns:
//! a process with the ordinary limits makes one signal take 50 ms, and longer with more descriptors. So a [`Bell`] takes the
//! time. A port whose signals took long several times in a row has them sent by a thread from then on, which does that for
//! all such ports and harms nobody else.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use crate::eventfd::signal;

/// A signal that takes this long is slow. An ordinary one takes about a microsecond, but a thread can lose its core.
const LONG: Duration = Duration::from_millis(1);
/// So many slow signals in a row are no accident.
const MOST: u8 = 8;

/// How many signals in a row were slow, for all bells of one port; to be kept when the peer comes back.
///
/// ```
/// let strikes = linecard_eal::bell::Strikes::default();
/// assert!(!strikes.out());
/// ```
#[derive(Debug, Default)]
pub struct Strikes(AtomicU8);

impl Strikes {
    /// Whether there were too many. That stays so.
    #[must_use]
    pub fn out(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= MOST
    }

    fn note(&self, took: Duration) {
        let now = self.0.load(Ordering::Relaxed);
        if took >= LONG {
            self.0.store(now.saturating_add(1), Ordering::Relaxed);
        } else if now != 0 && now < MOST {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// An eventfd to signal; see the [module](self).
///
/// ```
/// use std::os::fd::{FromRawFd, OwnedFd};
/// use std::sync::Arc;
/// use linecard_eal::bell::{Bell, Strikes};
///
/// // SAFETY: takes integers.
/// let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
/// // SAFETY: just made, and checked by the assertion below.
/// let bell = Arc::new(Bell::new(unsafe { OwnedFd::from_raw_fd(fd) }, &Arc::<Strikes>::default()));
/// assert!(bell.ring());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Bell<F> {
    fd: F,
    strikes: Arc<Strikes>,
    /// The thread has been asked and has not begun.
    asked: AtomicBool,
}

impl<F: AsFd + Send + Sync + 'static> Bell<F> {
    /// A bell of the port that `strikes` counts for.
    pub fn new(fd: F, strikes: &Arc<Strikes>) -> Self {
        Self { fd, strikes: Arc::clone(strikes), asked: AtomicBool::new(false) }
    }

    /// Adds one to the counter now or soon; never sleeps. False when the kernel refused. Signals that follow each other
    /// closely may be one.
    pub fn ring(self: &Arc<Self>) -> bool {
        if self.strikes.out() && self.leave_to_thread() {
            return true;
        }
        let began = Instant::now();
        let counted = signal(self.fd.as_fd()).is_ok();
        self.strikes.note(began.elapsed());
        counted
    }

    #[cold]
    fn leave_to_thread(self: &Arc<Self>) -> bool {
        let Some(thread) = thread() else { return false };
        // B1, pairs with B2: what was to be signalled before is visible to whoever is woken.
        self.asked.swap(true, Ordering::AcqRel) || thread.send(Arc::clone(self) as _).is_ok()
    }
}

impl<F: AsFd> AsFd for Bell<F> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

trait Slow: Send + Sync {
    fn ring_now(&self);
}

impl<F: AsFd + Send + Sync> Slow for Bell<F> {
    fn ring_now(&self) {
        // B2, pairs with B1: asked again from here on, it is rung again.
        self.asked.swap(false, Ordering::AcqRel);
        // What the kernel refuses it refuses: nobody waits for an answer.
        let _ = signal(self.fd.as_fd());
    }
}

/// The thread for all slow bells, made for the first of them.
fn thread() -> Option<&'static mpsc::Sender<Arc<dyn Slow>>> {
    static THREAD: OnceLock<Option<mpsc::Sender<Arc<dyn Slow>>>> = OnceLock::new();
    let start = || {
        let (sender, bells) = mpsc::channel::<Arc<dyn Slow>>();
        let body = move || bells.into_iter().for_each(|bell| bell.ring_now());
        std::thread::Builder::new().name("lc-slow-bells".into()).spawn(body).ok().map(|_| sender)
    };
    THREAD.get_or_init(start).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    fn owned(fd: libc::c_int) -> OwnedFd {
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just made, nobody else owns it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn event() -> OwnedFd {
        // SAFETY: takes integers.
        owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
    }

    /// `epolls` epolls, each of which watches `fds` duplicates of `event`.
    fn watch(event: &OwnedFd, epolls: usize, fds: usize) -> Vec<OwnedFd> {
        let copies: Vec<_> = (0..fds).map(|_| event.try_clone().expect("a descriptor")).collect();
        let mut all = Vec::new();
        for _ in 0..epolls {
            // SAFETY: takes an integer.
            let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
            for copy in &copies {
                let mut what = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
                let (epoll, fd) = (epoll.as_raw_fd(), copy.as_raw_fd());
                // SAFETY: reads `what`, which lives across the call.
                assert_eq!(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut what) }, 0);
            }
            all.push(epoll);
        }
        all.extend(copies);
        all
    }

    #[test]
    fn an_eventfd_that_a_hundred_thousand_watch_slows_nobody_for_long() {
        let event = event();
        let mut counter = std::fs::File::from(event.try_clone().expect("a descriptor"));
        let watchers = watch(&event, 250, 400);
        let began = Instant::now();
        signal(event.as_fd()).expect("room");
        let slow = began.elapsed();
        let strikes = Arc::<Strikes>::default();
        let bell = Arc::new(Bell::new(event, &strikes));
        let began = Instant::now();
        (0..1000).for_each(|_| assert!(bell.ring()));
        let all = began.elapsed();
        if slow < 2 * LONG {
            println!("a machine on which {slow:?} is all that takes: nothing to see");
            return;
        }
        assert!(all < slow * 200, "1000 rings took {all:?}, one signal {slow:?}");
        assert!(strikes.out());
        drop(watchers);
        // The peer is still told.
        let mut count = [0; 8];
        counter.read_exact(&mut count).expect("a count");
        assert!(bell.ring());
        counter.read_exact(&mut count).expect("the thread rings");
        // Another port's bell is its own affair.
        let other = Arc::<Strikes>::default();
        assert!(Arc::new(Bell::new(self::event(), &other)).ring() && !other.out());
    }

    #[test]
    fn accidents_are_forgiven() {
        let strikes = Strikes::default();
        for _ in 0..3 {
            (1..MOST).for_each(|_| strikes.note(LONG));
            assert!(!strikes.out());
            strikes.note(LONG / 2);
        }
        (0..MOST).for_each(|_| strikes.note(LONG));
        assert!(strikes.out());
        strikes.note(LONG / 2);
        assert!(strikes.out());
    }
}
