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
    let words = Words { busy: AtomicBool::new(false), closed: AtomicBool::new(true), remote: remote_barriers() };
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

    #[cfg(not(loom))]
    #[inline(always)]
    fn with<R>(&self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        // SAFETY: called with `busy` set and `closed` seen clear, so the keeper stays out until `busy` is clear
        // again; there is one visitor and it is exclusively borrowed.
        f(unsafe { &mut *self.0.value.get() })
    }

    #[cfg(loom)]
    fn with<R>(&self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        // SAFETY: as in the real build; loom checks that accesses do not overlap.
        self.0.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}

impl<T: Send> Keeper<T> {
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
        let words = &self.0.words;
        words.closed.store(true, Ordering::Relaxed);
        // G2, pairs with G1 in `enter`: `closed` is visible before we read `busy`, else both are inside.
        heavy_fence(words.remote);
        let mut turn = 0;
        while words.busy.load(Ordering::Acquire) {
            pause(turn);
            turn += 1;
        }
    }

    #[cfg(not(loom))]
    fn with<R>(&mut self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        // SAFETY: called after `shut`: the visitor is outside and stays there until `closed` is cleared; there is
        // one keeper and it is exclusively borrowed.
        f(unsafe { &mut *self.0.value.get() })
    }

    #[cfg(loom)]
    fn with<R>(&mut self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        // SAFETY: as in the real build; loom checks that accesses do not overlap.
        self.0.value.with_mut(|value| f(unsafe { &mut *value }))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn closed_and_empty_at_first_then_follows_its_keeper() {
        let (mut visitor, mut keeper) = gate::<u32>();
        assert_eq!(visitor.enter(|v| *v), None);
        assert_eq!(keeper.open(1), None);
        assert_eq!(visitor.enter(|v| std::mem::replace(v, 2)), Some(1));
        assert_eq!(keeper.open(3), Some(2));
        assert_eq!(keeper.close(), Some(3));
        assert_eq!(visitor.enter(|v| *v), None);
    }

    #[test]
    fn a_panic_inside_leaves_the_gate_free() {
        let (mut visitor, mut keeper) = gate::<u32>();
        keeper.open(1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| visitor.enter(|_| panic!("inside"))));
        assert!(caught.is_err());
        assert_eq!(keeper.close(), Some(1));
    }

    /// The value is a plain integer pair that only stays equal when nobody is inside at the same time.
    #[test]
    fn never_two_inside() {
        let (mut visitor, mut keeper) = gate::<(u64, u64)>();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = stop.clone();
        let worker = std::thread::spawn(move || {
            let mut visits = 0_u64;
            while !seen.load(Ordering::Relaxed) {
                let equal = visitor.enter(|v| {
                    v.0 += 1;
                    std::hint::black_box(&mut *v);
                    v.1 += 1;
                    v.0 == v.1
                });
                assert_ne!(equal, Some(false));
                visits += u64::from(equal.is_some());
            }
            visits
        });
        for _ in 0..2000 {
            keeper.open((0, 0));
            std::hint::spin_loop();
            let (a, b) = keeper.close().expect("it was put inside");
            assert_eq!(a, b);
        }
        keeper.open((0, 0));
        std::thread::sleep(std::time::Duration::from_millis(10));
        stop.store(true, Ordering::Relaxed);
        assert!(worker.join().expect("no overlap") > 0);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;

    #[test]
    fn never_two_inside() {
        loom::model(|| {
            let (mut visitor, mut keeper) = gate::<u32>();
            keeper.open(1);
            let worker = loom::thread::spawn(move || {
                visitor.enter(|v| *v += 1);
                visitor.enter(|v| *v += 1)
            });
            let first = keeper.close();
            assert!(first.is_some());
            keeper.open(10);
            let again = keeper.close();
            assert!(again.is_some_and(|v| v >= 10));
            worker.join().expect("no overlap");
        });
    }
}
