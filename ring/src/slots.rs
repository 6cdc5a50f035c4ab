//! The elements of a ring, by free-running index. Only this module accesses them by pointer.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::prefetch::{LINE, compiler_barrier};
use crate::sync::Track;

/// The maximum number of lines to prefetch for the next burst.
const AHEAD: u32 = 8;

/// Slots of `T`. Every index is masked, so none is out of bounds.
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

    /// The slot of `index`, and the number of slots from there to the end of the memory.
    #[inline(always)]
    pub(crate) fn run(&self, index: u32) -> (*mut T, usize) {
        let slot = index & self.mask;
        // SAFETY: `slot <= mask`, within the slots (the condition of `new`).
        let at = unsafe { self.base.as_ptr().add(slot as usize) };
        (at, (self.mask - slot) as usize + 1)
    }

    /// Calls `hint` for the lines of up to `count` slots from `index` on; if a slot is longer than a line,
    /// for its first line.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u32, count: u32, hint: impl Fn(*const u8)) {
        let per_line = const { if per_line::<T>() == 0 { 1 } else { per_line::<T>() } } as u32;
        let end = count.min(AHEAD * per_line);
        let mut done = 0;
        while done < end {
            hint(self.run(index.wrapping_add(done)).0.cast());
            done += per_line;
        }
    }

    /// Copies `items` into the slots from `index` on.
    ///
    /// # Safety
    /// The caller has claimed `items.len()` slots from `index` on, at most all slots.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, index: u32, items: &[T])
    where
        T: Copy,
    {
        let (at, row) = self.run(index);
        if items.len() <= row {
            self.track.write((index & self.mask) as usize, items.len());
            // SAFETY: `row` slots follow `at`; the caller owns them (this function's condition).
            unsafe { copy(items.as_ptr(), at, items.len()) };
        } else {
            // SAFETY: the caller claimed the slots (this function's condition), and they go beyond the row's
            // end.
            unsafe { self.write_around(index, items) };
        }
    }

    /// As [`write`](Self::write), across the last slot. This is rare, and a separate function keeps the usual
    /// path short.
    ///
    /// # Safety
    /// As for [`write`](Self::write), and fewer slots than `items.len()` follow `index` in a row.
    #[cold]
    #[inline(never)]
    unsafe fn write_around(&self, index: u32, items: &[T])
    where
        T: Copy,
    {
        let (at, row) = self.run(index);
        let (first, rest) = items.split_at(row);
        self.track.write((index & self.mask) as usize, row);
        self.track.write(0, rest.len());
        // SAFETY: up to the last slot; the caller owns them (this function's condition).
        unsafe { at.copy_from_nonoverlapping(first.as_ptr(), first.len()) };
        // SAFETY: the rest begins at the first slot; at most all slots are claimed, so it ends before `at`.
        unsafe { self.base.as_ptr().copy_from_nonoverlapping(rest.as_ptr(), rest.len()) };
    }

    /// Fills `out` with the slots from `index` on.
    ///
    /// # Safety
    /// The caller has claimed `out.len()` slots from `index` on, at most all slots.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, index: u32, out: &mut [MaybeUninit<T>])
    where
        T: Copy,
    {
        let (at, row) = self.run(index);
        if out.len() <= row {
            self.track.read((index & self.mask) as usize, out.len());
            // SAFETY: `row` slots follow `at`; the caller owns them (this function's condition).
            unsafe { copy(at, out.as_mut_ptr().cast(), out.len()) };
        } else {
            // SAFETY: the caller claimed the slots (this function's condition), and they go beyond the row's end.
            unsafe { self.read_around(index, out) };
        }
    }

    /// As [`read`](Self::read), across the last slot, like [`write_around`](Self::write_around).
    ///
    /// # Safety
    /// As for [`read`](Self::read), and fewer slots than `out.len()` follow `index` in a row.
    #[cold]
    #[inline(never)]
    unsafe fn read_around(&self, index: u32, out: &mut [MaybeUninit<T>])
    where
        T: Copy,
    {
        let (at, row) = self.run(index);
        let (first, rest) = out.split_at_mut(row);
        self.track.read((index & self.mask) as usize, row);
        self.track.read(0, rest.len());
        // SAFETY: up to the last slot; the caller owns them (this function's condition).
        unsafe { at.copy_to_nonoverlapping(first.as_mut_ptr().cast(), first.len()) };
        // SAFETY: the rest begins at the first slot; at most all slots are claimed, so it ends before `at`.
        unsafe { self.base.as_ptr().copy_to_nonoverlapping(rest.as_mut_ptr().cast(), rest.len()) };
    }

    /// Writes one element.
    ///
    /// # Safety
    /// The caller has claimed the slot of `index`.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, index: u32, item: T) {
        self.track.write((index & self.mask) as usize, 1);
        // SAFETY: a valid slot that the caller owns (this function's condition).
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
        // SAFETY: a valid slot with a value that the caller owns (this function's condition).
        unsafe { self.run(index).0.read() }
    }
}

/// The number of elements in a cache line; 0 if they do not fill one exactly.
const fn per_line<T>() -> usize {
    let size = size_of::<T>();
    if size == 0 || !LINE.is_multiple_of(size) { 0 } else { LINE / size }
}

/// Copies `count` elements: whole lines in a loop, then halves of a line. Bursts are short, and the dispatch
/// in `memcpy` costs as much as the copy.
///
/// # Safety
/// Both sides are valid for `count` elements and do not overlap.
#[inline(always)]
unsafe fn copy<T: Copy>(mut from: *const T, mut to: *mut T, count: usize) {
    let per_line = const { per_line::<T>() };
    if per_line < 2 {
        // SAFETY: both sides are valid for `count` elements and do not overlap (this function's condition).
        unsafe { to.copy_from_nonoverlapping(from, count) };
        return;
    }
    let mut left = count;
    while left >= per_line {
        // SAFETY: `left >= per_line` elements are left on both sides, which do not overlap.
        unsafe { to.copy_from_nonoverlapping(from, per_line) };
        // SAFETY: at least a line was left on both sides, so this is at most one past the end.
        from = unsafe { from.add(per_line) };
        // SAFETY: at least a line was left on both sides, so this is at most one past the end.
        to = unsafe { to.add(per_line) };
        left -= per_line;
        compiler_barrier();
    }
    if left == 0 {
        return;
    }
    let mut part = per_line / 2;
    while part > 0 {
        if left & part != 0 {
            // SAFETY: fewer than twice `part` elements remain, and the bit `part` of their number is set.
            unsafe { to.copy_from_nonoverlapping(from, part) };
            // SAFETY: at least `part` elements were left on both sides, so this is at most one past the end.
            from = unsafe { from.add(part) };
            // SAFETY: at least `part` elements were left on both sides, so this is at most one past the end.
            to = unsafe { to.add(part) };
        }
        part /= 2;
    }
}
