//! Where a packed ring stands, read from the ring alone: for a device that is not told, because the one before it ended
//! without a word.
//!
//! A packed ring has no used index, but its flags say as much. The driver writes `AVAIL` as the wrap counter of its lap into
//! every descriptor, so the place where `AVAIL` changes is where it writes next, and from there on, once around the ring, the
//! descriptors follow in the order in which it wrote them:
//!
//! ```text
//!   the driver's place ─┐
//!   … available         │ used  used  used │ available  available …
//!                       └──────────────────┴─ the device's place
//! ```
//!
//! The specification has a device write only the first descriptor of a chain as used; [`Device`](super::Device) gives the
//! others the flags of used ones too, so that they are not taken for available ones here.

use crate::layout::{DESC_BYTES, F_AVAIL, F_NEXT, F_USED, F_WRITE, Layout, RingMemory};
use crate::sync::{Acquire, Release, Shared};

/// Looks at a ring that its driver is just writing to.
const LOOKS: usize = 8;
/// Offset of a descriptor's second word.
const META: usize = 8;

/// Finds out where the device of a packed ring stood, in the form of [`DeviceQueue::base`](crate::DeviceQueue::base). A
/// burst that it was about to give back is given back as far as it was written; the buffer whose used descriptor was not
/// written yet counts as full if the device writes into the buffers (`writable`).
///
/// Every device must have used all slots of its chains one by one, as ours does where IN_ORDER was not negotiated or the
/// device writes. `None`, and the ring unchanged, where the flags are such that no driver and no such device write them.
///
/// The driver may go on meanwhile. A hostile one gets any position below `size`.
///
/// ```
/// # use core::ptr::NonNull;
/// # use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{Layout, RingMemory, packed};
///
/// let mut zone = vec![0u128; Layout::Packed.bytes(6) / 16];
/// # let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` outlives the ring and nothing else touches it.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Packed, 6)?;
/// assert_eq!(packed::recover(&ring, 6, true), Some(0x8000_8000)); // slot 0 with wrap counter 1, for both places
/// # Ok::<(), linecard_virtio::Error>(())
/// ```
#[must_use]
pub fn recover(memory: &RingMemory, size: u16, writable: bool) -> Option<u32> {
    memory.check(Layout::Packed, size).ok().filter(|()| size > 0)?;
    let slots = (0..LOOKS).find_map(|_| Slots::read(memory, size))?;
    let at = slots.last_used().map_or(0, |last| last + 1);
    // What a device writes last of a burst is the first descriptor.
    let mut unfinished = (0..at).filter(|at| !slots.is_used(*at));
    match (unfinished.next(), unfinished.next()) {
        (None, _) => {}
        (Some(first), None) => finish(memory, &slots, first, writable)?,
        (Some(_), Some(_)) => return None,
    }
    Some(slots.base(at))
}

/// Gives back the buffer that the device had not got to.
fn finish(memory: &RingMemory, slots: &Slots, first: usize, writable: bool) -> Option<()> {
    let count = slots.chain(first)?;
    let last = slots.meta(first + count - 1);
    let len: u32 = (first..first + count).fold(0, |sum, at| sum.saturating_add(slots.meta(at) as u32));
    let (len, direction) = if writable { (len, F_WRITE) } else { (0, 0) };
    let phase = if flags(slots.meta(first)) & F_AVAIL != 0 { F_AVAIL | F_USED } else { 0 };
    let cell: Shared<u64> = memory.desc.cell(slots.slot(first) * DESC_BYTES + META)?;
    let id = (last >> 32) as u16;
    // T1, as in `Pending::publish`: the rest of the burst is visible.
    cell.store(super::ring::meta(len, id, phase | direction), Release);
    Some(())
}

/// All second words of a ring, and where its driver writes next. Counted from there: the longest written first.
struct Slots {
    metas: Vec<u64>,
    driver: usize,
}

impl Slots {
    /// `None` when the driver wrote so much meanwhile that they do not fit together.
    fn read(memory: &RingMemory, size: u16) -> Option<Self> {
        let word = |slot| memory.desc.cell::<u64>(slot * DESC_BYTES + META);
        let metas: Option<Vec<u64>> =
            (0..usize::from(size)).map(|slot| word(slot).map(|cell| cell.load(Acquire))).collect();
        let metas = metas?;
        let lap = |meta: &u64| flags(*meta) & F_AVAIL;
        let first = metas.first().map(lap)?;
        let driver = metas.iter().position(|meta| lap(meta) != first).unwrap_or(metas.len());
        let fits = metas.iter().skip(driver).all(|meta| lap(meta) != first);
        fits.then(|| Self { driver: driver % metas.len(), metas })
    }

    fn slot(&self, at: usize) -> usize {
        (self.driver + at) % self.metas.len()
    }

    fn meta(&self, at: usize) -> u64 {
        self.metas.get(self.slot(at)).copied().unwrap_or(0)
    }

    fn is_used(&self, at: usize) -> bool {
        let flags = flags(self.meta(at));
        (flags & F_AVAIL != 0) == (flags & F_USED != 0)
    }

    fn last_used(&self) -> Option<usize> {
        (0..self.metas.len()).rev().find(|at| self.is_used(*at))
    }

    /// Slots of the chain that begins there.
    fn chain(&self, at: usize) -> Option<usize> {
        let left = self.metas.len().checked_sub(at)?;
        (0..left).find(|n| flags(self.meta(at + n)) & F_NEXT == 0).map(|n| n + 1)
    }

    /// The position `at` descriptors behind the driver's place, for both indices.
    fn base(&self, at: usize) -> u32 {
        let lap = |at| u32::from(flags(self.meta(at)) & F_AVAIL != 0);
        // All were used: the next one is of the driver's next lap over its own place.
        let wrap = if at < self.metas.len() { lap(at) } else { lap(0) ^ 1 };
        let half = self.slot(at) as u32 | wrap << 15;
        half | half << 16
    }
}

fn flags(meta: u64) -> u16 {
    (meta >> 48) as u16
}

#[cfg(test)]
mod tests;
