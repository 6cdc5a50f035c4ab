//! The cells of a packed ring, range-checked once; positions, phase flags and pending stores.

use crate::error::Error;
use crate::event::PublishedCount;
use crate::layout::{EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, F_AVAIL, F_USED, Layout, RingMemory};
use crate::suppression::{Unasked, packed_wants};
use crate::sync::{Relaxed, Release, Shared, SharedSlice};

/// The two flags that show which side a descriptor belongs to. They change from lap to lap.
const PHASE: u16 = F_AVAIL | F_USED;

/// Handles to every word of the ring.
#[derive(Clone, Copy)]
pub(super) struct Ring {
    desc: SharedSlice<u64>,
    size: u16,
    pub(super) driver_event: Shared<u32>,
    pub(super) device_event: Shared<u32>,
}

impl Ring {
    pub(super) fn new(memory: &RingMemory, size: u16) -> Result<Self, Error> {
        let size = Layout::Packed.check_size(u32::from(size))?;
        memory.check(Layout::Packed, size)?;
        let cells = || {
            Some(Self {
                desc: memory.desc.cells(0, 2 * usize::from(size))?,
                size,
                driver_event: memory.driver.cell(0)?,
                device_event: memory.device.cell(0)?,
            })
        };
        cells().ok_or(Error::Size { layout: Layout::Packed, asked: u32::from(size) })
    }

    #[inline(always)]
    pub(super) const fn size(&self) -> u16 {
        self.size
    }

    /// The two words at `place`: address; length, id and flags.
    #[inline(always)]
    pub(super) fn desc(&self, place: RingPosition) -> [Shared<u64>; 2] {
        // SAFETY: a `RingPosition` is only made by `start`, `next` and `forward` with the size of the ring it
        // is used on, which keep `slot < size`.
        unsafe { self.desc_unchecked(usize::from(place.slot)) }
    }

    /// The two words of the descriptor in `slot`.
    ///
    /// # Safety
    /// `slot` is below the ring size.
    // MEASURED: cargo xtask budget; with all ring accesses checked, 9 to 17 more instructions per packet and
    // direction.
    #[inline(always)]
    pub(super) unsafe fn desc_unchecked(&self, slot: usize) -> [Shared<u64>; 2] {
        debug_assert!(slot < usize::from(self.size));
        // SAFETY: `slot < size` by this function's condition and `new` made `desc` with 2 × size words.
        let addr = unsafe { self.desc.at_unchecked(slot * 2) };
        // SAFETY: `slot < size`, so `2 × slot + 1` is the last of at most 2 × size words.
        [addr, unsafe { self.desc.at_unchecked(slot * 2 + 1) }]
    }
}

/// A position in the ring, and its lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingPosition {
    /// Below the ring size.
    slot: u16,
    /// `AVAIL` in laps with wrap counter 1, `USED` in the others: the phase flags of an available descriptor.
    phase: u16,
}

impl RingPosition {
    /// Reads a position from 16 bits of `SET_VRING_BASE`: the slot, and the wrap counter in bit 15.
    pub(super) const fn start(base: u16, size: u16) -> Option<Self> {
        let slot = base & 0x7fff;
        if slot >= size {
            return None;
        }
        Some(Self { slot, phase: if base & 0x8000 != 0 { F_AVAIL } else { F_USED } })
    }

    /// The inverse of [`RingPosition::start`]; also the format of an event.
    pub(super) const fn base(self) -> u16 {
        self.slot | (self.wrap() as u16) << 15
    }

    #[inline(always)]
    pub(super) const fn slot(self) -> u16 {
        self.slot
    }

    /// The wrap counter.
    #[inline(always)]
    const fn wrap(self) -> bool {
        self.phase == F_AVAIL
    }

    /// The phase flags of a descriptor that becomes available here.
    #[inline(always)]
    pub(super) const fn available(self) -> u16 {
        self.phase
    }

    /// The phase flags of a descriptor that becomes used here.
    #[inline(always)]
    pub(super) const fn used(self) -> u16 {
        if self.wrap() { PHASE } else { 0 }
    }

    /// The next slot.
    #[inline(always)]
    #[must_use]
    pub(super) const fn next(self, size: u16) -> Self {
        let slot = self.slot + 1;
        if slot == size {
            Self { slot: 0, phase: self.phase ^ PHASE }
        } else {
            Self { slot, phase: self.phase }
        }
    }

    /// The position `n` slots later, for any `n`.
    #[inline]
    #[must_use]
    pub(super) const fn forward(self, n: u16, size: u16) -> Self {
        let (to, size) = (self.slot as u32 + n as u32, size as u32);
        let (laps, slot) = if to < size { (0, to) } else { (to / size, to % size) };
        Self { slot: slot as u16, phase: if laps % 2 == 0 { self.phase } else { self.phase ^ PHASE } }
    }

    /// Slots from here to the end of the lap, at least 1.
    #[inline(always)]
    pub(super) const fn run(self, size: u16) -> usize {
        (size - self.slot) as usize
    }

    /// The forward distance in slots from here to `slot`.
    #[inline(always)]
    pub(super) const fn distance(self, slot: u16, size: u16) -> u16 {
        if slot >= self.slot { slot - self.slot } else { slot + (size - self.slot) }
    }
}

/// The phase flags in the second word of a descriptor.
#[inline(always)]
pub(super) const fn phase_of(meta: u64) -> u16 {
    (meta >> 48) as u16 & PHASE
}

/// The same second word with other phase flags.
#[inline(always)]
pub(super) const fn with_phase(meta: u64, phase: u16) -> u64 {
    meta & !((PHASE as u64) << 48) | (phase as u64) << 48
}

/// The second word of a descriptor.
#[inline(always)]
pub(super) const fn meta(len: u32, id: u16, flags: u16) -> u64 {
    len as u64 | (id as u64) << 32 | (flags as u64) << 48
}

/// The value for a side's own event area: never, always, or (EVENT_IDX) at `place`.
pub(super) const fn suppression(on: bool, event_idx: bool, place: RingPosition) -> u32 {
    let flags = match (on, event_idx) {
        (false, _) => EVENT_DISABLE,
        (true, false) => EVENT_ENABLE,
        (true, true) => EVENT_DESC,
    };
    place.base() as u32 | (flags as u32) << 16
}

/// Descriptors written since the last publish, and those published since the last decision to notify.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    /// The first descriptor of the burst, held back until the rest is written.
    place: RingPosition,
    meta: u64,
    /// Slots since the last publish; 0 if no descriptor is held back.
    slots: u16,
    /// The slots published since the last decision, and the position after them.
    notify: PublishedCount,
    end: RingPosition,
}

impl Pending {
    pub(super) const fn new(place: RingPosition) -> Self {
        Self { place, meta: 0, slots: 0, notify: PublishedCount::new(), end: place }
    }

    /// Writes the second word of the descriptor at `place`, which stands for `slots` slots. The first one is
    /// held back.
    #[inline(always)]
    pub(super) fn write(&mut self, ring: &Ring, place: RingPosition, meta: u64, slots: u16) {
        if self.slots == 0 {
            (self.place, self.meta) = (place, meta);
        } else {
            let [_, cell] = ring.desc(place);
            cell.store(meta, Relaxed);
        }
        self.slots = self.slots.wrapping_add(slots);
    }

    /// Counts `slots` descriptors that were written without [`Pending::write`], after one that is held back.
    #[inline(always)]
    pub(super) fn count_written(&mut self, slots: u16) {
        debug_assert!(self.slots > 0);
        self.slots = self.slots.wrapping_add(slots);
    }

    /// Writes the descriptor that was held back, which makes everything up to `end` visible.
    #[inline(always)]
    pub(super) fn publish(&mut self, ring: &Ring, end: RingPosition) {
        if self.slots == 0 {
            return;
        }
        let [_, cell] = ring.desc(self.place);
        // T1, pairs with the other side's acquire load of this word: everything written before it is visible.
        cell.store(self.meta, Release);
        self.notify.published(self.slots);
        (self.slots, self.end) = (0, end);
    }

    /// Whether the other side's event area requests a notification of the slots published since the last
    /// decision.
    #[inline]
    pub(super) fn needs_notification(&self, event: Shared<u32>, event_idx: bool, size: u16) -> bool {
        packed_wants(self.notify, (self.end.slot, self.end.wrap()), event_idx, event, size)
    }

    /// The slots published since the last decision, so that another thread can decide. Without events, the
    /// end position is not needed.
    #[inline(always)]
    pub(super) const fn unasked(&self, event_idx: bool) -> Unasked {
        Unasked::new(self.notify, if event_idx { self.end.base() } else { 0 })
    }

    /// Acts as if `slots` slots had been published since the last decision.
    #[cfg(all(test, loom))]
    pub(super) fn published_unasked(&mut self, slots: u16) {
        self.notify.published(slots);
    }

    /// Records that the decision was made.
    #[inline(always)]
    pub(super) fn mark_decided(&mut self) {
        self.notify.asked();
    }
}

#[cfg(test)]
mod tests {
    use super::{PHASE, RingPosition};

    #[test]
    fn places_wrap_and_flip() {
        for size in [1u16, 2, 3, 7, if cfg!(miri) { 100 } else { 32_768 }] {
            let Some(start) = RingPosition::start(0x8000, size) else { panic!("slot 0 of {size}") };
            let mut place = start;
            for n in 0..(3 * u32::from(size)).min(65_536) {
                assert_eq!(u32::from(place.slot()), n % u32::from(size));
                assert_eq!(place.wrap(), (n / u32::from(size)).is_multiple_of(2));
                assert_eq!(place.available().count_ones(), 1);
                assert_eq!(place.used(), if place.wrap() { PHASE } else { 0 });
                assert_eq!(RingPosition::start(place.base(), size), Some(place));
                assert_eq!(start.forward(n as u16, size), place);
                place = place.next(size);
            }
        }
        assert_eq!(RingPosition::start(5, 5), None);
    }

    #[test]
    fn distances_go_forward() {
        let Some(place) = RingPosition::start(3, 5) else { panic!("slot 3 of 5") };
        assert_eq!([3, 4, 0, 1, 2].map(|slot| place.distance(slot, 5)), [0, 1, 2, 3, 4]);
    }
}
