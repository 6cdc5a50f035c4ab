//! Wake-ups: how a polling thread sleeps and how it is woken.
//!
//! A [`Wake`] belongs to one queue. The thread that polls the queue arms it, checks the queue once more, and
//! sleeps on its descriptor. The thread that makes the queue non-empty wakes it:
//!
//! ```text
//!   sleeper                              waker
//!   ───────                              ─────
//!   armed = true                         packets are visible
//!   W1 heavy fence                       W2 light fence
//!   packets? then do not sleep           armed? then armed = false, signal
//!   sleep until the descriptor is ready
//! ```
//! W1 pairs with W2: of two threads that each store first and load second, at least one sees the other's
//! store. Without the pair, the sleeper could miss the packets while the waker misses the sleeper. The
//! waker's fence is only a compiler fence, as in [`gate`](crate::gate): the sleeper pays for both with
//! `membarrier(2)`.
//!
//! A queue whose peer is another process has a [`Relay`] in between, because a peer that shares a descriptor
//! can block threads that wait on it; see there.

mod relay;

pub use relay::{Relay, Source};

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::eventfd::EventFd;
use crate::sync::{asymmetric_fences, heavy_fence, light_fence};

/// A flag with which a thread that is about to sleep requests a notification from other threads: the two
/// halves of the diagram in [the module](self), without the wake-up itself.
///
/// ```
/// let request = linecard_eal::wake::Request::new();
/// assert!(!request.take());
/// request.ask();
/// assert!(request.take() && !request.take());
/// ```
#[derive(Debug)]
pub struct Request {
    asked: AtomicBool,
    asymmetric: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

impl Request {
    /// Creates a flag without a request.
    #[must_use]
    pub fn new() -> Self {
        Self { asked: AtomicBool::new(false), asymmetric: asymmetric_fences() }
    }

    /// Makes a request. Check what you wait for after this, and before you sleep.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        // W1, pairs with W2 in `take`.
        heavy_fence(self.asymmetric);
    }

    /// Withdraws the request; another thread may have taken it already.
    pub fn withdraw(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether there is a request.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Takes the request and returns whether there was one. Call it after what was requested is visible. Any
    /// thread may call it; it costs a few instructions if there is no request.
    #[inline(always)]
    #[must_use = "whoever asked has to be woken"]
    pub fn take(&self) -> bool {
        // W2, pairs with W1 in `ask`: what the sleeper waits for is visible before this thread checks whether
        // it sleeps.
        light_fence(self.asymmetric);
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::AcqRel)
    }
}

/// Wakes one sleeping thread. Its descriptor is created when it is armed for the first time, and stays the
/// same.
///
/// ```
/// let wake = linecard_eal::wake::Wake::new();
/// wake.wake(); // nobody asked
/// assert!(wake.event().is_none());
/// assert!(wake.arm());
/// wake.wake();
/// assert!(wake.event().is_some()); // and it is readable now
/// ```
#[derive(Debug, Default)]
pub struct Wake {
    request: Request,
    /// `None` if the system refused to create one.
    event: OnceLock<Option<EventFd>>,
}

impl Wake {
    /// Creates a `Wake` that is not armed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Discards earlier wake-ups and requests one; false if the system has no descriptor for it. Check the
    /// queue after this and before you sleep.
    pub fn arm(&self) -> bool {
        let Some(event) = self.event.get_or_init(|| EventFd::new().ok()) else { return false };
        event.drain();
        self.request.ask();
        true
    }

    /// Withdraws the request for a wake-up; one may still come.
    pub fn disarm(&self) {
        self.request.withdraw();
    }

    /// Makes the descriptor readable if the queue is armed, disarms it, and returns whether it was armed. Any
    /// thread may call this; it costs a few instructions if the queue is not armed.
    #[inline(always)]
    pub fn wake(&self) -> bool {
        self.request.take() && self.signal()
    }

    #[cold]
    #[inline(never)]
    fn signal(&self) -> bool {
        if let Some(Some(event)) = self.event.get() {
            event.signal();
        }
        true
    }

    /// The descriptor to wait on for reading; `None` before the first [`arm`](Self::arm).
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.get()?.as_ref().map(EventFd::as_fd)
    }
}

#[cfg(test)]
mod tests;
