//! A bucket: three stations in one cache line, read without a lock while the writer may change them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The number of keys in a bucket.
pub(super) const SLOTS: usize = 3;
/// How often a bucket that keeps changing is read before the address counts as unknown.
const PATIENCE: usize = 64;

#[repr(align(64))]
#[derive(Default)]
pub(super) struct Bucket {
    /// Odd while the bucket changes.
    sequence: AtomicU32,
    /// The number of keys that were stored beyond this bucket.
    pub(super) passed: AtomicU32,
    /// 0 for a free slot.
    pub(super) keys: [AtomicU64; SLOTS],
    pub(super) places: [AtomicU64; SLOTS],
}

/// The outcome of searching a bucket.
pub(super) enum Look<'a> {
    Here(u64, &'a AtomicU64),
    /// Not in this bucket, but maybe in a later one.
    Further,
    Nowhere,
}

impl Bucket {
    /// Runs `see` on a consistent state of the bucket; returns `None` if the bucket keeps changing.
    #[inline(always)]
    pub(super) fn read<T>(&self, see: impl Fn() -> T) -> Option<T> {
        for _ in 0..PATIENCE {
            // F1, pairs with F3: what is read below is at least as new as this number.
            let before = self.sequence.load(Ordering::Acquire);
            let seen = see();
            // F2, pairs with F4: had `see` read anything newer, this number would be newer too. Without it, a station might be reported
            // behind the port of the station that took its slot.
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return Some(seen);
            }
            std::hint::spin_loop();
        }
        None
    }

    #[inline(always)]
    pub(super) fn look(&self, key: u64) -> Look<'_> {
        let seen = self.read(|| {
            let mut found = None;
            for (slot, place) in self.keys.iter().zip(&self.places) {
                if slot.load(Ordering::Relaxed) == key {
                    found = Some((place.load(Ordering::Relaxed), place));
                    break;
                }
            }
            (found, self.passed.load(Ordering::Relaxed))
        });
        match seen {
            Some((Some((bits, place)), _)) => Look::Here(bits, place),
            Some((None, passed)) if passed > 0 => Look::Further,
            _ => Look::Nowhere,
        }
    }

    /// The stations of this bucket and their locations; empty slots are zeros. Consistent inside [`read`](Self::read) or under the lock.
    pub(super) fn entries(&self) -> [(u64, u64); SLOTS] {
        let mut entries = [(0, 0); SLOTS];
        for (entry, (key, place)) in entries.iter_mut().zip(self.keys.iter().zip(&self.places)) {
            *entry = (key.load(Ordering::Relaxed), place.load(Ordering::Relaxed));
        }
        entries
    }

    /// Changes the bucket; the caller holds the lock.
    pub(super) fn change(&self, act: impl FnOnce(&Self)) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        // F4, pairs with F2: the odd number is visible before any of the change.
        fence(Ordering::Release);
        act(self);
        // F3, pairs with F1: all of the change is visible with the new number.
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }
}
