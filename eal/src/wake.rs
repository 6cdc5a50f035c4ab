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

/// A flag by which a thread that is about to sleep asks others to tell it of something: the two halves in
/// [the module](self)'s picture, with whatever wakes the thread left to the caller.
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
    /// Nobody asks.
    #[must_use]
    pub fn new() -> Self {
        Self { asked: AtomicBool::new(false), asymmetric: asymmetric_fences() }
    }

    /// Asks. Look at what you wait for after this, and before you sleep.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        // W1, pairs with W2 in `take`.
        heavy_fence(self.asymmetric);
    }

    /// Asks no more; somebody may have taken the request already.
    pub fn withdraw(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether the request stands.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Takes the request, after what was asked for is visible; whether there was one. Any thread; costs a few instructions
    /// when there is none.
    #[inline(always)]
    #[must_use = "whoever asked has to be woken"]
    pub fn take(&self) -> bool {
        // W2, pairs with W1 in `ask`: what the sleeper waits for is visible before we look whether it sleeps.
        light_fence(self.asymmetric);
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::AcqRel)
    }
}

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
#[derive(Debug, Default)]
pub struct Wake {
    request: Request,
    /// `None` where the system refused one.
    event: OnceLock<Option<EventFd>>,
}

impl Wake {
    /// One that is not armed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets earlier wake-ups and asks for one; false when the system has no descriptor for it. Look at the queue after
    /// this and before you sleep.
    pub fn arm(&self) -> bool {
        let Some(event) = self.event.get_or_init(|| EventFd::new().ok()) else { return false };
        event.drain();
        self.request.ask();
        true
    }

    /// Asks for no wake-up any more; one may come all the same.
    pub fn disarm(&self) {
        self.request.withdraw();
    }

    /// Makes the descriptor readable if the queue is armed, and disarms it; whether it was. Any thread; costs a few
    /// instructions when it is not armed.
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

    /// What to wait for reading on; nothing before the first [`arm`](Self::arm).
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.get()?.as_ref().map(EventFd::as_fd)
    }
}

#[cfg(test)]
mod tests;
