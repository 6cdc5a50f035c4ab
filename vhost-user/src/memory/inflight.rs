//! The inflight region, in which a backend records for its successor which descriptors it has taken and not
//! returned (vhost-user, "Inflight I/O tracking").
//!
//! ```text
//!   queue 0 │ queue 1 │ …          each: a head, and an entry for each descriptor
//!
//!   split   0 features u64 · 8 version u16 · 10 desc_num u16 · 12 last_batch_head u16 · 14 used_idx u16
//!           16 entries { inflight u8, padding [u8; 5], next u16, counter u64 }
//!   packed  0 features u64 · 8 version u16 · 10 desc_num u16 · 12 free_head u16 · 14 old_free_head u16
//!           16 used_idx u16 · 18 old_used_idx u16 · 20 used_wrap_counter u8 · 21 old_used_wrap_counter u8
//!           32 entries { inflight u8, padding u8, next u16, last u16, num u16, counter u64, id u16, flags u16, len u32, addr u64 }
//! ```
//!
//! A network backend copies packets: it owns a descriptor only within a burst, and takes and returns
//! descriptors in ring order. The descriptors in flight are therefore those in the ring after the position
//! that this backend records once per burst, and its own entries never say `inflight`. Entries that another
//! kind of backend left are honoured.
//!
//! The frontend may write to the region at any time. Each field is read once and checked, and the size of the
//! ring bounds the loops.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use linecard_eal::shared::{SharedBytes, Word};
use linecard_virtio::{Layout, RingMemory, Used, layout};
use linecard_wire::payload::PackedBase;

use super::Region;

/// The alignment of each queue's part.
const ALIGN: usize = 64;
const VERSION: u16 = 1;

const VERSION_AT: usize = 8;
const DESC_NUM_AT: usize = 10;
/// The offset of the counter in an entry of either layout.
const COUNTER: usize = 8;

mod split {
    pub(super) const LAST_BATCH_HEAD: usize = 12;
    pub(super) const USED_IDX: usize = 14;
    pub(super) const NEXT: usize = 6;
}

mod packed {
    pub(super) const FREE_HEAD: usize = 12;
    pub(super) const OLD_FREE_HEAD: usize = 14;
    pub(super) const USED_IDX: usize = 16;
    pub(super) const OLD_USED_IDX: usize = 18;
    pub(super) const USED_WRAP: usize = 20;
    pub(super) const OLD_USED_WRAP: usize = 21;
    pub(super) const NEXT: usize = 2;
    pub(super) const LAST: usize = 4;
    pub(super) const NUM: usize = 6;
    pub(super) const ID: usize = 16;
}

/// The sizes in bytes of a queue's head and of each of its entries.
const fn shape(layout: Layout) -> (usize, usize) {
    match layout {
        Layout::Split => (16, 16),
        Layout::Packed => (32, 32),
    }
}

/// The size in bytes of one queue's part.
fn stride(layout: Layout, queue_size: u16) -> usize {
    let (head, entry) = shape(layout);
    (head + entry * usize::from(queue_size)).next_multiple_of(ALIGN)
}

/// The size in bytes of a region for `queues` rings of `queue_size` descriptors each.
pub(crate) fn region_len(layout: Layout, queues: u16, queue_size: u16) -> u64 {
    (stride(layout, queue_size) * usize::from(queues)) as u64
}

/// A region that the frontend passes from one backend to the next.
pub(crate) struct Inflight {
    pub(crate) region: Region,
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
}

/// One ring's part of an inflight region.
pub(crate) struct RingInflight {
    /// Keeps the region mapped.
    _region: Arc<Inflight>,
    bytes: SharedBytes,
    layout: Layout,
    size: u16,
}

// SAFETY: the bytes are in the region, which `_region` keeps mapped and which any thread may use.
unsafe impl Send for RingInflight {}

/// A predecessor's position, from its records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The position after the buffers that it had returned.
    pub(crate) base: u32,
    /// The buffers that it had taken and not returned, in the order in which it took them.
    pub(crate) taken: Vec<Used>,
}

impl RingInflight {
    /// The part of ring `index`; `None` if the region has none, or none for `size` descriptors.
    pub(crate) fn of(region: &Arc<Inflight>, index: usize, layout: Layout, size: u16) -> Option<Self> {
        if index >= usize::from(region.queues) || size > region.queue_size {
            return None;
        }
        let stride = stride(layout, region.queue_size);
        let start = region.region.at((index * stride) as u64, stride as u64)?;
        // SAFETY: `at` checked the range, which stays mapped as long as `_region`; all access goes through
        // shared cells.
        let bytes = unsafe { SharedBytes::new(start, stride) };
        Some(Self { _region: Arc::clone(region), bytes, layout, size })
    }

    fn get<T: Word + Default>(&self, at: usize) -> T {
        self.bytes.cell::<T>(at).map(|cell| cell.load(Acquire)).unwrap_or_default()
    }

    fn set<T: Word>(&self, at: usize, value: T) {
        if let Some(cell) = self.bytes.cell::<T>(at) {
            cell.store(value, Relaxed);
        }
    }

    /// The offset of `field` in entry `n`.
    fn entry(&self, n: u16, field: usize) -> usize {
        let (head, entry) = shape(self.layout);
        head + entry * usize::from(n) + field
    }

    /// Records that a burst is about to be returned, up to `base`.
    pub(crate) fn publishing(&self, base: u32) {
        if self.layout == Layout::Packed {
            let to = PackedBase::from_u32(base);
            self.set(packed::USED_IDX, to.avail);
            self.set(packed::USED_WRAP, u8::from(to.avail_wrap));
        }
    }

    /// Records that the burst has been returned.
    pub(crate) fn published(&self, base: u32) {
        match self.layout {
            Layout::Split => self.set(split::USED_IDX, base as u16),
            Layout::Packed => {
                let to = PackedBase::from_u32(base);
                self.set(packed::OLD_USED_IDX, to.avail);
                self.set(packed::OLD_USED_WRAP, u8::from(to.avail_wrap));
            }
        }
    }

    /// Initializes the record, with nothing in flight at `base`.
    pub(crate) fn begin(&self, base: u32) {
        // A reader finds an unused region until everything is written.
        self.set(VERSION_AT, 0_u16);
        (0..self.size).for_each(|n| self.set(self.entry(n, 0), 0_u8));
        self.set(0, 0_u64);
        self.set(DESC_NUM_AT, self.size);
        if self.layout == Layout::Packed {
            (0..self.size).for_each(|n| self.set(self.entry(n, packed::NEXT), n + 1));
            self.set(packed::FREE_HEAD, 0_u16);
            self.set(packed::OLD_FREE_HEAD, 0_u16);
        } else {
            self.set(split::LAST_BATCH_HEAD, 0_u16);
        }
        self.publishing(base);
        self.published(base);
        if let Some(version) = self.bytes.cell::<u16>(VERSION_AT) {
            version.store(VERSION, Release);
        }
    }

    /// The position of the predecessor that used the ring in `memory`; `None` if it left no record of this
    /// ring.
    pub(crate) fn position(&self, memory: &RingMemory) -> Option<Position> {
        if self.get::<u16>(VERSION_AT) != VERSION || self.get::<u16>(DESC_NUM_AT) != self.size {
            return None;
        }
        match self.layout {
            Layout::Split => self.split_position(memory),
            Layout::Packed => self.packed_position(memory),
        }
    }

    fn split_position(&self, memory: &RingMemory) -> Option<Position> {
        const IDX: usize = 2;
        let used: u16 = memory.device.cell(IDX)?.load(Acquire);
        // Buffers that were returned but not recorded as such are in the list of the last batch.
        let batch = used.wrapping_sub(self.get(split::USED_IDX));
        let inflight = self.in_flight_without(self.get(split::LAST_BATCH_HEAD), batch, split::NEXT);
        let offered = |k: usize| {
            memory.driver.cell::<u16>(4 + 2 * (usize::from(used).wrapping_add(k) % usize::from(self.size)))
        };
        let in_order = inflight
            .iter()
            .enumerate()
            .all(|(k, id)| offered(k).is_some_and(|cell| cell.load(Acquire) == *id));
        let taken = if in_order { Vec::new() } else { inflight };
        let taken = taken.into_iter().map(|id| Used { id, descs: 1, len: 0 }).collect();
        Some(Position { base: u32::from(used), taken })
    }

    fn packed_position(&self, memory: &RingMemory) -> Option<Position> {
        let mut at = (self.get::<u16>(packed::OLD_USED_IDX), self.get::<u8>(packed::OLD_USED_WRAP) != 0);
        let to = (self.get::<u16>(packed::USED_IDX), self.get::<u8>(packed::USED_WRAP) != 0);
        let mut free = self.get::<u16>(packed::OLD_FREE_HEAD);
        if at.0 >= self.size || to.0 >= self.size {
            return None;
        }
        // If the end of a burst was not recorded, the ring shows whether the burst was returned.
        if at != to && is_used(memory, at)? {
            (at, free) = (to, self.get(packed::FREE_HEAD));
        }
        let inflight = self.in_flight_without(free, self.size, packed::NEXT);
        let mut taken: Vec<_> = inflight.into_iter().map(|n| self.packed_chain(n)).collect();
        let slots: u32 = taken.iter().map(|used| u32::from(used.descs)).sum();
        if slots > u32::from(self.size) {
            return None;
        }
        if self.are_offered(memory, at, &taken) {
            taken.clear();
        }
        let base = PackedBase { avail: at.0, avail_wrap: at.1, used: at.0, used_wrap: at.1 };
        Some(Position { base: base.to_u32(), taken })
    }

    /// The chain whose head is entry `n`.
    fn packed_chain(&self, n: u16) -> Used {
        let last: u16 = self.get(self.entry(n, packed::LAST));
        let id = self.get(self.entry(last.min(self.size - 1), packed::ID));
        let descs = self.get::<u16>(self.entry(n, packed::NUM)).clamp(1, self.size);
        Used { id, descs, len: 0 }
    }

    /// Whether the packed ring still offers the chains `taken` from `at` on. They are then simply taken
    /// again.
    fn are_offered(&self, memory: &RingMemory, at: (u16, bool), taken: &[Used]) -> bool {
        const ID: usize = 12;
        let mut at = (u32::from(at.0), at.1);
        taken.iter().all(|used| {
            let last = at.0 + u32::from(used.descs) - 1;
            let slot = last as usize % usize::from(self.size) * layout::DESC_BYTES;
            let id = memory.desc.cell::<u16>(slot + ID).map(|cell| cell.load(Acquire));
            let offered = is_available(memory, (at.0 as u16, at.1)).unwrap_or(false) && id == Some(used.id);
            at.0 += u32::from(used.descs);
            if at.0 >= u32::from(self.size) {
                at = (at.0 - u32::from(self.size), !at.1);
            }
            offered
        })
    }

    /// The entries in flight, oldest first, without the first `count` of the list that begins at `head`.
    fn in_flight_without(&self, head: u16, count: u16, next: usize) -> Vec<u16> {
        let mut inflight: Vec<bool> = (0..self.size).map(|n| self.get::<u8>(self.entry(n, 0)) == 1).collect();
        let mut head = head;
        for _ in 0..count.min(self.size) {
            let Some(entry) = inflight.get_mut(usize::from(head)) else { break };
            *entry = false;
            head = self.get(self.entry(head, next));
        }
        let mut entries: Vec<u16> =
            (0..self.size).zip(inflight).filter_map(|(n, on)| on.then_some(n)).collect();
        // The counter has the same offset in both kinds of entries.
        entries.sort_by_cached_key(|n| self.get::<u64>(self.entry(*n, COUNTER)));
        entries
    }
}

/// The flags `AVAIL` and `USED` of the packed descriptor at index `slot`.
fn phase_flags(memory: &RingMemory, slot: u16) -> Option<(bool, bool)> {
    const FLAGS: usize = 14;
    let at = usize::from(slot) * layout::DESC_BYTES + FLAGS;
    let flags = memory.desc.cell::<u16>(at)?.load(Acquire);
    Some((flags & layout::F_AVAIL != 0, flags & layout::F_USED != 0))
}

/// Whether the packed descriptor at this index was used in this lap.
fn is_used(memory: &RingMemory, (slot, wrap): (u16, bool)) -> Option<bool> {
    phase_flags(memory, slot).map(|flags| flags == (wrap, wrap))
}

/// Whether the packed descriptor at this index is available in this lap.
pub(crate) fn is_available(memory: &RingMemory, (slot, wrap): (u16, bool)) -> Option<bool> {
    phase_flags(memory, slot).map(|flags| flags == (wrap, !wrap))
}

#[cfg(test)]
mod tests;
