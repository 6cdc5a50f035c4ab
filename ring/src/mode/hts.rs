//! HTS: the head word is `{head, tail}`. A claim is open while they differ, and no other thread can claim
//! then.

use std::sync::atomic::Ordering;

use super::{Claim, HTS, Hts, Sides, high, low, pack, protocol::Protocol};
use crate::sync::Pause;

impl Protocol for Hts {
    type Local = ();
    const KIND: u32 = HTS;

    fn join(_: &Sides) {}

    #[inline(always)]
    fn claim<const EXACT: bool>((): &(), sides: &Sides, want: u32) -> Claim {
        let shared = &sides.own().head;
        loop {
            let word = idle_head(sides);
            let head = low(word);
            let mut limit = low(shared.limit.load(Ordering::Relaxed));
            let mut available = limit.wrapping_sub(head);
            if available < want || available > sides.capacity {
                limit = sides.limit();
                available = limit.wrapping_sub(head);
            }
            if available > sides.capacity {
                if shared.word.load(Ordering::Acquire) == word {
                    return Claim::none(head);
                }
                continue;
            }
            let claim = Claim::new::<EXACT>(head, limit, want);
            if claim.count == 0 {
                return claim;
            }
            let next = pack(head.wrapping_add(claim.count), head);
            // E1, pairs with E2.
            if shared.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                shared.limit.store(u64::from(limit), Ordering::Relaxed);
                return claim;
            }
        }
    }

    #[inline(always)]
    fn finish((): &(), sides: &Sides, claim: Claim, count: u32) {
        let own = sides.own();
        let tail = claim.start.wrapping_add(count);
        // T1, pairs with T2. Before E1; otherwise the next claim could be published first and be overwritten
        // here.
        own.tail.store(u64::from(tail), Ordering::Release);
        // E1, pairs with E2: a plain store, because no thread swaps the word while a claim is open.
        own.head.word.store(pack(tail, tail), Ordering::Release);
    }
}

/// The head word, once no claim is open.
#[inline(always)]
fn idle_head(sides: &Sides) -> u64 {
    let cell = &sides.own().head.word;
    // E2, pairs with E1: the copies, limit and tail of the previous claim are done.
    let word = cell.load(Ordering::Acquire);
    if low(word) == high(word) {
        return word;
    }
    wait_idle(sides)
}

#[cold]
#[inline(never)]
fn wait_idle(sides: &Sides) -> u64 {
    let pause = Pause::new();
    loop {
        // E2, pairs with E1: the copies, limit and tail of the previous claim are done.
        let word = sides.own().head.word.load(Ordering::Acquire);
        if low(word) == high(word) {
            return word;
        }
        pause.wait();
    }
}
