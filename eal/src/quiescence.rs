//! Detection, without waiting, of when a polling thread no longer uses data that was replaced.
//!
//! Unlike a [gate](crate::gate), this never keeps the poller out. The poller reads data that another thread
//! changes (with atomic stores), and the other thread learns when the previous data can no longer be in use.
//! DPDK calls this a quiescent state (`rte_rcu_qsbr`). The poller pays two stores and two full fences per
//! burst; there are no system calls.
//!
//! ```text
//!   poller                                  control thread
//!   ──────                                  ──────────────
//!   visits = odd                            … replaces the data …
//!   Q1 full fence                           Q2 full fence
//!   … reads the data …                      visits even? the old data is not in use: done
//!   visits = even (release)                 leave = token, awaited = true
//!   Q3 full fence                           Q4 full fence
//!   awaited? then drop the token            visits changed? then drop the token
//! ```
//!
//! Q1 pairs with Q2: a poller that is not seen inside sees the change. Q3 pairs with Q4: of two threads that
//! each store first and load second, at least one sees the other's store, so no token remains if the poller
//! never enters again.
//!
//! ```
//! use std::sync::mpsc::channel;
//! use linecard_eal::quiescence::visits;
//!
//! let (mut poller, control) = visits();
//! let inside = poller.enter();
//! let (told, has_left) = channel::<()>();
//! control.when_left(told);
//! assert!(has_left.try_recv().is_err_and(|error| error == std::sync::mpsc::TryRecvError::Empty));
//! drop(inside);
//! assert!(has_left.try_recv().is_err_and(|error| error == std::sync::mpsc::TryRecvError::Disconnected));
//! ```

use crate::sync::{Acquire, Arc, AtomicBool, AtomicU64, Mutex, Relaxed, Release, full_fence};

/// The state shared by both sides, on its own cache line, written by the poller.
#[repr(align(128))]
struct Visits<T> {
    /// Odd while the poller is inside.
    visits: AtomicU64,
    /// Whether there may be a token to drop.
    awaited: AtomicBool,
    leave: Mutex<Option<T>>,
}

/// The polling thread's handle; see the [module](self).
pub struct Reader<T>(Arc<Visits<T>>);

/// The control thread's handle; see the [module](self).
pub struct Writer<T>(Arc<Visits<T>>);

/// The poller is inside until this is dropped.
pub struct ReadGuard<'a, T>(&'a Visits<T>);

/// Creates both handles; the poller is outside.
pub fn visits<T: Send>() -> (Reader<T>, Writer<T>) {
    let (visits, awaited, leave) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
    let shared = Arc::new(Visits { visits, awaited, leave });
    (Reader(Arc::clone(&shared)), Writer(shared))
}

impl<T> Reader<T> {
    /// Enters; changes made before are visible.
    #[inline]
    pub fn enter(&mut self) -> ReadGuard<'_, T> {
        let shared = &*self.0;
        // Only this thread writes it.
        shared.visits.store(shared.visits.load(Relaxed).wrapping_add(1), Relaxed);
        // Q1.
        full_fence();
        ReadGuard(shared)
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let shared = self.0;
        // Release: the reads inside happen before another thread that sees this continues.
        shared.visits.store(shared.visits.load(Relaxed).wrapping_add(1), Release);
        // Q3.
        full_fence();
        if shared.awaited.load(Relaxed) {
            shared.drop_token();
        }
    }
}

impl<T> Visits<T> {
    #[cold]
    fn drop_token(&self) {
        self.awaited.store(false, Relaxed);
        // The control thread holds the lock only briefly and checks `visits` afterwards, so there is no need
        // to wait for it.
        let token = self.leave.try_lock().ok().and_then(|mut leave| leave.take());
        drop(token);
    }

    fn is_odd(visits: u64) -> bool {
        !visits.is_multiple_of(2)
    }
}

impl<T> Writer<T> {
    /// Whether the poller is inside and may therefore use the data that the caller has replaced.
    pub fn is_inside(&self) -> bool {
        // Q2.
        full_fence();
        Visits::<T>::is_odd(self.0.visits.load(Acquire))
    }

    /// Drops `token` once the poller has left, on the thread that notices this; at once if it is not inside.
    /// An earlier token is dropped now: wait for one change before the next one.
    pub fn when_left(&self, token: T) {
        let shared = &*self.0;
        // Q2.
        full_fence();
        let before = shared.visits.load(Acquire);
        if !Visits::<T>::is_odd(before) {
            return;
        }
        let earlier = self.exchange(Some(token));
        shared.awaited.store(true, Relaxed);
        // Q4.
        full_fence();
        if shared.visits.load(Acquire) != before {
            drop(self.exchange(None));
        }
        drop(earlier);
    }

    fn exchange(&self, token: Option<T>) -> Option<T> {
        // The poller holds the lock only briefly, and never panics meanwhile.
        match self.0.leave.lock() {
            Ok(mut leave) => std::mem::replace(&mut *leave, token),
            Err(_) => None,
        }
    }
}
