//! Counted handles: SP/SC while a side has one handle, MP/MC from the second on.
//!
//! The head word is that of MP/MC. One thread at a time uses a handle (it is not `Sync`), so a handle that is
//! the only one stays the only one until it is cloned.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use super::multi::{Look, look};
use super::{ADAPTIVE, Adaptive, Claim, Multi, Sides, protocol::Protocol};

/// Prevents two threads from using the handle at the same time.
pub struct Local(PhantomData<Cell<()>>);

impl Protocol for Adaptive {
    type Local = Local;
    const KIND: u32 = ADAPTIVE;

    fn join(sides: &Sides) -> Local {
        // Passing the new handle to its thread synchronises; the old handle is on this thread.
        sides.own().head.handles.fetch_add(1, Ordering::Relaxed);
        Local(PhantomData)
    }

    fn leave(_: &Local, sides: &Sides) {
        // L1, pairs with L2: the handle that remains sees every claim that this handle made.
        sides.own().head.handles.fetch_sub(1, Ordering::Release);
    }

    #[inline(always)]
    fn claim<const EXACT: bool>(_: &Local, sides: &Sides, want: u32) -> Claim {
        let head = &sides.own().head;
        // L2, pairs with L1.
        if head.handles.load(Ordering::Acquire) != 1 {
            return Multi::claim::<EXACT>(&(), sides, want);
        }
        match look::<EXACT>(sides, head.word.load(Ordering::Relaxed), want) {
            Look::Claim(claim, next) => {
                // A plain store: nothing else writes the word while this is the only handle. Release, for
                // handles cloned later, costs nothing here and keeps the pairing with C2.
                head.word.store(next, Ordering::Release);
                claim
            }
            Look::Nothing(claim) => claim,
            Look::Passed(start) => Claim::none(start),
        }
    }

    #[inline(always)]
    fn finish(_: &Local, sides: &Sides, claim: Claim, count: u32) {
        Multi::finish(&(), sides, claim, count);
    }
}
