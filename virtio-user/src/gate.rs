//! A room that one thread enters without a locked instruction and another can close.
//!
//! A queue's rings and buffers belong to the thread that polls it, until the backend is lost: then the control
//! thread has to take them home, whether or not that thread ever polls again. A mailbox would wait for it; a lock
//! would cost it a locked instruction per burst. The gate is a lock that is biased to the polling thread:
//!
//! ```text
//!   polling thread (every burst)             control thread (when a backend comes or goes)
//!   busy := true                             closed := true
//!   light fence  G1 ◄── either we see closed ──► heavy fence  G2   (membarrier: a fence in every thread)
//!   closed?  yes: leave                      wait while busy
//!   … use the value …                        … take the value, put another …
//!   busy := false (release)  ──────────────►  busy seen false (acquire)
//!   closed seen false (acquire) ◄────────────  closed := false (release)
//! ```
//!
//! Without G1 or G2 both threads could read the other's old word and both be inside. Where the kernel has no
//! `membarrier(2)` the light fence is a real one.

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicBool, Ordering, UnsafeCell, heavy_fence, light_fence, pause, remote_barriers};

struct Gate<T> {
    /// On a line of its own: the polling thread writes it every burst.
    words: CachePadded<Words>,
    value: UnsafeCell<Option<T>>,
}

struct Words {
    busy: AtomicBool,
    closed: AtomicBool,
    /// The heavy fence reaches into the polling thread.
    remote: bool,
}

// SAFETY: `value` is reached by one thread at a time (see the module's drawing); the words are atomics.
unsafe impl<T: Send> Sync for Gate<T> {}

/// The polling thread's side.
pub(crate) struct Visitor<T>(Arc<Gate<T>>);

/// The control thread's side.
pub(crate) struct Keeper<T>(Arc<Gate<T>>);

/// A gate, closed and empty.
pub(crate) fn gate<T: Send>() -> (Visitor<T>, Keeper<T>) {
    let words =
        Words { busy: AtomicBool::new(false), closed: AtomicBool::new(true), remote: remote_barriers() };
    let gate = Arc::new(Gate { words: CachePadded::new(words), value: UnsafeCell::new(None) });
    (Visitor(gate.clone()), Keeper(gate))
}

/// Says that the visitor is inside, until dropped (also when its burst panics).
struct Busy<'a>(&'a Words);

impl Drop for Busy<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl<T> Visitor<T> {
    /// Runs `visit` with the value, or returns `None` while the gate is closed.
    #[inline(always)]
    pub(crate) fn enter<R>(&mut self, visit: impl FnOnce(&mut T) -> R) -> Option<R> {
        let words: &Words = &self.0.words;
        words.busy.store(true, Ordering::Relaxed);
        let _busy = Busy(words);
        // G1, pairs with G2 in `close`: our `busy` is visible before we read `closed`, else both are inside.
        light_fence(words.remote);
        if words.closed.load(Ordering::Acquire) {
            return None;
        }
        self.with(|value| value.as_mut().map(visit))
    }

    #[inline(always)]
    fn with<R>(&self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        // SAFETY: called with `busy` set and `closed` seen clear, so the keeper stays out until `busy` is clear
        // again; there is one visitor and it is exclusively borrowed.
        self.0.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}

impl<T: Send> Keeper<T> {
    /// Closes the gate; a visitor that is inside may finish its burst. True when there is none.
    pub(crate) fn ask(&mut self) -> bool {
        let words = &self.0.words;
        words.closed.store(true, Ordering::Relaxed);
        // G2, pairs with G1 in `enter`: `closed` is visible before we read `busy`, else both are inside.
        heavy_fence(words.remote);
        !words.busy.load(Ordering::Acquire)
    }

    /// Closes the gate, waits until the visitor is outside (at most the rest of its burst), takes the value.
    pub(crate) fn close(&mut self) -> Option<T> {
        self.shut();
        self.with(Option::take)
    }

    /// Puts `value` inside and opens the gate; returns what was inside before.
    pub(crate) fn open(&mut self, value: T) -> Option<T> {
        self.shut();
        let before = self.with(|inside| inside.replace(value));
        self.0.words.closed.store(false, Ordering::Release);
        before
    }

    fn shut(&mut self) {
        let mut turn = 0;
        while !self.ask() {
            pause(turn);
            turn += 1;
        }
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        // SAFETY: called after `shut`: the visitor is outside and stays there until `closed` is cleared; there is
        // one keeper and it is exclusively borrowed.
        self.0.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}
