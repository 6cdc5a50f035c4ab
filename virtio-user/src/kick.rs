//! What wakes a backend, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use linecard_eal::eventfd::EventFd;

use crate::backend::Notify;

/// Notifications that one ring's driver sent, over all backends; and how many of them a reset has forgotten.
#[derive(Debug, Default)]
pub(crate) struct Notifications {
    /// For packets that were published.
    for_bursts: Counter,
    /// For none: of a start, for what may have been published before.
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
    /// Those since the last reset.
    pub(crate) fn sent(&self) -> u64 {
        self.for_bursts.since_reset().wrapping_add(self.at_start.since_reset())
    }

    /// Those of them that a burst was the reason for, each another one: its own, or one of those whose question was put off.
    pub(crate) fn for_bursts(&self) -> u64 {
        self.for_bursts.since_reset()
    }

    /// Counts from zero again.
    pub(crate) fn reset(&self) {
        self.for_bursts.reset();
        self.at_start.reset();
    }
}

/// The eventfd that wakes a backend of one ring, or what it has instead.
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
        // A system call or a write to a device follows: the locked instruction does not matter.
        self.notifications.for_bursts.add();
        self.wake();
    }

    /// Wakes the backend, whatever was published: its queue starts.
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

    /// Wakes the backend by `notifier` from now on, and once at once: what was signalled before went to the eventfd.
    pub(crate) fn go_by(&self, notifier: Arc<dyn Notify>) {
        let notifier = self.instead.get_or_init(|| notifier);
        self.notifications.at_start.add();
        notifier.notify();
    }

    /// Goes by the eventfd again, so that nothing is kept of a device that is gone.
    pub(crate) fn forget(&mut self) {
        self.instead = OnceLock::new();
    }

    /// What the backend waits for.
    pub(crate) const fn event(&self) -> &EventFd {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a start sends is a notification, and no burst's.
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
