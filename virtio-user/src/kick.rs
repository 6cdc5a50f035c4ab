//! The notification that wakes a backend, and its counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use linecard_eal::eventfd::EventFd;

use crate::backend::Notify;

/// The notifications that one ring's driver sent, over all backends.
#[derive(Debug, Default)]
pub(crate) struct Notifications {
    /// Notifications for published packets.
    for_bursts: Counter,
    /// Notifications when a queue starts, for packets that may have been published before.
    at_start: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    all: AtomicU64,
    baseline: AtomicU64,
}

impl Counter {
    fn add(&self) {
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    fn since_reset(&self) -> u64 {
        self.all.load(Ordering::Relaxed).wrapping_sub(self.baseline.load(Ordering::Relaxed))
    }

    fn reset(&self) {
        self.baseline.store(self.all.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Notifications {
    /// Returns the number since the last reset.
    pub(crate) fn sent(&self) -> u64 {
        self.for_bursts.since_reset().wrapping_add(self.at_start.since_reset())
    }

    /// Returns how many of them a burst caused, one burst each: at once, or by a deferred check.
    pub(crate) fn for_bursts(&self) -> u64 {
        self.for_bursts.since_reset()
    }

    /// Resets the counts to zero.
    pub(crate) fn reset(&self) {
        self.for_bursts.reset();
        self.at_start.reset();
    }
}

/// The eventfd, or the device's own notification, that wakes the backend of one ring.
#[derive(Debug)]
pub(crate) struct Kick {
    event: EventFd,
    instead: OnceLock<Arc<dyn Notify>>,
    notifications: Arc<Notifications>,
}

impl Kick {
    pub(crate) fn new(event: EventFd, notifications: &Arc<Notifications>) -> Self {
        Self { event, instead: OnceLock::new(), notifications: Arc::clone(notifications) }
    }

    /// Wakes the backend.
    pub(crate) fn signal(&self) {
        // The cost of the locked instruction is negligible: a system call or a write to a device follows.
        self.notifications.for_bursts.add();
        self.wake();
    }

    /// Wakes the backend when its queue starts, whatever was published.
    pub(crate) fn signal_start(&self) {
        self.notifications.at_start.add();
        self.wake();
    }

    fn wake(&self) {
        match self.instead.get() {
            None => self.event.signal(),
            Some(notifier) => notifier.notify(),
        }
    }

    /// Wakes the backend with `notifier` from now on, and once now, since earlier signals went to the
    /// eventfd.
    pub(crate) fn go_by(&self, notifier: Arc<dyn Notify>) {
        let notifier = self.instead.get_or_init(|| notifier);
        self.notifications.at_start.add();
        notifier.notify();
    }

    /// Returns to the eventfd, so that nothing of a lost device is kept.
    pub(crate) fn forget(&mut self) {
        self.instead = OnceLock::new();
    }

    /// Returns the eventfd that the backend waits for.
    pub(crate) const fn event(&self) -> &EventFd {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A notification at start counts, but not as one of a burst.
    #[test]
    fn notifications_of_a_start_are_no_bursts() {
        let notifications = Arc::<Notifications>::default();
        let kick = Kick::new(EventFd::new().expect("an eventfd"), &notifications);
        kick.signal_start();
        kick.signal();
        assert_eq!((notifications.sent(), notifications.for_bursts()), (2, 1));
        notifications.reset();
        kick.signal();
        assert_eq!((notifications.sent(), notifications.for_bursts()), (1, 1));
    }
}
