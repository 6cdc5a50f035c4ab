//! The fill ring of a receive queue: buffers of the pool, lent to the kernel that puts frames into them.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{Meta, Pool};

use super::cursor::{Producer, Ring};
use super::umem::{Tag, Umem};

/// Buffers taken from the pool at once; also how far a ring may run down before it is filled again.
const REFILL: usize = 32;

/// Buffers of one receive queue that are with the kernel.
pub(super) struct Fill {
    ring: Producer<1>,
    pool: Pool,
    umem: Arc<Umem>,
    tag: Tag,
    /// Buffers that may be lent at most, and are.
    depth: u32,
    lent: u32,
    batch: usize,
    /// Only buffers that lie in one page: a device reaches the memory itself.
    whole: bool,
}

impl Fill {
    /// A full ring of `depth` entries. Devices that reach the memory themselves look into it when the socket is bound,
    /// and not all look again before they are called: it is to be full by then.
    pub(super) fn new(ring: Ring<1>, depth: u32, umem: &Arc<Umem>, tag: Tag, whole: bool) -> Self {
        let mut fill = Self {
            ring: Producer::new(ring),
            pool: umem.pool().clone(),
            umem: umem.clone(),
            tag,
            depth,
            lent: 0,
            batch: (depth as usize / 4).clamp(1, REFILL),
            whole,
        };
        fill.refill();
        fill
    }

    /// Whether from now on a device reaches the memory itself.
    pub(super) fn set_whole(&mut self, whole: bool) {
        self.whole = whole;
    }

    /// See [`Producer::needs_wakeup`].
    #[inline(always)]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// Notes that the kernel gave one back.
    #[inline(always)]
    pub(super) fn came_back(&mut self) {
        self.lent -= 1;
    }

    /// Lends buffers while there is room for a batch; false when the pool had too few.
    #[inline(always)]
    pub(super) fn refill(&mut self) -> bool {
        let mut want = self.batch;
        while (self.depth - self.lent) as usize >= self.batch {
            let mut fresh = [const { MaybeUninit::<NonNull<Meta>>::uninit() }; REFILL];
            let Some(some) = fresh.get_mut(..want) else { break };
            if self.pool.get_raw(some).is_ok() {
                self.lent += want as u32;
                self.lend(&fresh[..want]);
            } else if want > 1 {
                // A nearly empty pool still gives what it has.
                want /= 2;
            } else {
                return false;
            }
        }
        want == self.batch
    }

    #[inline(always)]
    fn lend(&mut self, fresh: &[MaybeUninit<NonNull<Meta>>]) {
        if self.whole {
            return self.lend_whole(fresh);
        }
        let mut slots = self.ring.reserve(fresh.len() as u32);
        for packet in fresh {
            // SAFETY: the pool filled every place.
            let packet = unsafe { packet.assume_init() };
            // `lent <= depth`, so there is a place for each.
            if let Some(start) = self.umem.lend(self.tag, packet) {
                slots.write([start]);
            }
        }
        slots.publish();
    }

    /// For devices that reach the memory themselves. A buffer that crosses pages is lent to nobody and comes home with
    /// the others when the queue ends; there is at most one for each hugepage of the pool.
    #[inline(never)]
    fn lend_whole(&mut self, fresh: &[MaybeUninit<NonNull<Meta>>]) {
        let mut slots = self.ring.reserve(fresh.len() as u32);
        for packet in fresh {
            // SAFETY: the pool filled every place.
            let packet = unsafe { packet.assume_init() };
            let Some(start) = self.umem.lend(self.tag, packet) else { continue };
            if self.umem.is_whole(packet) {
                slots.write([start]);
            } else {
                self.depth += 1;
            }
        }
        slots.publish();
    }
}
