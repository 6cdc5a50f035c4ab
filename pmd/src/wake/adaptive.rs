//! Adaptive polling: the loop between polling and sleeping.

use std::time::{Duration, Instant};

use linecard_eal::wake::{ArmBudget, fence};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Armed;
use crate::port::RxQueue;

/// The polling interval for queues that cannot wake a thread, or that woke it several times in a row without
/// a packet, and for a thread that has armed its queues as often as an [`ArmBudget`] allows.
pub const NAP: Duration = Duration::from_micros(100);
/// The number of wake-ups in a row without a packet after which the thread naps before it polls again.
const FALSE_ALARMS: u32 = 4;

/// The outcome of one [`wait`](Adaptive::wait).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// The thread did not sleep: packets moved, now or within the spin time.
    Busy,
    /// A queue said that it has packets.
    Ready,
    /// A queue woke the thread.
    Woken,
    /// The timeout passed, or a [`NAP`]: a queue cannot wake the thread, or the thread has been woken too often.
    Passed,
}

/// Polls any number of queues while there is traffic, and sleeps once there was none for a while.
///
/// Arming interrupts the other polling threads of the process. Therefore a thread arms its queues together,
/// with one fence, and at most [`ArmBudget::PER_SECOND`] times per second; beyond that it sleeps for a [`NAP`]
/// instead, and polls again. The first packet after a quiet time always wakes it at once.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_net_ring as ring;
/// # use linecard_pmd::{PortConfig, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// use std::time::Duration;
/// use linecard_pmd::wake::{Adaptive, WaitOutcome};
///
/// let (left, right) = ring::pair("left", "right");
/// let mut left = configure(left, PortConfig::default())?.start(&pool)?;
/// let mut right = configure(right, PortConfig::default())?.start(&pool)?;
/// let mut adaptive = Adaptive::new(Duration::from_micros(20), Duration::from_millis(5));
/// let mut packets = Burst::new();
/// for _ in 0..1000 {
///     let moved = left.rx[0].rx_burst(&mut packets) + right.rx[0].rx_burst(&mut packets);
///     adaptive.wait(moved, &mut [&mut *left.rx[0], &mut *right.rx[0]]);
/// }
/// assert!(adaptive.asleep() > Duration::ZERO); // nobody sent anything
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Adaptive {
    spin: Duration,
    bound: Duration,
    /// When the first round without a packet ended.
    idle: Option<Instant>,
    false_alarms: u32,
    budget: ArmBudget,
    asleep: Duration,
    sleeps: u64,
}

impl Default for Adaptive {
    /// Spins for 50 µs, sleeps for 100 ms at most.
    fn default() -> Self {
        Self::new(Duration::from_micros(50), Duration::from_millis(100))
    }
}

impl Adaptive {
    /// Continues polling for `spin` after the last packet, and never sleeps longer than `bound` at a time, so
    /// that the caller can do other work.
    #[must_use]
    pub const fn new(spin: Duration, bound: Duration) -> Self {
        let (asleep, budget) = (Duration::ZERO, ArmBudget::new());
        Self { spin, bound, idle: None, false_alarms: 0, budget, asleep, sleeps: 0 }
    }

    /// Changes the longest sleep, for a caller with its own deadline. With `Duration::MAX` only a queue wakes
    /// the caller; the packets of a peer that does not signal then wait until another queue wakes the caller.
    ///
    /// ```
    /// use std::time::Duration;
    /// use linecard_pmd::wake::{Adaptive, WaitOutcome};
    /// let mut adaptive = Adaptive::new(Duration::ZERO, Duration::MAX);
    /// adaptive.set_bound(Duration::from_millis(1));
    /// assert_eq!(adaptive.wait(0, &mut []), WaitOutcome::Passed);
    /// ```
    pub const fn set_bound(&mut self, bound: Duration) {
        self.bound = bound;
    }

    /// Call this after each round over `queues`, with the number of packets it moved. Returns at once while
    /// there is traffic; otherwise sleeps until a queue wakes the thread or the timeout passes. `queues` must
    /// be all queues that the thread polls.
    #[inline]
    pub fn wait(&mut self, moved: usize, queues: &mut [&mut dyn RxQueue]) -> WaitOutcome {
        if moved > 0 {
            self.idle = None;
            self.false_alarms = 0;
            return WaitOutcome::Busy;
        }
        self.nothing(queues)
    }

    /// The total time spent asleep.
    #[must_use]
    pub const fn asleep(&self) -> Duration {
        self.asleep
    }

    /// The number of sleeps.
    #[must_use]
    pub const fn sleeps(&self) -> u64 {
        self.sleeps
    }

    #[cold]
    fn nothing(&mut self, queues: &mut [&mut dyn RxQueue]) -> WaitOutcome {
        let now = Instant::now();
        let since = *self.idle.get_or_insert(now);
        if now.saturating_duration_since(since) < self.spin {
            std::hint::spin_loop();
            return WaitOutcome::Busy;
        }
        if !self.budget.take(now) {
            return self.nap(now);
        }
        let (ready, able) = arm(queues);
        let outcome = if ready {
            self.alarm(now, WaitOutcome::Ready)
        } else {
            let bound = if able { self.bound } else { self.bound.min(NAP) };
            let woken = wait(queues, bound);
            self.slept(now);
            if woken { self.alarm(Instant::now(), WaitOutcome::Woken) } else { WaitOutcome::Passed }
        };
        queues.iter_mut().for_each(|queue| queue.disarm());
        outcome
    }

    /// Handles a queue's announcement of packets. After several false announcements in a row, the thread naps
    /// first.
    fn alarm(&mut self, now: Instant, why: WaitOutcome) -> WaitOutcome {
        self.false_alarms = self.false_alarms.saturating_add(1);
        if self.false_alarms <= FALSE_ALARMS {
            return why;
        }
        self.nap(now)
    }

    fn nap(&mut self, now: Instant) -> WaitOutcome {
        std::thread::sleep(NAP.min(self.bound));
        self.slept(now);
        WaitOutcome::Passed
    }

    fn slept(&mut self, since: Instant) {
        self.asleep = self.asleep.saturating_add(since.elapsed());
        self.sleeps = self.sleeps.saturating_add(1);
    }
}

/// Arms the queues with one fence. Returns whether one has packets already, in which case some are not armed,
/// and whether each of them can wake the thread.
fn arm(queues: &mut [&mut dyn RxQueue]) -> (bool, bool) {
    let mut asks = false;
    for queue in queues.iter_mut() {
        asks |= queue.begin_arm();
    }
    if asks {
        fence();
    }
    let mut able = true;
    for queue in queues.iter_mut() {
        match queue.finish_arm() {
            Armed::Ready => return (true, able),
            Armed::Unable => able = false,
            Armed::Asleep => {}
        }
    }
    (false, able)
}

/// Waits for any of the queues that have a descriptor; returns whether one became ready.
fn wait(queues: &[&mut dyn RxQueue], bound: Duration) -> bool {
    let mut set: Vec<PollFd<'_>> = Vec::with_capacity(queues.len());
    set.extend(queues.iter().filter_map(|queue| {
        let event = queue.event()?;
        Some(PollFd::from_borrowed_fd(event, PollFlags::IN))
    }));
    let bound = Timespec {
        tv_sec: i64::try_from(bound.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: bound.subsec_nanos().into(),
    };
    // An interrupted call counts as the end of the timeout.
    poll(&mut set, Some(&bound)).is_ok_and(|ready| ready > 0)
}
