//! MP/MC: claim with one compare-and-swap, publish in the order of the claims.
//!
//! The head word is `{head, limit}`: the limit is a cached copy of the other side's tail. The same swap
//! updates both, so the limit is never older than its head and costs no access of its own.

use std::sync::atomic::Ordering;

use super::{Claim, MULTI, Multi, Sides, high, low, pack, protocol::Protocol};
use crate::prefetch;
use crate::sync::Pause;

impl Protocol for Multi {
    type Local = ();
    const KIND: u32 = MULTI;

    fn join(_: &Sides) {}

    #[inline(always)]
    fn claim<const EXACT: bool>((): &(), sides: &Sides, want: u32) -> Claim {
        let cell = &sides.own().head.word;
        // The swap below waits until all earlier stores have left the core, including the last publication.
        // Requesting the tail's line now shortens that wait if the other side has taken it.
        prefetch::write((&raw const sides.own().tail).cast());
        // C2, pairs with C1: the tail of the peer read later is not older than the one that justified the
        // head.
        let mut word = cell.load(Ordering::Acquire);
        loop {
            let next = match look::<EXACT>(sides, word, want) {
                Look::Claim(claim, next) => {
                    // C1, pairs with C2.
                    match cell.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return claim,
                        Err(now) => now,
                    }
                }
                Look::Nothing(claim) => return claim,
                Look::Passed(start) => {
                    let now = cell.load(Ordering::Acquire);
                    if now == word {
                        // The head was not passed: the peer wrote an invalid index.
                        return Claim::none(start);
                    }
                    now
                }
            };
            word = next;
        }
    }

    #[inline(always)]
    fn finish((): &(), sides: &Sides, claim: Claim, count: u32) {
        let cell = &sides.own().tail;
        // W2, pairs with W1 below in the thread of the previous claim: its copies are also done when the
        // other side sees this thread's tail.
        if cell.load(Ordering::Acquire) != u64::from(claim.start) {
            wait_for_turn(sides, claim.start);
        }
        // T1 and W1, pair with T2 and W2.
        cell.store(u64::from(claim.start.wrapping_add(count)), Ordering::Release);
    }
}

/// The result of evaluating a head word.
pub(super) enum Look {
    /// This claim, if the word can be replaced by the second value.
    Claim(Claim, u64),
    /// No slot is available.
    Nothing(Claim),
    /// The other side has passed the head, so the head was old.
    Passed(u32),
}

#[inline(always)]
pub(super) fn look<const EXACT: bool>(sides: &Sides, word: u64, want: u32) -> Look {
    let (head, mut limit) = (low(word), high(word));
    let mut available = limit.wrapping_sub(head);
    if available < want {
        limit = sides.limit();
        available = limit.wrapping_sub(head);
    }
    if available > sides.capacity {
        return Look::Passed(head);
    }
    let claim = Claim::new::<EXACT>(head, limit, want);
    if claim.count == 0 {
        return Look::Nothing(claim);
    }
    Look::Claim(claim, pack(head.wrapping_add(claim.count), limit))
}

#[cold]
#[inline(never)]
fn wait_for_turn(sides: &Sides, start: u32) {
    let pause = Pause::new();
    // W2, pairs with W1: the copies of the thread of the previous claim are done.
    while sides.own().tail.load(Ordering::Acquire) != u64::from(start) {
        pause.wait();
    }
}
