//! RTS: head and tail are each `{index, count}`; the last of the open claims to finish moves the tail.

use std::sync::atomic::Ordering;

use super::{Claim, RTS, Rts, Sides, high, low, pack, protocol::Protocol};
use crate::sync::Pause;

impl Protocol for Rts {
    type Local = ();
    const KIND: u32 = RTS;

    fn join(_: &Sides) {}

    #[inline(always)]
    fn claim<const EXACT: bool>((): &(), sides: &Sides, want: u32) -> Claim {
        let cell = &sides.own().head.word;
        loop {
            let word = settled_head(sides);
            let head = low(word);
            let limit = sides.limit();
            if limit.wrapping_sub(head) > sides.capacity {
                if cell.load(Ordering::Acquire) == word {
                    return Claim::none(head);
                }
                continue;
            }
            let claim = Claim::new::<EXACT>(head, limit, want);
            if claim.count == 0 {
                return claim;
            }
            let next = pack(head.wrapping_add(claim.count), high(word).wrapping_add(1));
            // C1, pairs with C2 in `settled_head`.
            if cell.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return claim;
            }
        }
    }

    #[inline(always)]
    fn finish((): &(), sides: &Sides, _: Claim, _: u32) {
        let (head, tail) = (&sides.own().head.word, &sides.own().tail);
        // R2, pairs with R1: every claim whose finish is counted in `old` is visible in the head read next.
        // Otherwise equal counts could hide an open claim.
        let mut old = tail.load(Ordering::Acquire);
        loop {
            let claimed = head.load(Ordering::Acquire);
            let count = high(old).wrapping_add(1);
            let index = if count == high(claimed) { low(claimed) } else { low(old) };
            // T1 and R1, pair with T2 and R2; acquiring as well passes on the copies of the threads that
            // finished before.
            match tail.compare_exchange_weak(old, pack(index, count), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
}

/// The head, once the tail is at most an eighth of the ring behind. Otherwise one open claim would let the
/// others fill the ring with elements that cannot be read yet.
#[inline(always)]
fn settled_head(sides: &Sides) -> u64 {
    let most = (sides.capacity / 8).max(1);
    let pause = Pause::new();
    loop {
        // C2, pairs with C1: no tail read after this is older than the one that justified the head.
        let word = sides.own().head.word.load(Ordering::Acquire);
        let tail = low(sides.own().tail.load(Ordering::Acquire));
        let distance = low(word).wrapping_sub(tail);
        // The two are read separately, so the tail may be newer than the head: then the distance is
        // "negative".
        if distance <= most || distance > sides.capacity {
            return word;
        }
        pause.wait();
    }
}
