//! One thread owns the side: its indices are in the handle.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::{Claim, SINGLE, Sides, Single, high, low, pack, protocol::Protocol};
use crate::prefetch::compiler_barrier;

/// The private indices, head and last seen limit, in one word: a burst of one element takes as long as its
/// stores, and this saves one of two. `Cell` prevents sharing the handle between threads.
pub struct Local(Cell<u64>);

impl Protocol for Single {
    type Local = Local;
    const KIND: u32 = SINGLE;

    fn join(sides: &Sides) -> Local {
        // J1, pairs with T1 of the handle that previously owned this side: its copies are done.
        let head = low(sides.own().tail.load(Ordering::Acquire));
        Local(Cell::new(pack(head, head)))
    }

    #[inline(always)]
    fn claim<const EXACT: bool>(local: &Local, sides: &Sides, want: u32) -> Claim {
        let word = local.0.get();
        let start = low(word);
        let mut limit = high(word);
        if limit.wrapping_sub(start) < want {
            limit = look(sides, start);
        }
        Claim::new::<EXACT>(start, limit, want)
    }

    #[inline(always)]
    fn finish(local: &Local, sides: &Sides, claim: Claim, count: u32) {
        let head = claim.start.wrapping_add(count);
        local.0.set(pack(head, claim.limit));
        // T1, pairs with T2: the copies above are done before the other side sees the new tail. A plain
        // store, because nothing else writes this cell.
        sides.own().tail.store(u64::from(head), Ordering::Release);
    }
}

/// The current limit; a value that no honest peer can publish counts as "nothing available".
#[inline(always)]
fn look(sides: &Sides, start: u32) -> u32 {
    let limit = sides.limit();
    if limit.wrapping_sub(start) > sides.capacity {
        compiler_barrier();
        return start;
    }
    limit
}
