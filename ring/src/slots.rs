//! The elements of a ring, by free-running index. All raw access to them is here.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::prefetch::LINE;
use crate::sync::Track;

/// Most bytes to prefetch for the next burst.
const AHEAD: usize = 512;

/// Slots of `T`; every index is masked, so none is out of bounds.
pub(crate) struct Slots<T> {
    base: NonNull<T>,
    mask: u32,
    track: Track,
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Self { base: self.base, mask: self.mask, track: self.track.clone() }
    }
}

impl<T> Slots<T> {
    /// # Safety
    /// `base` points to `mask + 1` (a power of two) slots that stay valid while this value is used.
    pub(crate) unsafe fn new(base: NonNull<T>, mask: u32, track: Track) -> Self {
        Self { base, mask, track }
    }

    /// The slot of `index`, and how many slots follow in a row, itself included.
    #[inline(always)]
    pub(crate) fn run(&self, index: u32) -> (*mut T, usize) {
        let slot = index & self.mask;
        // SAFETY: `slot <= mask`, inside the slots by `new`.
        let at = unsafe { self.base.as_ptr().add(slot as usize) };
        (at, (self.mask - slot) as usize + 1)
    }

    /// Calls `hint` for the lines of up to `count` slots from `index` on, as far as they lie in a row.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u32, count: usize, hint: impl Fn(*const u8)) {
        let (at, row) = self.run(index);
        let bytes = (count.min(row) * size_of::<T>()).min(AHEAD);
        let mut offset = 0;
        while offset < bytes {
            hint(at.cast::<u8>().wrapping_add(offset));
            offset += LINE;
        }
    }

    /// Copies `items` into the slots from `index` on.
    ///
    /// # Safety
    /// The caller has claimed `items.len()` slots from `index` on, no more than there are.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, index: u32, items: &[T])
    where
        T: Copy,
    {
        let (at, row) = self.run(index);
        if items.len() <= row {
            self.track.write((index & self.mask) as usize, items.len());
            // SAFETY: `row` slots follow `at`; they are ours by this function's contract.
            unsafe { copy(items.as_ptr(), at, items.len()) };
        } else {
            let (first, rest) = items.split_at(row);
            self.track.write((index & self.mask) as usize, row);
            self.track.write(0, rest.len());
            // SAFETY: as above, up to the last slot.
            unsafe { copy(first.as_ptr(), at, first.len()) };
            // SAFETY: the rest begins at the first slot; at most all slots are claimed, so it ends before `at`.
            unsafe { copy(rest.as_ptr(), self.base.as_ptr(), rest.len()) };
        }
    }

    /// Copies the slots from `index` on to `out`, all of which is filled.
    ///
    /// # Safety
    /// The caller has claimed `out.len()` slots from `index` on, no more than there are.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, index: u32, out: &mut [MaybeUninit<T>])
    where
        T: Copy,
    {
        let (at, row) = self.run(index);
        if out.len() <= row {
            self.track.read((index & self.mask) as usize, out.len());
            // SAFETY: `row` slots follow `at`; they are ours by this function's contract.
            unsafe { copy(at, out.as_mut_ptr().cast(), out.len()) };
        } else {
            let (first, rest) = out.split_at_mut(row);
            self.track.read((index & self.mask) as usize, row);
            self.track.read(0, rest.len());
            // SAFETY: as above, up to the last slot.
            unsafe { copy(at, first.as_mut_ptr().cast(), first.len()) };
            // SAFETY: the rest begins at the first slot; at most all slots are claimed, so it ends before `at`.
            unsafe { copy(self.base.as_ptr(), rest.as_mut_ptr().cast(), rest.len()) };
        }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// The caller has claimed the slot of `index`.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, index: u32, item: T) {
        self.track.write((index & self.mask) as usize, 1);
        // SAFETY: a valid slot, ours by this function's contract.
        unsafe { self.run(index).0.write(item) };
    }

    /// Reads one element.
    ///
    /// # Safety
    /// The caller has claimed the slot of `index`, and it holds a value.
    #[inline(always)]
    pub(crate) unsafe fn take(&self, index: u32) -> T
    where
        T: Copy,
    {
        self.track.read((index & self.mask) as usize, 1);
        // SAFETY: a valid slot with a value, ours by this function's contract.
        unsafe { self.run(index).0.read() }
    }
}

/// A cache line of bytes, moved by the widest registers there are.
type Line = MaybeUninit<[u8; 64]>;

/// Copies `count` elements: whole lines in a loop, then one by one. Bursts are short, and a call to `memcpy`
/// with its own dispatch costs as much as the copy.
///
/// # Safety
/// Both sides are valid for `count` elements and do not overlap.
#[inline(always)]
unsafe fn copy<T: Copy>(from: *const T, to: *mut T, count: usize) {
    let per_line =
        const { if size_of::<T>() == 0 || 64 % size_of::<T>() != 0 { 0 } else { 64 / size_of::<T>() } };
    if per_line < 2 {
        // SAFETY: this function's contract.
        unsafe { to.copy_from_nonoverlapping(from, count) };
        return;
    }
    let mut done = 0;
    while count - done >= per_line {
        // SAFETY: `done + per_line <= count`.
        let line = unsafe { from.add(done) }.cast::<Line>();
        // SAFETY: as above.
        let into = unsafe { to.add(done) }.cast::<Line>();
        // SAFETY: a whole line is left on the reading side.
        let line = unsafe { line.read_unaligned() };
        // SAFETY: and on the writing side.
        unsafe { into.write_unaligned(line) };
        done += per_line;
    }
    while done < count {
        // SAFETY: `done < count`.
        let item = unsafe { from.add(done) };
        // SAFETY: as above.
        let into = unsafe { to.add(done) };
        // SAFETY: one element is left on both sides.
        unsafe { into.copy_from_nonoverlapping(item, 1) };
        done += 1;
    }
}
