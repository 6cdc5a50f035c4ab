//! What wakes a backend, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use linecard_eal::eventfd::EventFd;

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

/// The eventfd that wakes a backend of one ring.
#[derive(Debug)]
pub(crate) struct Kick {
    event: EventFd,
    notifications: Arc<Notifications>,
}

impl Kick {
    pub(crate) fn new(event: EventFd, notifications: &Arc<Notifications>) -> Self {
        Self { event, notifications: Arc::clone(notifications) }
    }

    /// Wakes the backend.
    pub(crate) fn signal(&self) {
        // A system call follows: the locked instruction does not matter.
        self.notifications.sent.fetch_add(1, Ordering::Relaxed);
        self.event.signal();
    }

    /// What the backend waits for.
    pub(crate) const fn event(&self) -> &EventFd {
        &self.event
    }
}
