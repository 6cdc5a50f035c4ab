//! The common part of producer and consumer: a window of slots that can be claimed, moved by a mode's
//! protocol.

use std::sync::Arc;

use crate::Error;
use crate::config::{Geometry, SharedMemory};
use crate::layout::Half;
use crate::mode::{Claim, Mode, MultiThread, Sides};
use crate::slots::Slots;
use crate::storage::Storage;

/// The distance in bytes from the claimed slots to the prefetched ones. Moving a cache line between cores
/// takes longer than copying a burst, so the lines of several bursts must be in flight.
// MEASURED: linecard bench ring --case "sp/sc bulk-32 two"; 768 bytes 5.1 cycles, only the next burst 7.2, 1536 bytes 6.0.
const DISTANCE: usize = 768;

/// One side of a ring in mode `M`.
///
/// Every burst writes the private indices. They have their own cache lines, so that handles in adjacent
/// memory do not share lines.
// MEASURED: linecard bench ring --case "sp/sc single one"; side by side 13.4 cycles, on lines of their own 7.6.
#[repr(align(128))]
pub(crate) struct End<T, M: Mode> {
    pub(crate) slots: Slots<T>,
    sides: Sides,
    local: M::Local,
    /// An enqueue that leaves fewer free slots than this has reached the watermark.
    pub(crate) high_below: u32,
    storage: Arc<Storage>,
}

// SAFETY: the pointers lead to atomics and to slots that the protocol passes between threads; elements are
// `Copy + Send` (`Config::heap`), and the private indices move with the value.
unsafe impl<T: Send, M: Mode> Send for End<T, M> {}
// SAFETY: a shared reference gives access to atomics, and to slots as the protocol allows; modes with private
// indices are not `Sync` because those are cells.
unsafe impl<T: Send, M: Mode> Sync for End<T, M> where M::Local: Sync {}

impl<T, M: MultiThread> Clone for End<T, M> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            sides: self.sides,
            local: M::join(&self.sides),
            high_below: self.high_below,
            storage: Arc::clone(&self.storage),
        }
    }
}

impl<T, M: Mode> Drop for End<T, M> {
    fn drop(&mut self) {
        M::leave(&self.local, &self.sides);
    }
}

impl<T, M: Mode> End<T, M> {
    pub(crate) fn new(storage: Arc<Storage>, geometry: &Geometry, half: Half) -> Self {
        let cells = storage.cells();
        let limit_offset = if half == Half::Producer { geometry.capacity } else { 0 };
        // SAFETY: `storage` keeps the cells valid while this end exists.
        let sides = unsafe { Sides::new(cells.sides(half), limit_offset, geometry.capacity) };
        // SAFETY: the storage has `slots` elements behind its cells, checked when it was created or attached.
        let slots = unsafe { Slots::new(cells.slots().cast(), geometry.slots - 1, storage.track()) };
        let high_below = match geometry.watermark {
            0 => 0,
            used => geometry.capacity - used + 1,
        };
        Self { slots, local: M::join(&sides), sides, high_below, storage }
    }

    pub(crate) fn attach(memory: SharedMemory, half: Half) -> Result<Self, Error> {
        let mode = (M::KIND, crate::mode::name(M::KIND));
        let (storage, geometry) = Storage::attach::<T>(memory, half, mode)?;
        Ok(Self::new(Arc::new(storage), &geometry, half))
    }

    /// Claims `want` slots, or fewer unless `EXACT`.
    #[inline(always)]
    pub(crate) fn claim<const EXACT: bool>(&self, want: usize) -> Claim {
        // A number that does not fit an index exceeds the size of any ring.
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        M::claim::<EXACT>(&self.local, &self.sides, want)
    }

    /// Prefetches as many slots as were claimed, [`DISTANCE`] ahead, or less if fewer slots are known to be
    /// available.
    #[inline(always)]
    pub(crate) fn prefetch_ahead(&self, claim: Claim, hint: impl Fn(*const u8)) {
        let distance = const { (DISTANCE / if size_of::<T>() == 0 { 1 } else { size_of::<T>() }) as u32 };
        let count = claim.left().min(claim.count);
        let skip = (claim.left() - count).min(distance);
        let first = claim.start.wrapping_add(claim.count).wrapping_add(skip);
        self.slots.prefetch(first, count, hint);
    }

    /// Publishes a whole claim.
    #[inline(always)]
    pub(crate) fn finish(&self, claim: Claim) {
        M::finish(&self.local, &self.sides, claim, claim.count);
    }

    /// Publishes the first `count` slots of a claim and returns the others. For exclusive modes.
    #[inline(always)]
    pub(crate) fn finish_part(&self, claim: Claim, count: u32) {
        M::finish(&self.local, &self.sides, claim, count);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.sides.capacity() as usize
    }

    /// The number of slots that this side can claim now: free ones (producer), filled ones (consumer).
    pub(crate) fn available(&self) -> usize {
        self.sides.available() as usize
    }
}
