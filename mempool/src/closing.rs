//! The closed state of a pool, and the capacity of its caches, which closing removes.
//!
//! A cache without room sends every return to the slow path, which checks whether the pool is closed.
//! Therefore no cache of a closed pool may have room, even if its owner makes it ready at that moment:
//!
//! ```text
//!   owner of the cache                      thread that drops the last handle
//!   ──────────────────                      ─────────────────────────────────
//!   room = size                             closed = true
//!   C3 fence                                C4 fence
//!   closed? then room = 0                   room = 0 (release, C2)
//! ```
//!
//! C3 pairs with C4: either the owner sees `closed`, or its `size` is overwritten by the other's 0.

use crate::sync::{AtomicBool, AtomicUsize, Ordering, fence};

/// The closed state of one pool.
pub(crate) struct Closing {
    closed: AtomicBool,
}

impl Closing {
    pub(crate) fn new() -> Self {
        Self { closed: AtomicBool::new(false) }
    }

    /// Whether the last handle was dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sets `room`, the capacity of the caller's cache, to `size`, unless the pool is closed.
    pub(crate) fn make_room(&self, room: &AtomicUsize, size: usize) {
        // The fence runs once per thread and pool.
        if room.load(Ordering::Relaxed) == size || self.is_closed() {
            return;
        }
        room.store(size, Ordering::Relaxed);
        // C3, pairs with C4.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            room.store(0, Ordering::Relaxed);
        }
    }

    /// Closes the pool; from now on, each of `rooms` is 0.
    pub(crate) fn close<'a>(&self, rooms: impl Iterator<Item = &'a AtomicUsize>) {
        self.closed.store(true, Ordering::Relaxed);
        // C4, pairs with C3.
        fence(Ordering::SeqCst);
        for room in rooms {
            // C2, pairs with C1 (slow).
            room.store(0, Ordering::Release);
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    struct Shared {
        closing: Closing,
        room: AtomicUsize,
    }

    /// The fast path of a return: whether it would notice that the pool is closed.
    fn a_return_looks(shared: &Shared) -> bool {
        if shared.room.load(Ordering::Relaxed) != 0 {
            return false;
        }
        // C1, as in `slow::put`.
        fence(Ordering::Acquire);
        shared.closing.is_closed()
    }

    #[test]
    fn a_closed_pool_leaves_no_cache_with_room() {
        crate::sync::model(|| {
            let shared = Arc::new(Shared { closing: Closing::new(), room: AtomicUsize::new(0) });
            let owner = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.closing.make_room(&shared.room, 8);
                    let empty = shared.room.load(Ordering::Relaxed) == 0;
                    assert!(!empty || a_return_looks(&shared), "no room, and not closed");
                })
            };
            shared.closing.close([&shared.room].into_iter());
            owner.join().unwrap();
            assert!(a_return_looks(&shared), "a return after both would not look");
        });
    }
}
