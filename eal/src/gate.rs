//! Something two threads use in turn: a poller all the time, the control thread now and then.
//!
//! The poller pays two plain stores and two loads per burst, no locked instruction. The control thread pays
//! a system call that fences the poller for it, and never waits: it asks, and looks again later.
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
//! store. Without the pair both could go in at once. Where the kernel has no `membarrier(2)` the light fence is a
//! full one.
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

/// Registers this process with `membarrier(2)`, on which gates and wake-ups rest; whether the kernel has it.
///
/// Each [`Eal`](crate::Eal) does this. The kernel does it at once for a process with a single thread, and waits about 20 ms for all
/// processors in one that has more (`synchronize_rcu`): a program that makes threads before its first `Eal` calls this before them.
///
/// ```
/// assert_eq!(linecard_eal::gate::register_fences(), linecard_eal::gate::register_fences(), "once is enough");
/// ```
pub fn register_fences() -> bool {
    asymmetric_fences()
}

/// What both sides share; a line of its own, written by the poller.
#[repr(align(128))]
struct Gate<T> {
    busy: AtomicBool,
    closed: AtomicBool,
    asymmetric: bool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time (see the module), so it needs to be `Send` only.
unsafe impl<T: Send> Sync for Gate<T> {}
// SAFETY: a handle moved to another thread moves at most the right to reach the value, one thread at a time; `T: Send`
// allows that.
unsafe impl<T: Send> Send for Gate<T> {}

/// The polling thread's end; see the [module](self).
pub struct Poller<T>(Arc<Gate<T>>);

/// The control thread's end; see the [module](self).
pub struct Controller<T> {
    shared: Arc<Gate<T>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The poller may go in.
    Open,
    /// `closed` is stored, the heavy fence is still to come.
    Asked,
    /// The heavy fence has passed: a poller that is not in stays out.
    Fenced,
    /// The poller was seen outside: the value is ours.
    Held,
}

/// Both ends of a gate around `value`, open.
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
    /// Goes in, unless the control thread is in or asks to be.
    #[inline(always)]
    #[must_use]
    pub fn enter(&mut self) -> Option<Entered<'_, T>> {
        let shared = &*self.0;
        // Asked first, so that a poller in a tight loop does not look busy to one who waits for it.
        if shared.closed.load(Relaxed) {
            return None;
        }
        shared.busy.store(true, Relaxed);
        // G1: our `busy` store before our `closed` load; pairs with G2.
        light_fence(shared.asymmetric);
        // Acquire: what the control thread did before it opened the gate is visible.
        if shared.closed.load(Acquire) {
            shared.busy.store(false, Release);
            return None;
        }
        Some(Entered(shared, PhantomData))
    }
}

/// The poller is in; dropping this leaves, also when a burst panics.
///
/// It is the poller's exclusive borrow of the value, and as such may be shared between threads where the value may:
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
        // SAFETY: `busy` is set and `closed` was seen clear behind G1, so the control thread stays out
        // until this guard drops; only one guard exists because `enter` borrows the one poller.
        self.0.value.with_mut(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Entered<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: `Entered` exists only between `enter` and its drop, while the control thread keeps out; `&mut self`
        // makes this the only borrow.
        self.0.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Entered<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: what was done inside is visible to a control thread that sees us outside.
        self.0.busy.store(false, Release);
    }
}

impl<T> Controller<T> {
    /// Asks the poller to stay out; the fence of [`close_all`] must follow.
    fn ask(&mut self) {
        if self.state == State::Open {
            self.shared.closed.store(true, Relaxed);
            self.state = State::Asked;
        }
    }

    /// Whether the poller is out. Call again later when it is not; a burst is all there is to wait for.
    fn look(&mut self) -> bool {
        // Acquire: what the poller did inside is visible to us.
        if self.state == State::Fenced && !self.shared.busy.load(Acquire) {
            self.state = State::Held;
        }
        self.state == State::Held
    }

    /// The value, while it is held.
    pub fn value(&mut self) -> Option<&mut T> {
        if self.state != State::Held {
            return None;
        }
        // SAFETY: `closed` is set, the fence has passed, and the poller was seen outside, so it stays out
        // until `open`, which needs the `&mut self` that this borrow holds.
        Some(self.shared.value.with_mut(|value| unsafe { &mut *value }))
    }

    /// Lets the poller in again.
    pub fn open(&mut self) {
        // Release: what we did is visible to the poller when it comes in.
        self.shared.closed.store(false, Release);
        self.state = State::Open;
    }
}

/// Closes all `gates` with one fence; whether all are held now. Call again until they are: it never waits.
#[must_use]
pub fn close_all<'a, T: 'a>(gates: impl IntoIterator<Item = &'a mut Controller<T>>) -> bool {
    let mut gates: Vec<_> = gates.into_iter().collect();
    gates.iter_mut().for_each(|gate| gate.ask());
    if gates.iter().any(|gate| gate.state == State::Asked) {
        // G2: all our `closed` stores before all our `busy` loads; pairs with G1.
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
