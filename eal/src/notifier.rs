//! Eventfds whose signalling a peer may slow down.
//!
//! A peer that holds an eventfd can add it to any number of epoll instances, and a signal wakes each of them
//! before it returns: within ordinary limits, one process can make a signal take half a second. Nothing can
//! bound a signal that has begun. Therefore a thread that serves several ports signals a descriptor only if
//! that cannot take long, and otherwise a thread for which only this port waits ([`Executor`]) does:
//!
//! - The descriptor's last signal must have taken at most 0.2 ms and be at most 2 ms old. Watches can only be
//!   added one at a time under the lock that the signal takes, and each costs a signal less than half of the
//!   time it takes to add it (0.18 with epoll, 0.46 with asynchronous I/O, measured on Linux 6.18). So a signal
//!   takes about 1 ms longer than the last one at most. A new descriptor, and one that is signalled less than
//!   500 times per second, is signalled by the port's thread, which costs about one context switch.
//! - Each port has a [`SignalBudget`] for the excess time of all its signals. While it is spent, the port's
//!   thread sends them. The budget belongs to the port and not to a descriptor, because a peer can send new
//!   descriptors and reconnect as often as it likes.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::eventfd::signal;
use crate::helper::{Executor, Helper};

/// The duration of a signal that is not charged. A normal signal takes about a microsecond.
const ORDINARY: Duration = Duration::from_micros(20);
/// The excess time of a port's signals before its own thread sends them. It covers the preemption of a
/// polling thread during a signal, which the peer does not cause.
const MOST: Duration = Duration::from_millis(5);
/// The duration of a signal after which the next one may be sent by the caller, ...
const QUICK: Duration = Duration::from_micros(200);
/// ... within this time.
const RECENT: Duration = Duration::from_millis(2);
/// The time in nanoseconds in which one nanosecond of debt is paid off: a port gets 1 ms per second.
const PAY: u64 = 1000;

const RECENT_NANOS: u64 = RECENT.as_nanos() as u64;

/// The time that the signals of one port may cost the threads that poll it: 5 ms of excess, and then 1 ms per
/// second. The excess of a slow signal is a debt that is paid off at that rate over time; fast signals do not
/// reduce it.
///
/// Keep the budget when the peer reconnects, so that reconnecting does not cancel the debt.
///
/// ```
/// use std::sync::Arc;
/// use linecard_eal::notifier::{Notifier, SignalBudget};
///
/// let budget = Arc::<SignalBudget>::default();
/// let (_reader, one) = std::io::pipe()?;
/// let other = one.try_clone()?;
/// // One budget for all queues of the port.
/// let _queues = [one, other].map(|signal| Notifier::new(signal, &budget));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SignalBudget {
    began: Instant,
    /// The time at which the debt will be paid off, in nanoseconds from `began`.
    paid: AtomicU64,
    executor: Arc<dyn Executor>,
}

impl Default for SignalBudget {
    fn default() -> Self {
        Self::new(Arc::new(Helper::default()))
    }
}

impl SignalBudget {
    /// Creates the budget of a port whose own thread is `executor`.
    pub fn new(executor: Arc<dyn Executor>) -> Self {
        Self { began: Instant::now(), paid: AtomicU64::new(0), executor }
    }

    /// Whether the port's own thread sends its signals at this time.
    fn is_spent_at(&self, now: Instant) -> bool {
        const CREDIT: u64 = MOST.as_nanos() as u64 * PAY;
        self.paid.load(Ordering::Relaxed) > self.since(now).saturating_add(CREDIT)
    }

    fn since(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Charges a signal that began at `from` and returned at `to`.
    #[inline]
    fn note(&self, from: Instant, to: Instant) {
        let took = to.saturating_duration_since(from);
        if took > ORDINARY {
            self.charge(took - ORDINARY, to);
        }
    }

    #[cold]
    fn charge(&self, excess: Duration, now: Instant) {
        let debt = u64::try_from(excess.as_nanos()).unwrap_or(u64::MAX).saturating_mul(PAY);
        let now = self.since(now);
        let more = |paid: u64| Some(paid.max(now).saturating_add(debt));
        // Always succeeds: `more` never returns `None`.
        let _ = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

/// An eventfd to be signalled; see the [module](self).
///
/// ```
/// use std::os::fd::{FromRawFd, OwnedFd};
/// use std::sync::Arc;
/// use linecard_eal::notifier::{Notifier, SignalBudget};
///
/// // SAFETY: takes integers.
/// let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
/// // SAFETY: just made, and checked by the assertion below.
/// let notifier = Arc::new(Notifier::new(unsafe { OwnedFd::from_raw_fd(fd) }, &Arc::<SignalBudget>::default()));
/// assert!(notifier.notify());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Notifier<F> {
    fd: F,
    signal_budget: Arc<SignalBudget>,
    /// Until when a caller may signal, in nanoseconds from the beginning of the budget.
    quick_until: AtomicU64,
    /// Whether the port's thread was asked to signal and has not begun.
    asked: AtomicBool,
}

impl<F: AsFd + Send + Sync + 'static> Notifier<F> {
    /// Wraps an eventfd of the port to which `signal_budget` belongs. Starts the port's thread, so that
    /// [`notify`](Self::notify) never has to.
    pub fn new(fd: F, signal_budget: &Arc<SignalBudget>) -> Self {
        signal_budget.executor.prepare();
        let (quick_until, asked) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { fd, signal_budget: Arc::clone(signal_budget), quick_until, asked }
    }

    /// Adds one to the counter, now or soon, without ever blocking; for a thread that polls the port. Takes
    /// about 1 ms at most, whatever the peer does. Signals in quick succession may be merged. False if the
    /// kernel refused, or if too many jobs wait for the port's thread.
    pub fn notify(self: &Arc<Self>) -> bool {
        let began = Instant::now();
        if !self.is_quick_at(began) || self.signal_budget.is_spent_at(began) {
            return self.notify_later();
        }
        self.notify_at(began)
    }

    /// Adds one to the counter, now unless the port's budget is spent; for a thread for which only this port
    /// waits.
    pub fn notify_from_own_thread(self: &Arc<Self>) -> bool {
        let began = Instant::now();
        if self.signal_budget.is_spent_at(began) {
            return self.notify_later();
        }
        self.notify_at(began)
    }

    fn notify_at(&self, began: Instant) -> bool {
        let counted = signal(self.fd.as_fd()).is_ok();
        let ended = Instant::now();
        self.signal_budget.note(began, ended);
        self.note(began, ended);
        counted
    }

    /// Whether a signal at this time takes little more than the last one, which was quick.
    #[inline]
    fn is_quick_at(&self, now: Instant) -> bool {
        self.signal_budget.since(now) <= self.quick_until.load(Ordering::Relaxed)
    }

    /// Notes a signal that began at `from` and returned at `to`.
    #[inline]
    fn note(&self, from: Instant, to: Instant) {
        let quick = to.saturating_duration_since(from) <= QUICK;
        let until = if quick { self.signal_budget.since(to).saturating_add(RECENT_NANOS) } else { 0 };
        self.quick_until.store(until, Ordering::Relaxed);
    }

    /// Has the port's thread add one to the counter soon.
    #[cold]
    fn notify_later(self: &Arc<Self>) -> bool {
        // B1, pairs with B2: what was done before the signal is visible to the thread that is woken.
        if self.asked.swap(true, Ordering::AcqRel) {
            return true;
        }
        // A descriptor that is no longer used is not kept open for this.
        let notifier = Arc::downgrade(self);
        let job = move || notifier.upgrade().into_iter().for_each(|notifier| notifier.notify_now());
        let taken = self.signal_budget.executor.run(Box::new(job));
        if !taken {
            self.asked.store(false, Ordering::Release);
        }
        taken
    }

    fn notify_now(&self) {
        // B2, pairs with B1: a request from here on leads to another signal.
        self.asked.swap(false, Ordering::AcqRel);
        let began = Instant::now();
        // There is no caller to return the result to.
        let _ = signal(self.fd.as_fd());
        self.note(began, Instant::now());
    }
}

impl<F: AsFd> AsFd for Notifier<F> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    fn owned(fd: libc::c_int) -> OwnedFd {
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just created, nothing else owns it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn event() -> OwnedFd {
        // SAFETY: takes integers.
        owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
    }

    /// Creates `epolls` epoll instances, each of which watches `fds` duplicates of `event`.
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

    /// The total duration of `rings` calls of `ring`.
    fn attack(rings: usize, mut ring: impl FnMut(usize)) -> Duration {
        let began = Instant::now();
        (0..rings).for_each(&mut ring);
        began.elapsed()
    }

    /// An eventfd with a hundred thousand watches, the watchers, and the duration of a signal; `None`, and
    /// reported, on a machine on which the watches do not slow it down.
    fn slow(test: &str) -> Option<(OwnedFd, Vec<OwnedFd>, Duration)> {
        let event = event();
        let watchers = watch(&event, 250, 400);
        let took = (0..3).map(|_| attack(1, |_| signal(event.as_fd()).expect("room"))).min().expect("three");
        if took < Duration::from_millis(2) {
            linecard_testing::skip(test, &format!("a signal takes {took:?} here, however many watch"));
            return None;
        }
        Some((event, watchers, took))
    }

    #[test]
    fn a_slow_eventfd_costs_no_more_for_fast_ones_between_its_signals() {
        let test = "a_slow_eventfd_costs_no_more_for_fast_ones_between_its_signals";
        let Some((slow, watchers, took)) = slow(test) else { return };
        let mut counter = std::fs::File::from(slow.try_clone().expect("a descriptor"));
        let signal_budget = Arc::<SignalBudget>::default();
        let (slow, fast) =
            (Arc::new(Notifier::new(slow, &signal_budget)), Arc::new(Notifier::new(event(), &signal_budget)));
        let mut longest = Duration::ZERO;
        let all = attack(400, |n| {
            let began = Instant::now();
            assert!(if n % 2 == 0 { slow.notify() } else { fast.notify() });
            longest = longest.max(began.elapsed());
        });
        // Of 200 slow signals the caller sends none. (It may be preempted meanwhile.)
        let most = took * 20 + 8 * MOST;
        assert!(all < most, "400 rings took {all:?}, one signal {took:?}");
        // Another port's notifier is not affected while the slow one's thread is busy.
        let other = Arc::<SignalBudget>::default();
        assert!(Arc::new(Notifier::new(event(), &other)).notify() && !other.is_spent_at(Instant::now()));
        // The peer still gets its signals.
        drop(watchers);
        let mut count = [0; 8];
        counter.read_exact(&mut count).expect("a count");
        assert!(slow.notify());
        counter.read_exact(&mut count).expect("the thread rings");
    }

    #[test]
    fn new_descriptors_are_no_new_allowance() {
        let test = "new_descriptors_are_no_new_allowance";
        let Some((slow, _watchers, took)) = slow(test) else { return };
        let signal_budget = Arc::<SignalBudget>::default();
        let all = attack(200, |_| {
            let again = slow.try_clone().expect("a descriptor");
            // False once its thread has too many jobs: each of these is a separate job.
            Arc::new(Notifier::new(again, &signal_budget)).notify();
        });
        assert!(all < took * 20 + 8 * MOST, "200 new descriptors took {all:?}, one signal {took:?}");
    }

    #[test]
    fn what_the_ports_thread_sends_makes_the_caller_wait_for_no_signal() {
        let test = "what_the_ports_thread_sends_makes_the_caller_wait_for_no_signal";
        let Some((slow, _watchers, took)) = slow(test) else { return };
        let notifier = Arc::new(Notifier::new(slow, &Arc::default()));
        // The best of several, since the thread may be preempted at any time.
        let best = (0..20).map(|_| attack(1, |_| assert!(notifier.notify_later()))).min().expect("some");
        assert!(best < took / 4, "it took {best:?}, a signal {took:?}");
    }

    /// Watches as many as a signal takes long for, added at any time: the caller signals what it signalled just before, and
    /// nothing else.
    #[test]
    fn the_caller_never_sends_a_signal_that_may_take_long() {
        let test = "the_caller_never_sends_a_signal_that_may_take_long";
        let Some((slow, _watchers, took)) = slow(test) else { return };
        let signal_budget = Arc::<SignalBudget>::default();
        // The best of several new descriptors, since the thread may be preempted at any time.
        let best = (0..20).map(|_| {
            let again = Arc::new(Notifier::new(slow.try_clone().expect("a descriptor"), &signal_budget));
            attack(1, |_| assert!(again.notify()))
        });
        let best = best.min().expect("some");
        assert!(best < took / 4, "the first signal took {best:?}, {took:?} by itself");
        assert!(!signal_budget.is_spent_at(Instant::now()), "the port's thread is not charged");
    }

    #[test]
    fn only_a_quick_signal_vouches_for_the_next_one_and_not_for_long() {
        let signal_budget = Arc::<SignalBudget>::default();
        let notifier = Arc::new(Notifier::new(event(), &signal_budget));
        let at = |micros: u64| signal_budget.began + Duration::from_micros(micros);
        assert!(!notifier.is_quick_at(at(1)), "nothing is known of it");
        notifier.note(at(1000), at(1200));
        assert!(notifier.is_quick_at(at(3200)), "2 ms after");
        assert!(!notifier.is_quick_at(at(3201)), "watches may have been added");
        notifier.note(at(3000), at(3201));
        assert!(!notifier.is_quick_at(at(3202)), "it was slow");
        notifier.note(at(4000), at(4001));
        assert!(notifier.is_quick_at(at(4002)), "once again");
        // Whoever sends it, it is measured.
        let later = Arc::new(Notifier::new(event(), &Arc::default()));
        assert!(later.notify());
        let began = Instant::now();
        while later.quick_until.load(Ordering::Relaxed) == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "the port's thread signals");
            std::thread::yield_now();
        }
        let mut count = [0; 8];
        std::fs::File::from(later.fd.try_clone().expect("a descriptor"))
            .read_exact(&mut count)
            .expect("a count");
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    /// What both ways cost; for a person: `cargo test --release -p linecard-eal --lib what_both -- --ignored --nocapture`.
    #[test]
    #[ignore = "it measures what SECURITY.md states, and asserts nothing"]
    fn what_both_ways_cost() {
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        for direct in [true, false] {
            let notifier = Arc::new(Notifier::new(event(), &Arc::default()));
            let mut counter = std::fs::File::from(notifier.fd.try_clone().expect("a descriptor"));
            let (woke, wakes) = std::sync::mpsc::channel();
            let reader = std::thread::spawn(move || {
                for _ in 0..2000 {
                    counter.read_exact(&mut [0; 8]).expect("a count");
                    woke.send(Instant::now()).expect("somebody waits");
                }
            });
            let (mut call, mut latency) = (Vec::new(), Vec::new());
            for _ in 0..2000 {
                std::thread::sleep(Duration::from_millis(1));
                let began = Instant::now();
                if direct {
                    notifier.notify_now()
                } else {
                    assert!(notifier.notify_later())
                }
                call.push(began.elapsed());
                latency.push(wakes.recv().expect("it wakes").saturating_duration_since(began));
            }
            reader.join().expect("no panic");
            println!(
                "direct: {direct}; the call {:?}, until the reader runs {:?}",
                median(call),
                median(latency)
            );
        }
    }

    #[test]
    fn debts_are_paid_off_and_never_forgiven() {
        let signal_budget = SignalBudget::default();
        let at = |ms: u64| signal_budget.began + Duration::from_millis(ms);
        let second = 1000;
        signal_budget.note(at(0), at(5));
        assert!(!signal_budget.is_spent_at(at(5)), "4.98 ms of 5");
        signal_budget.note(at(5), at(6));
        assert!(signal_budget.is_spent_at(at(6)));
        (6..100).for_each(|ms| signal_budget.note(at(ms), at(ms) + ORDINARY));
        assert!(signal_budget.is_spent_at(at(100)), "fast ones forgive nothing");
        assert!(!signal_budget.is_spent_at(at(second)), "0.96 ms are paid off");
        signal_budget.note(at(second), at(second + 50));
        assert!(signal_budget.is_spent_at(at(45 * second)), "of 54 ms 9 are left");
        assert!(!signal_budget.is_spent_at(at(51 * second)), "4");
        // An endless duration does not panic.
        signal_budget.charge(Duration::MAX, at(second));
        assert!(signal_budget.is_spent_at(at(1 << 40)));
    }
}
