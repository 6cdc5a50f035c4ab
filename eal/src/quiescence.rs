//! Finding out when a polling thread has left what it was in when something changed, without waiting for it.
//!
//! Where the [gate](crate::gate) keeps the poller out, this lets it in all the time: it reads what another thread changes under
//! it (by atomic stores), and the other thread learns when nobody can use any more what was there before. DPDK calls this a
//! quiescent state (`rte_rcu_qsbr`). The poller pays two stores and two full fences a burst; nobody pays a system call.
//!
//! ```text
//!   poller                                  control thread
//!   ──────                                  ──────────────
//!   visits = odd                            … changes what the poller reads …
//!   Q1 full fence                           Q2 full fence
//!   … reads it …                            visits even? nobody uses what was before: done
//!   visits = even (release)                 leave = token, awaited = true
//!   Q3 full fence                           Q4 full fence
//!   awaited? then drop the token            visits changed? then drop the token
//! ```
//!
//! Q1 pairs with Q2: a poller that is not seen inside sees the change. Q3 pairs with Q4: of the two that each store first and
//! load second at least one sees the other's store, so no token is left behind when the poller never comes again.
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

/// What both sides share; a line of its own, written by the poller.
#[repr(align(128))]
struct Visits<T> {
    /// Odd while the poller is inside.
    visits: AtomicU64,
    /// There may be a token to drop.
    awaited: AtomicBool,
    leave: Mutex<Option<T>>,
}

/// The polling thread's end; see the [module](self).
pub struct Reader<T>(Arc<Visits<T>>);

/// The control thread's end; see the [module](self).
pub struct Writer<T>(Arc<Visits<T>>);

/// The poller is inside until this is dropped.
pub struct ReadGuard<'a, T>(&'a Visits<T>);

/// Both ends; nobody is inside.
pub fn visits<T: Send>() -> (Reader<T>, Writer<T>) {
    let (visits, awaited, leave) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
    let shared = Arc::new(Visits { visits, awaited, leave });
    (Reader(Arc::clone(&shared)), Writer(shared))
}

impl<T> Reader<T> {
    /// Goes in; what was changed before is seen.
    #[inline]
    pub fn enter(&mut self) -> ReadGuard<'_, T> {
        let shared = &*self.0;
        // Nobody else writes it.
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
        // Release: what was read inside was read before whoever sees this goes on.
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
        // Held by the control thread for moments only, which looks at `visits` afterwards: it need not be waited for.
        let token = self.leave.try_lock().ok().and_then(|mut leave| leave.take());
        drop(token);
    }

    fn is_odd(visits: u64) -> bool {
        !visits.is_multiple_of(2)
    }
}

impl<T> Writer<T> {
    /// Whether the poller is inside, and so may use what was there before a change of the caller's.
    pub fn is_inside(&self) -> bool {
        // Q2.
        full_fence();
        Visits::<T>::is_odd(self.0.visits.load(Acquire))
    }

    /// Drops `token` when the poller has left, by whoever sees that; at once if it is not inside. A token that was given
    /// before is dropped now: ask for one change after the other.
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
        // The poller holds it for moments only, and never panics in there.
        match self.0.leave.lock() {
            Ok(mut leave) => std::mem::replace(&mut *leave, token),
            Err(_) => None,
        }
    }
}
