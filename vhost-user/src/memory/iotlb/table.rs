//! Translations that one thread changes while others look them up.
//!
//! The entries lie in a fixed array of atomics, sorted and apart from each other, under a sequence number that is odd while they
//! change: a reader that meets a change, or was overtaken by one, looks again, and gives up for this burst after a few times. So
//! readers lock nothing, the writer waits for nobody, and nothing is ever freed under a reader.

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, fence};

use linecard_virtio::Access;

use super::{Allowed, Entry};
use crate::memory::MemoryMap;

/// Most translations that a port keeps: as many as DPDK's backend.
pub(crate) const MOST: usize = 2048;
/// How often a reader looks again before it takes what it looks for as missing.
const LOOKS: u32 = 8;

/// One entry; see [`Entry`].
struct AtomicEntry {
    first: AtomicU64,
    last: AtomicU64,
    start: AtomicPtr<u8>,
    allowed: AtomicU64,
}

/// The translations of one port, as its rings look them up.
pub(crate) struct Table {
    /// What the entries lead into; it stays mapped as long as they can be read.
    _map: Arc<MemoryMap>,
    sequence: AtomicU64,
    /// How often entries went away.
    losses: AtomicU64,
    len: AtomicUsize,
    slots: Box<[AtomicEntry]>,
}

/// What a look at the table finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many contiguous bytes, at least one.
    Here(NonNull<u8>, u64),
    /// No translation that allows the access.
    Missing,
}

impl Table {
    /// No translations into `map` yet.
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

    /// Changes with each change of the entries.
    pub(crate) fn generation(&self) -> u64 {
        self.sequence.load(Acquire)
    }

    /// Changes whenever entries went away that rings may have counted on.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Acquire)
    }

    /// Entries were taken away. What is missing now is missing to whoever sees this.
    pub(super) fn lost(&self) {
        self.losses.store(self.losses.load(Relaxed).wrapping_add(1), Release);
    }

    /// Makes the entries from number `from` on those of `all`, which are sorted, apart from each other, at most [`MOST`], and
    /// checked against the map. One thread calls this.
    pub(super) fn write(&self, all: &[Entry], from: usize) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence | 1, Relaxed);
        // S1, pairs with S2: who reads a new entry sees the odd number, or the next even one, when it looks again.
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

    /// Where up to `len` bytes at `addr` are, as far as they are contiguous here.
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

    /// A look that counts if nothing has changed meanwhile; what it comes to otherwise means nothing.
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
        // Cannot overflow but for an entry that ends with the address space, and is longer than any `len`.
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
