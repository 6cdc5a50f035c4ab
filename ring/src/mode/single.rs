//! One thread owns the side: its indices live in the handle.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::{Claim, SINGLE, Sides, Single, low, protocol::Protocol};
use crate::prefetch::keep;

/// The private indices. `Cell` keeps the handle from being shared between threads.
pub struct Local {
    head: Cell<u32>,
    /// Where this side may go, when it looked last.
    limit: Cell<u32>,
}

impl Protocol for Single {
    type Local = Local;
    const KIND: u32 = SINGLE;

    fn join(sides: &Sides) -> Local {
        // J1, pairs with T1 of the handle that owned this side before: its copies are done.
        let head = low(sides.own().tail.load(Ordering::Acquire));
        Local { head: Cell::new(head), limit: Cell::new(head) }
    }

    #[inline(always)]
    fn claim<const EXACT: bool>(local: &Local, sides: &Sides, want: u32) -> Claim {
        let start = local.head.get();
        let mut available = local.limit.get().wrapping_sub(start);
        if available < want {
            available = look(local, sides, start);
        }
        Claim::new::<EXACT>(start, available, want)
    }

    #[inline(always)]
    fn finish(local: &Local, sides: &Sides, claim: Claim, count: u32) {
        let head = claim.start.wrapping_add(count);
        local.head.set(head);
        // T1, pairs with T2: the copies above are done before the other side sees the new tail. A plain
        // store, as nobody else writes this cell.
        sides.own().tail.store(u64::from(head), Ordering::Release);
    }
}

/// Reads the other side's tail; a value that no honest peer can publish counts as "nothing".
#[inline(always)]
fn look(local: &Local, sides: &Sides, start: u32) -> u32 {
    let limit = sides.limit();
    let available = limit.wrapping_sub(start);
    if available > sides.capacity {
        keep();
        local.limit.set(start);
        return 0;
    }
    local.limit.set(limit);
    available
}
