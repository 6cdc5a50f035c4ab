//! Wake-ups: how a thread that polls a queue may sleep, and how it is woken.
//!
//! A [`Wake`] belongs to one queue. The thread that polls the queue arms it, looks at the queue once more, and sleeps on its
//! descriptor. Whoever makes the queue non-empty wakes it:
//!
//! ```text
//!   sleeper                              waker
//!   ───────                              ─────
//!   armed = true                         packets are visible
//!   W1 heavy fence                       W2 light fence
//!   packets? then do not sleep           armed? then armed = false, signal
//!   sleep until the descriptor is ready
//! ```
//! W1 pairs with W2: of two threads that each store first and load second, at least one sees the other's store. Without the
//! pair the sleeper could miss the packets and the waker the sleeper. The waker's fence is a compiler fence only, as in
//! [`gate`](crate::gate): the sleeper pays for both with a `membarrier(2)`.
//!
//! A queue whose peer is another process has a [`Relay`] between the two, because a descriptor that a peer shares can keep
//! whoever waits on it; see there.

mod relay;

pub use relay::{Relay, Source};

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::eventfd::EventFd;
use crate::sync::{asymmetric_fences, heavy_fence, light_fence};

/// What one sleeping thread is woken by. Its descriptor is made when it is armed for the first time, and stays the same.
///
/// ```
/// let wake = linecard_eal::wake::Wake::new();
/// wake.wake(); // nobody asked
/// assert!(wake.event().is_none());
/// assert!(wake.arm());
/// wake.wake();
/// assert!(wake.event().is_some()); // and it is readable now
/// ```
#[derive(Debug)]
pub struct Wake {
    armed: AtomicBool,
    asymmetric: bool,
    /// `None` where the system refused one.
    event: OnceLock<Option<EventFd>>,
}

impl Default for Wake {
    fn default() -> Self {
        Self::new()
    }
}

impl Wake {
    /// One that is not armed.
    #[must_use]
    pub fn new() -> Self {
        Self { armed: AtomicBool::new(false), asymmetric: asymmetric_fences(), event: OnceLock::new() }
    }

    /// Forgets earlier wake-ups and asks for one; false when the system has no descriptor for it. Look at the queue after
    /// this and before you sleep.
    pub fn arm(&self) -> bool {
        let Some(event) = self.event.get_or_init(|| EventFd::new().ok()) else { return false };
        event.drain();
        self.armed.store(true, Ordering::Relaxed);
        // W1, pairs with W2 in `wake`.
        heavy_fence(self.asymmetric);
        true
    }

    /// Asks for no wake-up any more; one may come all the same.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Makes the descriptor readable if the queue is armed, and disarms it; whether it was. Any thread; costs a few
    /// instructions when it is not armed.
    #[inline(always)]
    pub fn wake(&self) -> bool {
        // W2, pairs with W1 in `arm`: what the sleeper is woken for is visible before we look whether it sleeps.
        light_fence(self.asymmetric);
        self.armed.load(Ordering::Relaxed) && self.signal()
    }

    #[cold]
    #[inline(never)]
    fn signal(&self) -> bool {
        let armed = self.armed.swap(false, Ordering::AcqRel);
        if armed && let Some(Some(event)) = self.event.get() {
            event.signal();
        }
        armed
    }

    /// What to wait for reading on; nothing before the first [`arm`](Self::arm).
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.get()?.as_ref().map(EventFd::as_fd)
    }
}

#[cfg(test)]
mod tests;
