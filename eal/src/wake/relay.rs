//! A thread that waits for a port's peer, so that no polling thread has to.
//!
//! A thread that waits on an eventfd enters a list under a lock that every signal holds while it walks the
//! list, and the peer decides how long the list is (see [`notifier`](crate::notifier)). Therefore a thread of
//! the port waits on a peer's eventfd and passes each signal on to the [`Wake`] of the queue, an eventfd that
//! no peer has.
//!
//! The peer's counter is never read, because the peer controls its flags and therefore whether a read blocks.
//! The thread uses edge-triggered events instead; each signal is an edge.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::Wake;
use crate::eventfd::EventFd;

/// A peer's descriptor; shared, because it may still be watched after the peer has disconnected.
pub type Source = Arc<dyn AsFd + Send + Sync>;

/// The epoll token of the descriptor that reports changes of the sources.
const CHANGED: u64 = u64::MAX;
/// The number of signals taken from the kernel at once.
const BATCH: usize = 16;
/// The number of signals after which the thread sleeps for the rest of a [`PERIOD`].
const SIGNALS: usize = 64 - BATCH;
/// The weight of a signal that was not requested.
const UNASKED: usize = 8;
/// See [`SIGNALS`].
const PERIOD: Duration = Duration::from_millis(1);
/// The stack size of the thread in bytes; unused pages use no memory.
const STACK: usize = 128 << 10;

/// Passes the signals of one port's peer on to the sleeping queues.
///
/// Its thread starts when a queue is [prepared](Self::prepare), or else when one is armed for the first time: a
/// port whose queues are only polled has none.
/// However often a peer signals, it wakes a port's sleepers at most 64 times per millisecond.
///
/// ```
/// use linecard_eal::{eventfd::EventFd, wake::Relay};
/// use std::sync::Arc;
///
/// let call = Arc::new(EventFd::new()?); // what the peer signals
/// let relay = Relay::new("net_virtio_user0", 1);
/// relay.set(0, Some(call.clone()));
/// assert!(relay.prepare(0)); // starts the thread
/// assert!(relay.arm(0));
/// call.signal(); // and `relay.wake(0)` has an event that becomes readable soon
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Relay {
    shared: Arc<RelayState>,
    /// Whether the thread could be started.
    started: OnceLock<bool>,
}

struct RelayState {
    name: String,
    queues: Vec<Queue>,
    /// Signalled when a source changes or the relay is dropped. Created with the thread.
    changed: OnceLock<EventFd>,
    over: AtomicBool,
}

#[derive(Default)]
struct Queue {
    wake: Arc<Wake>,
    told: Mutex<Announced>,
}

/// The source of a queue, set by the control thread.
#[derive(Default)]
struct Announced {
    source: Option<Source>,
    /// Incremented with each change of the source.
    turn: u64,
}

impl Queue {
    fn told(&self) -> MutexGuard<'_, Announced> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Creates the relay of a port with this name and this number of queues, which have no sources yet.
    #[must_use]
    pub fn new(name: &str, queues: usize) -> Self {
        let queues = (0..queues).map(|_| Queue::default()).collect();
        let (changed, over) = (OnceLock::new(), AtomicBool::new(false));
        let shared = Arc::new(RelayState { name: name.to_owned(), queues, changed, over });
        Self { shared, started: OnceLock::new() }
    }

    /// The `Wake` of the sleeper of `queue`.
    #[must_use]
    pub fn wake(&self, queue: usize) -> Option<&Arc<Wake>> {
        self.shared.queues.get(queue).map(|queue| &queue.wake)
    }

    /// Sets the descriptor that the peer signals when it has something for `queue`. The sleeper wakes and
    /// must arm again. For the port's control thread.
    pub fn set(&self, queue: usize, source: Option<Source>) {
        let Some(place) = self.shared.queues.get(queue) else { return };
        let before = {
            let mut told = place.told();
            told.turn = told.turn.wrapping_add(1);
            std::mem::replace(&mut told.source, source)
        };
        drop(before);
        if let Some(changed) = self.shared.changed.get() {
            changed.signal();
        }
        place.wake.wake();
    }

    /// Starts the thread and creates the descriptor of `queue`, so that [`arm`](Self::arm) does not have to;
    /// false if the system has no thread or no descriptor for it. Call it on a thread for which the cost of
    /// creating a thread is acceptable: not one that polls.
    pub fn prepare(&self, queue: usize) -> bool {
        self.shared.queues.get(queue).is_some_and(|queue| queue.wake.prepare()) && self.is_started()
    }

    fn is_started(&self) -> bool {
        *self.started.get_or_init(|| start(&self.shared))
    }

    /// Arms `queue`; false if the system has no thread or no descriptor for it.
    pub fn arm(&self, queue: usize) -> bool {
        let Some(place) = self.shared.queues.get(queue) else { return false };
        place.wake.arm() && self.is_started()
    }

    /// As [`arm`](Self::arm), without the fence; see [`Wake::request`].
    pub fn request(&self, queue: usize) -> bool {
        let Some(place) = self.shared.queues.get(queue) else { return false };
        place.wake.request() && self.is_started()
    }

    /// Whether `queue` has what it needs to be armed: a thread and a descriptor.
    pub fn is_able(&self, queue: usize) -> bool {
        self.started.get() == Some(&true) && self.wake(queue).is_some_and(|wake| wake.event().is_some())
    }

    /// Wakes every sleeper of the port, because its rings have changed.
    pub fn wake_all(&self) {
        for queue in &self.shared.queues {
            queue.wake.wake();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // Not joined: it may be in a call that the peer slows down, and nothing waits for its result.
        if let Some(changed) = self.shared.changed.get() {
            changed.signal();
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("port", &self.shared.name).finish_non_exhaustive()
    }
}

/// Starts the thread; false if that fails.
fn start(shared: &Arc<RelayState>) -> bool {
    let made = Watcher::new(shared).and_then(|watcher| {
        let name = format!("lc-wake {}", shared.name);
        let thread = std::thread::Builder::new().name(name).stack_size(STACK);
        thread.spawn(move || watcher.run()).map_err(|_| rustix::io::Errno::AGAIN)
    });
    if let Err(error) = &made {
        tracing::warn!("{}: its queues cannot wake anybody and have to be polled: {error}", shared.name);
    }
    made.is_ok()
}

/// The state of the thread.
struct Watcher {
    shared: Arc<RelayState>,
    epoll: std::os::fd::OwnedFd,
    /// The watched source of each queue, and the turn in which it was set.
    watched: Vec<(Option<Source>, u64)>,
    pace: RateLimit,
}

impl Watcher {
    fn new(shared: &Arc<RelayState>) -> rustix::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let event = EventFd::new().map_err(|_| rustix::io::Errno::MFILE)?;
        // Only this sets it: the thread is started once.
        let changed = shared.changed.get_or_init(|| event);
        epoll::add(&epoll, changed, EventData::new_u64(CHANGED), EventFlags::IN)?;
        let watched = shared.queues.iter().map(|_| (None, 0)).collect();
        Ok(Self { shared: Arc::clone(shared), epoll, watched, pace: RateLimit::new() })
    }

    fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(BATCH);
        while !self.shared.over.load(Ordering::Acquire) {
            self.follow();
            events.clear();
            // The only error is an interruption.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), None);
            let mut weight = 0;
            for event in &events {
                let token = event.data.u64();
                if token == CHANGED {
                    self.shared.changed.get().into_iter().for_each(EventFd::drain);
                    weight += 1;
                } else if let Some(queue) =
                    usize::try_from(token).ok().and_then(|queue| self.shared.queues.get(queue))
                {
                    weight += if queue.wake.wake() { 1 } else { UNASKED };
                }
            }
            if let Some(rest) = self.pace.passed(weight, Instant::now()) {
                std::thread::sleep(rest);
            }
        }
    }

    /// Watches the sources that the control thread has changed.
    fn follow(&mut self) {
        for (token, (queue, (watched, turn))) in
            (0_u64..).zip(self.shared.queues.iter().zip(&mut self.watched))
        {
            let told = queue.told();
            if told.turn == *turn {
                continue;
            }
            *turn = told.turn;
            let fresh = told.source.clone();
            drop(told);
            if let Some(old) = std::mem::replace(watched, fresh) {
                // There is nothing to do about an error: the old source is no longer watched.
                let _ = epoll::delete(&self.epoll, &*old);
            }
            if let Some(source) = watched {
                let edge = EventFlags::IN | EventFlags::ET;
                if let Err(error) = epoll::add(&self.epoll, &**source, EventData::new_u64(token), edge) {
                    tracing::warn!("{}: queue {token} wakes nobody: {error}", self.shared.name);
                }
            }
        }
    }
}

/// The number of signals passed on in the current period.
struct RateLimit {
    until: Instant,
    passed: usize,
}

impl RateLimit {
    fn new() -> Self {
        Self { until: Instant::now(), passed: 0 }
    }

    /// Counts signals with their weight; returns how long to sleep if there were too many.
    fn passed(&mut self, signals: usize, now: Instant) -> Option<Duration> {
        if now >= self.until {
            self.until = now.checked_add(PERIOD)?;
            self.passed = 0;
        }
        self.passed = self.passed.saturating_add(signals);
        (self.passed >= SIGNALS).then(|| self.until.saturating_duration_since(now))
    }
}
