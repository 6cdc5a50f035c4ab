//! The fill ring of a receive queue: provides buffers of the pool for the kernel to write frames into.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{Meta, Pool};

use super::cursor::{Producer, Ring};
use super::umem::{Tag, Umem};

/// The buffers taken from the pool at a time, and the free entries at which a ring is refilled.
const REFILL: usize = 32;

/// The buffers of one receive queue that the kernel holds.
pub(super) struct Fill {
    ring: Producer<1>,
    pool: Pool,
    umem: Arc<Umem>,
    tag: Tag,
    /// The maximum number of buffers with the kernel, and the present one.
    depth: u32,
    lent: u32,
    batch: usize,
    /// Whether to use only buffers within one page, because a device accesses the memory directly.
    whole: bool,
}

impl Fill {
    /// Creates a full ring of `depth` entries. Devices with direct access read it when the socket is bound,
    /// and not all read it again before they are called. It must therefore be full by then.
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

    /// Sets whether a device accesses the memory directly from now on.
    pub(super) fn set_whole(&mut self, whole: bool) {
        self.whole = whole;
    }

    /// See [`Producer::needs_wakeup`].
    #[inline(always)]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// Records that the kernel returned a buffer.
    #[inline(always)]
    pub(super) fn came_back(&mut self) {
        self.lent -= 1;
    }

    /// Adds buffers while there is room for a batch; false if the pool had too few.
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
                // A nearly empty pool still provides its remaining buffers.
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
            // SAFETY: the pool filled every element.
            let packet = unsafe { packet.assume_init() };
            // `lent <= depth`, so there is an entry for each.
            if let Some(start) = self.umem.lend(self.tag, packet) {
                slots.write([start]);
            }
        }
        slots.publish();
    }

    /// For devices with direct access. A buffer that crosses pages is withheld, and returns to the pool with
    /// the others when the queue ends. There is at most one for each hugepage of the pool.
    #[inline(never)]
    fn lend_whole(&mut self, fresh: &[MaybeUninit<NonNull<Meta>>]) {
        let mut slots = self.ring.reserve(fresh.len() as u32);
        for packet in fresh {
            // SAFETY: the pool filled every element.
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
