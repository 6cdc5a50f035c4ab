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
//! `membarrier(2)` interrupts every core that runs a thread of this process. Two things keep that rare, because
//! it is a peer's packets that make a thread wake up and arm again:
//!
//! - A thread with several queues needs one W1 for all: it stores every flag ([`Wake::request`]), executes
//!   [`fence`] once, and then checks every queue. For each queue, W1 is between the store and the check, as
//!   above.
//! - An [`ArmBudget`] bounds how often a thread arms per second.
//!
//! A queue whose peer is another process has a [`Relay`] in between, because a peer that shares a descriptor
//! can block threads that wait on it; see there.

mod budget;
mod relay;

pub use budget::ArmBudget;
pub use relay::{Relay, Source};

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use crate::eventfd::EventFd;
use crate::sync::{AcqRel, AtomicBool, Relaxed, asymmetric_fences, heavy_fence, light_fence};

/// Orders every [request](Request::request) that this thread has made against what it checks afterwards: W1
/// of [the module](self), for any number of requests.
///
/// Interrupts the cores that run other threads of this process (`membarrier(2)`). A caller whose frequency a
/// peer determines uses an [`ArmBudget`].
///
/// ```
/// use linecard_eal::wake::{Wake, fence};
/// let wakes = [Wake::new(), Wake::new()];
/// assert!(wakes.iter().all(|wake| wake.request()));
/// fence();
/// // Check both queues here, and sleep if both are empty.
/// ```
pub fn fence() {
    heavy_fence(asymmetric_fences());
}

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
        self.request();
        // W1, pairs with W2 in `take`.
        heavy_fence(self.asymmetric);
    }

    /// Makes a request without the fence. Execute [`fence`] after this, and check what you wait for after
    /// that.
    pub fn request(&self) {
        self.asked.store(true, Relaxed);
    }

    /// Withdraws the request; another thread may have taken it already.
    pub fn withdraw(&self) {
        self.asked.store(false, Relaxed);
    }

    /// Whether there is a request.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// Takes the request and returns whether there was one. Call it after what was requested is visible. Any
    /// thread may call it; it costs a few instructions if there is no request.
    #[inline(always)]
    #[must_use = "whoever asked has to be woken"]
    pub fn take(&self) -> bool {
        // W2, pairs with W1 in `ask` and `fence`: what the sleeper waits for is visible before this thread checks whether
        // it sleeps.
        light_fence(self.asymmetric);
        self.asked.load(Relaxed) && self.asked.swap(false, AcqRel)
    }
}

/// Wakes one sleeping thread. Its descriptor is created when it is [prepared](Self::prepare) or armed for the
/// first time, and stays the same.
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

    /// Creates the descriptor, so that [`arm`](Self::arm) does not have to; false if the system has none.
    pub fn prepare(&self) -> bool {
        self.created().is_some()
    }

    fn created(&self) -> Option<&EventFd> {
        self.event.get_or_init(|| EventFd::new().ok()).as_ref()
    }

    /// Discards earlier wake-ups and requests one; false if the system has no descriptor for it. Check the
    /// queue after this and before you sleep.
    pub fn arm(&self) -> bool {
        let able = self.request();
        if able {
            // W1, pairs with W2 in `take`.
            heavy_fence(self.request.asymmetric);
        }
        able
    }

    /// As [`arm`](Self::arm), without the fence: execute [`fence`] after this, once for any number of queues,
    /// and check the queues after that.
    pub fn request(&self) -> bool {
        let Some(event) = self.created() else { return false };
        event.drain();
        self.request.request();
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

#[cfg(all(test, not(loom)))]
mod tests;
