//! A table of translations that one thread changes while others look them up.
//!
//! The entries are in a fixed array of atomics, sorted and without overlaps. A sequence number is odd while
//! they change: a reader that sees a change tries again, and after a few attempts gives up for this burst.
//! Readers take no lock, the writer waits for no reader, and no entry is freed while it is read.

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, fence};

use linecard_virtio::Access;

use super::{Allowed, Entry};
use crate::memory::MemoryMap;

/// The maximum number of translations of a port, the same as in DPDK's backend.
pub(crate) const MOST: usize = 2048;
/// The number of attempts before a reader reports a translation as missing.
const LOOKS: u32 = 8;

/// One entry; see [`Entry`].
struct AtomicEntry {
    first: AtomicU64,
    last: AtomicU64,
    start: AtomicPtr<u8>,
    allowed: AtomicU64,
}

/// The translations of one port, as seen by its rings.
pub(crate) struct Table {
    /// The memory that the entries lead into; it stays mapped as long as the table exists.
    _map: Arc<MemoryMap>,
    sequence: AtomicU64,
    /// The number of times that entries were removed.
    losses: AtomicU64,
    len: AtomicUsize,
    slots: Box<[AtomicEntry]>,
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The location of this many contiguous bytes.
    Here(NonNull<u8>, u64),
    /// No translation allows the access.
    Missing,
}

impl Table {
    /// A table without translations into `map`.
    pub(super) fn new(map: &Arc<MemoryMap>) -> Self {
        let slot = || AtomicEntry {
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            start: AtomicPtr::new(null_mut()),
            allowed: AtomicU64::new(0),
        };
        Self {
            _map: Arc::clone(map),
            sequence: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            slots: (0..MOST).map(|_| slot()).collect(),
        }
    }

    /// A number that changes with each change of the entries.
    pub(crate) fn generation(&self) -> u64 {
        self.sequence.load(Acquire)
    }

    /// A number that changes whenever entries are removed that rings may have used.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Acquire)
    }

    /// Counts a removal of entries. A reader that sees the new number sees the removal.
    pub(super) fn lost(&self) {
        self.losses.store(self.losses.load(Relaxed).wrapping_add(1), Release);
    }

    /// Replaces the entries from index `from` on with those of `all`, which are sorted, without overlaps, at
    /// most [`MOST`], and checked against the map. Only one thread calls this.
    pub(super) fn write(&self, all: &[Entry], from: usize) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence | 1, Relaxed);
        // S1, pairs with S2: a reader of a new entry sees the odd number, or the next even one, when it
        // compares.
        fence(Release);
        for (slot, entry) in self.slots.iter().zip(all).skip(from) {
            slot.first.store(entry.first, Relaxed);
            slot.last.store(entry.last, Relaxed);
            slot.start.store(entry.start.as_ptr(), Relaxed);
            slot.allowed.store(u64::from(entry.allowed.bits()), Relaxed);
        }
        self.len.store(all.len().min(MOST), Relaxed);
        self.sequence.store((sequence | 1).wrapping_add(1), Release);
    }

    /// Looks up the location of up to `len` bytes at `addr`, as far as they are contiguous in this process.
    pub(crate) fn find(&self, addr: u64, len: u64, access: Access) -> Found {
        for _ in 0..LOOKS {
            let before = self.sequence.load(Acquire);
            if before.is_multiple_of(2) {
                let found = self.look(addr, len, access);
                // S2, pairs with S1.
                fence(Acquire);
                if self.sequence.load(Relaxed) == before {
                    return found;
                }
            }
            std::hint::spin_loop();
        }
        Found::Missing
    }

    /// One lookup. The result is meaningless if the table changes meanwhile.
    fn look(&self, addr: u64, len: u64, access: Access) -> Found {
        let slots = self.slots.get(..self.len.load(Relaxed).min(MOST)).unwrap_or_default();
        let at = slots.partition_point(|slot| slot.last.load(Relaxed) < addr);
        let Some(slot) = slots.get(at) else { return Found::Missing };
        let first = slot.first.load(Relaxed);
        let allows =
            |slot: &AtomicEntry| Allowed::of_word(slot.allowed.load(Relaxed)).contains(Allowed::to(access));
        if first > addr || !allows(slot) {
            return Found::Missing;
        }
        let start = slot.start.load(Relaxed).wrapping_add((addr - first) as usize);
        let Some(place) = NonNull::new(start) else { return Found::Missing };
        // This overflows only for an entry that ends with the address space and is longer than any `len`.
        let mut end = slot.last.load(Relaxed);
        let mut next =
            slot.start.load(Relaxed).wrapping_add(end.wrapping_sub(first) as usize).wrapping_add(1);
        for slot in slots.get(at + 1..).unwrap_or_default() {
            let first = slot.first.load(Relaxed);
            let begins = end.checked_add(1) == Some(first) && slot.start.load(Relaxed) == next;
            if end.wrapping_sub(addr) >= len || !begins || !allows(slot) {
                break;
            }
            end = slot.last.load(Relaxed);
            next = next.wrapping_add(end.wrapping_sub(first) as usize).wrapping_add(1);
        }
        Found::Here(place, end.wrapping_sub(addr).saturating_add(1).min(len))
    }
}
