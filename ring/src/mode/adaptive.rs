//! Counted handles: as SP/SC while a side has one handle, as MP/MC from the second on.
//!
//! The head word is that of MP/MC. A handle is used by one thread at a time (it is not `Sync`), so who finds
//! itself alone stays alone until it clones itself: nobody else can make a second handle.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use super::multi::{Look, look};
use super::{ADAPTIVE, Adaptive, Claim, Multi, Sides, protocol::Protocol};

/// Keeps the handle from being used by two threads at once.
pub struct Local(PhantomData<Cell<()>>);

impl Protocol for Adaptive {
    type Local = Local;
    const KIND: u32 = ADAPTIVE;

    fn join(sides: &Sides) -> Local {
        // The new handle reaches its thread by some ordered way; the old one is on this thread.
        sides.own().head.handles.fetch_add(1, Ordering::Relaxed);
        Local(PhantomData)
    }

    fn leave(_: &Local, sides: &Sides) {
        // L1, pairs with L2: who is alone from now on sees every claim that this handle made.
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
                // Plain: nobody else writes the word while this handle is the only one. Release for whom it
                // clones later costs nothing here and keeps C2's partner.
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
