//! The packets that one thread caches of one pool, in two magazines.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::Item;

/// The maximum number of pointers in a magazine.
pub(super) const MAGAZINE: usize = 256;

/// A row of the table that thread slots index. Only the owner of the slot writes it, with plain loads and
/// stores. Atomics allow other threads to read the counters, and threads without a slot to read the last row,
/// which never changes.
#[repr(C, align(128))]
pub(crate) struct Cache {
    /// The number of pointers in `loaded`.
    pub(super) len: AtomicUsize,
    /// The number of pointers that fit into `loaded`; 0 sends every return to the slow path.
    pub(super) room: AtomicUsize,
    pub(super) loaded: AtomicPtr<Item>,
    /// The number of packets ever taken through this row.
    pub(super) gets: AtomicU64,
    /// The number of packets ever returned through this row; see the module `orphans` for the ordering.
    pub(super) puts: AtomicU64,
    /// The other magazine, usually full or empty, so that a thread that alternates gets and puts does not use
    /// the depot.
    pub(super) previous: AtomicPtr<Item>,
    pub(super) previous_len: AtomicUsize,
}

impl Cache {
    pub(super) const fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            room: AtomicUsize::new(0),
            loaded: AtomicPtr::new(ptr::null_mut()),
            gets: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            previous: AtomicPtr::new(ptr::null_mut()),
            previous_len: AtomicUsize::new(0),
        }
    }

    /// The number of packets in this cache.
    pub(super) fn held(&self) -> usize {
        self.len.load(Relaxed) + self.previous_len.load(Relaxed)
    }

    /// Exchanges the loaded and the previous magazine.
    pub(super) fn swap(&self) {
        let (loaded, len) = (self.loaded.load(Relaxed), self.len.load(Relaxed));
        self.loaded.store(self.previous.load(Relaxed), Relaxed);
        self.len.store(self.previous_len.load(Relaxed), Relaxed);
        self.previous.store(loaded, Relaxed);
        self.previous_len.store(len, Relaxed);
    }

    /// Takes up to `n` pointers out of the loaded magazine.
    ///
    /// # Safety
    /// The caller owns the slot; `out` has room for `n` pointers.
    pub(super) unsafe fn pop(&self, out: *mut Item, n: usize) -> usize {
        let len = self.len.load(Relaxed);
        let count = n.min(len);
        if count > 0 {
            // SAFETY: `loaded` holds `len >= count` pointers.
            let from = unsafe { self.loaded.load(Relaxed).add(len - count) };
            // SAFETY: only the owner uses the magazine, and it never overlaps `out`.
            unsafe { ptr::copy_nonoverlapping(from, out, count) };
            self.len.store(len - count, Relaxed);
        }
        count
    }

    /// Puts up to `n` pointers into the loaded magazine, which has room for `room`.
    ///
    /// # Safety
    /// The caller owns the slot; `items` are `n` free packets of this pool.
    pub(super) unsafe fn push(&self, items: *const Item, n: usize, room: usize) -> usize {
        let len = self.len.load(Relaxed);
        let count = n.min(room.saturating_sub(len));
        if count > 0 {
            // SAFETY: `len + count <= room`, the size of the magazine.
            let to = unsafe { self.loaded.load(Relaxed).add(len) };
            // SAFETY: only the owner uses the magazine, and it never overlaps `items`.
            unsafe { ptr::copy_nonoverlapping(items, to, count) };
            self.len.store(len + count, Relaxed);
        }
        count
    }
}

/// Copies `n` pointers in blocks that compile to vector moves without a call.
///
/// # Safety
/// `src` is readable and `dst` writable for `n` pointers, and they do not overlap.
// MEASURED: benches/mempool.rs, `cached/32`; a call of memcpy costs more than the copy for bursts of 32.
#[inline(always)]
pub(super) unsafe fn copy(src: *const Item, dst: *mut Item, n: usize) {
    const BLOCK: usize = 8;
    let blocks = n / BLOCK * BLOCK;
    let mut at = 0;
    while at < blocks {
        // SAFETY: `at + BLOCK <= n`, and `src` is readable for `n` pointers.
        let block = unsafe { src.wrapping_add(at).cast::<[Item; BLOCK]>().read() };
        // SAFETY: `at + BLOCK <= n`, and `dst` is writable for `n` pointers.
        unsafe { dst.wrapping_add(at).cast::<[Item; BLOCK]>().write(block) };
        at += BLOCK;
    }
    if blocks < n {
        // SAFETY: `blocks < n`: these are the last `n - blocks` of `n` pointers; the sides do not overlap.
        unsafe { ptr::copy_nonoverlapping(src.wrapping_add(blocks), dst.wrapping_add(blocks), n - blocks) }
    }
}
