//! What wakes a backend, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use linecard_eal::eventfd::EventFd;

use crate::backend::Notify;

/// Notifications that one ring's driver sent, over all backends; and how many of them a reset has forgotten.
#[derive(Debug, Default)]
pub(crate) struct Notifications {
    sent: AtomicU64,
    baseline: AtomicU64,
}

impl Notifications {
    /// Those since the last reset.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed).wrapping_sub(self.baseline.load(Ordering::Relaxed))
    }

    /// Counts from zero again.
    pub(crate) fn reset(&self) {
        self.baseline.store(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
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
        self.notifications.sent.fetch_add(1, Ordering::Relaxed);
        match self.instead.get() {
            None => self.event.signal(),
            Some(notifier) => notifier.notify(),
        }
    }

    /// Wakes the backend by `notifier` from now on, and once at once: what was signalled before went to the eventfd.
    pub(crate) fn go_by(&self, notifier: Arc<dyn Notify>) {
        let notifier = self.instead.get_or_init(|| notifier);
        self.notifications.sent.fetch_add(1, Ordering::Relaxed);
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
