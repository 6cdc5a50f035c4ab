//! The cells of a split ring, range-checked once.

use crate::error::Error;
use crate::layout::{FLAGS, IDX, Layout, RING, RingMemory};
use crate::sync::{Relaxed, Shared, SharedSlice, Word};

/// Handles to every word of the ring. Positions are free-running and masked here.
#[derive(Clone, Copy)]
pub(super) struct Ring {
    desc: SharedSlice<u64>,
    avail: SharedSlice<u16>,
    used: SharedSlice<u32>,
    /// The ring size minus one.
    pub(super) mask: usize,
    pub(super) avail_flags: Shared<u16>,
    pub(super) avail_idx: Shared<u16>,
    pub(super) used_event: Shared<u16>,
    pub(super) used_flags: Shared<u16>,
    pub(super) used_idx: Shared<u16>,
    pub(super) avail_event: Shared<u16>,
}

impl Ring {
    pub(super) fn new(memory: &RingMemory, size: u16) -> Result<Self, Error> {
        let size = Layout::Split.check_size(u32::from(size))?;
        let n = usize::from(size);
        memory.check(Layout::Split, size)?;
        let cells = || {
            Some(Self {
                desc: memory.desc.cells(0, 2 * n)?,
                avail: memory.driver.cells(RING, n)?,
                used: memory.device.cells(RING, 2 * n)?,
                mask: n - 1,
                avail_flags: memory.driver.cell(FLAGS)?,
                avail_idx: memory.driver.cell(IDX)?,
                used_event: memory.driver.cell(RING + 2 * n)?,
                used_flags: memory.device.cell(FLAGS)?,
                used_idx: memory.device.cell(IDX)?,
                avail_event: memory.device.cell(RING + 8 * n)?,
            })
        };
        cells().ok_or(Error::Size { layout: Layout::Split, asked: u32::from(size) })
    }

    #[inline(always)]
    pub(super) const fn size(&self) -> u16 {
        self.mask as u16 + 1
    }

    /// The two words of descriptor `id`: address; length, flags and next. `None` outside the table.
    #[inline(always)]
    pub(super) fn desc(&self, id: u16) -> Option<[Shared<u64>; 2]> {
        let id = usize::from(id);
        // SAFETY: `id <= mask` was just checked.
        (id <= self.mask).then(|| unsafe { self.desc_unchecked(id) })
    }

    /// The two words of descriptor `id`.
    ///
    /// # Safety
    /// `id` is below the ring size.
    // MEASURED: cargo xtask budget; with all ring accesses checked, 9 to 29 more instructions per packet and
    // direction.
    #[inline(always)]
    pub(super) unsafe fn desc_unchecked(&self, id: usize) -> [Shared<u64>; 2] {
        debug_assert!(id <= self.mask);
        // SAFETY: `id < size` by this function's condition and `new` made `desc` with 2 × size words.
        let addr = unsafe { self.desc.at_unchecked(id * 2) };
        // SAFETY: `id < size`, so `2 × id + 1` is the last of at most 2 × size words.
        [addr, unsafe { self.desc.at_unchecked(id * 2 + 1) }]
    }

    /// The available entry for index `position`, which may exceed the ring size.
    #[inline(always)]
    pub(super) fn avail(&self, position: usize) -> Shared<u16> {
        // MEASURED: see `desc_unchecked`.
        // SAFETY: `position & mask < size` and `new` made `avail` with `size` words.
        unsafe { self.avail.at_unchecked(position & self.mask) }
    }

    /// The two words of the used element for index `position`, which may exceed the ring size: id; length.
    #[inline(always)]
    pub(super) fn used(&self, position: usize) -> [Shared<u32>; 2] {
        let at = (position & self.mask) * 2;
        // MEASURED: see `desc_unchecked`.
        // SAFETY: `position & mask < size` and `new` made `used` with 2 × size words.
        let id = unsafe { self.used.at_unchecked(at) };
        // SAFETY: `at` is even and below 2 × size, so `at + 1` is below that too.
        [id, unsafe { self.used.at_unchecked(at + 1) }]
    }
}

/// Stores `value` unless the word already has it: an unchanged cache line stays shared between the cores.
#[inline(always)]
pub(super) fn write_if_different<T: PartialEq + Word>(cell: Shared<T>, value: T) {
    if cell.load(Relaxed) != value {
        cell.store(value, Relaxed);
    }
}
