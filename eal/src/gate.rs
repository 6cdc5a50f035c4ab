//! A value that two threads use in turn: a poller most of the time, the control thread occasionally.
//!
//! The poller pays two plain stores and two loads per burst, and no locked instruction. The control thread
//! pays a system call that executes the poller's fence, and never waits: it requests access and checks again
//! later.
//!
//! ```text
//!   poller                                  control thread
//!   ──────                                  ──────────────
//!   busy = true                             closed = true
//!   G1 light fence                          G2 heavy fence
//!   closed? then busy = false, not in       busy? then not yet in, look again
//!   … uses the value …                      … uses the value …
//!   busy = false (release)                  closed = false (release)
//! ```
//!
//! G1 pairs with G2: of two threads that each store first and load second, at least one sees the other's
//! store. Without the pair both could enter at once. If the kernel has no `membarrier(2)`, the light fence is
//! a full one.
//!
//! ```
//! use linecard_eal::gate::{close_all, gate};
//!
//! let (mut poller, mut controller) = gate(1);
//! let mut inside = poller.enter().expect("nobody else wants it");
//! *inside += 1;
//! assert!(!close_all([&mut controller]), "asked, but the poller is still inside");
//! drop(inside);
//! assert!(close_all([&mut controller]));
//! assert_eq!(controller.value(), Some(&mut 2));
//! assert!(poller.enter().is_none());
//! controller.open();
//! assert!(poller.enter().is_some());
//! ```

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::sync::{
    Acquire, Arc, AtomicBool, Relaxed, Release, UnsafeCell, asymmetric_fences, heavy_fence, light_fence,
};

/// Registers this process with `membarrier(2)`, which gates and wake-ups use; returns whether the kernel has
/// it.
///
/// Each [`Eal`](crate::Eal) calls this. In a process with a single thread the kernel returns at once; in one
/// with more threads it waits about 20 ms for all processors (`synchronize_rcu`). A program that creates
/// threads before its first `Eal` calls this before it creates them.
///
/// ```
/// assert_eq!(linecard_eal::gate::register_fences(), linecard_eal::gate::register_fences(), "once is enough");
/// ```
pub fn register_fences() -> bool {
    asymmetric_fences()
}

/// The state shared by both sides, on its own cache line, written by the poller.
#[repr(align(128))]
struct Gate<T> {
    busy: AtomicBool,
    closed: AtomicBool,
    asymmetric: bool,
    value: UnsafeCell<T>,
}

// SAFETY: only one thread at a time accesses the value (see the module), so it needs to be `Send` only.
unsafe impl<T: Send> Sync for Gate<T> {}
// SAFETY: moving a handle to another thread moves at most the right to access the value, one thread at a
// time; `T: Send` allows that.
unsafe impl<T: Send> Send for Gate<T> {}

/// The polling thread's handle; see the [module](self).
pub struct Poller<T>(Arc<Gate<T>>);

/// The control thread's handle; see the [module](self).
pub struct Controller<T> {
    shared: Arc<Gate<T>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The poller may enter.
    Open,
    /// `closed` is stored, the heavy fence has not run yet.
    Asked,
    /// The heavy fence has run: a poller that is outside stays outside.
    Fenced,
    /// The poller was seen outside: the control thread owns the value.
    Held,
}

/// Creates an open gate around `value` and returns both handles.
pub fn gate<T: Send>(value: T) -> (Poller<T>, Controller<T>) {
    let shared = Arc::new(Gate {
        busy: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        asymmetric: asymmetric_fences(),
        value: UnsafeCell::new(value),
    });
    (Poller(Arc::clone(&shared)), Controller { shared, state: State::Open })
}

impl<T> Poller<T> {
    /// Enters, unless the control thread owns the value or requests it.
    #[inline(always)]
    #[must_use]
    pub fn enter(&mut self) -> Option<Entered<'_, T>> {
        let shared = &*self.0;
        // Checked first, so that a poller in a tight loop does not look busy to a waiting control thread.
        if shared.closed.load(Relaxed) {
            return None;
        }
        shared.busy.store(true, Relaxed);
        // G1: this thread's `busy` store before its `closed` load; pairs with G2.
        light_fence(shared.asymmetric);
        // Acquire: the control thread's changes before it opened the gate are visible.
        if shared.closed.load(Acquire) {
            shared.busy.store(false, Release);
            return None;
        }
        Some(Entered(shared, PhantomData))
    }
}

/// The poller's access to the value. Dropping it leaves the gate, also if a burst panics.
///
/// It acts as the poller's exclusive borrow of the value, so it can be shared between threads if the value
/// can:
///
/// ```
/// fn shareable<T: Sync>() {}
/// shareable::<linecard_eal::gate::Entered<'_, u8>>();
/// ```
/// ```compile_fail,E0277
/// fn shareable<T: Sync>() {}
/// shareable::<linecard_eal::gate::Entered<'_, std::cell::Cell<u8>>>();
/// ```
pub struct Entered<'a, T>(&'a Gate<T>, PhantomData<&'a mut T>);

impl<T> Deref for Entered<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `busy` is set and `closed` was seen clear behind G1, so the control thread stays out until
        // this guard is dropped; `enter` borrows the only poller, so there is only one guard.
        self.0.value.with_mut(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Entered<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: `Entered` exists only between `enter` and its drop, while the control thread stays out;
        // `&mut self` makes this the only borrow.
        self.0.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Entered<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: the changes made inside are visible to a control thread that sees the poller outside.
        self.0.busy.store(false, Release);
    }
}

impl<T> Controller<T> {
    /// Requests the poller to stay outside; the fence of [`close_all`] must follow.
    fn ask(&mut self) {
        if self.state == State::Open {
            self.shared.closed.store(true, Relaxed);
            self.state = State::Asked;
        }
    }

    /// Whether the poller is outside. If not, call again later: the wait is at most one burst.
    fn look(&mut self) -> bool {
        // Acquire: the changes that the poller made inside are visible.
        if self.state == State::Fenced && !self.shared.busy.load(Acquire) {
            self.state = State::Held;
        }
        self.state == State::Held
    }

    /// The value, while this thread owns it.
    pub fn value(&mut self) -> Option<&mut T> {
        if self.state != State::Held {
            return None;
        }
        // SAFETY: `closed` is set, the fence has run, and the poller was seen outside, so it stays outside
        // until `open`, which needs the `&mut self` that this borrow holds.
        Some(self.shared.value.with_mut(|value| unsafe { &mut *value }))
    }

    /// Lets the poller enter again.
    pub fn open(&mut self) {
        // Release: this thread's changes are visible to the poller when it enters.
        self.shared.closed.store(false, Release);
        self.state = State::Open;
    }
}

/// Closes all `gates` with one fence and returns whether all are held now. Never waits: call again until all
/// are held.
#[must_use]
pub fn close_all<'a, T: 'a>(gates: impl IntoIterator<Item = &'a mut Controller<T>>) -> bool {
    let mut gates: Vec<_> = gates.into_iter().collect();
    gates.iter_mut().for_each(|gate| gate.ask());
    if gates.iter().any(|gate| gate.state == State::Asked) {
        // G2: all `closed` stores of this thread before all its `busy` loads; pairs with G1.
        heavy_fence(gates.iter().all(|gate| gate.shared.asymmetric));
        gates
            .iter_mut()
            .filter(|gate| gate.state == State::Asked)
            .for_each(|gate| gate.state = State::Fenced);
    }
    gates.into_iter().fold(true, |all, gate| gate.look() & all)
}

impl<T> std::fmt::Debug for Poller<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Entered<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Controller<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("state", &self.state).finish_non_exhaustive()
    }
}
