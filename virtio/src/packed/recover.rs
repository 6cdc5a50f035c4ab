//! The position of a packed ring, read from the ring alone, for a device whose predecessor ended without
//! reporting it.
//!
//! A packed ring has no used index, but its flags contain the same information. The driver writes `AVAIL` as
//! the wrap counter of its lap into every descriptor, so its next descriptor is the one at which `AVAIL`
//! changes. From there on, once around the ring, the descriptors follow in the order in which the driver
//! wrote them:
//!
//! ```text
//!   the driver's place ─┐
//!   … available         │ used  used  used │ available  available …
//!                       └──────────────────┴─ the device's place
//! ```
//!
//! The specification lets a device write only the first descriptor of a chain as used.
//! [`Device`](super::Device) also sets the flags of the others to used, so that they are not mistaken for
//! available ones here.

use crate::layout::{DESC_BYTES, F_AVAIL, F_NEXT, F_USED, F_WRITE, Layout, RingMemory};
use crate::sync::{Acquire, Release, Shared};

/// Attempts to read a ring to which its driver is writing.
const LOOKS: usize = 8;
/// The offset of a descriptor's second word.
const META: usize = 8;

/// Determines the position of the device of a packed ring, in the form of
/// [`DeviceQueue::base`](crate::DeviceQueue::base). A burst that the device was about to return is returned
/// as far as it was written. The buffer whose used descriptor is missing counts as full if the device writes
/// into the buffers (`writable`).
///
/// Every device must have marked all slots of its chains one by one, as [`Device`](super::Device) does if
/// IN_ORDER was not negotiated or the device writes. Returns `None`, and leaves the ring unchanged, if its
/// flags cannot come from a driver and such a device.
///
/// The driver may continue meanwhile. A hostile driver can cause any position below `size`.
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
    // A device writes the first descriptor of a burst last.
    let mut unfinished = (0..at).filter(|at| !slots.is_used(*at));
    match (unfinished.next(), unfinished.next()) {
        (None, _) => {}
        (Some(first), None) => finish(memory, &slots, first, writable)?,
        (Some(_), Some(_)) => return None,
    }
    Some(slots.base(at))
}

/// Returns the buffer that the device had not returned yet.
fn finish(memory: &RingMemory, slots: &Slots, first: usize, writable: bool) -> Option<()> {
    let count = slots.chain(first)?;
    let last = slots.meta(first + count - 1);
    let len: u32 = (first..first + count).fold(0, |sum, at| sum.saturating_add(slots.meta(at) as u32));
    let (len, direction) = if writable { (len, F_WRITE) } else { (0, 0) };
    let phase = if flags(slots.meta(first)) & F_AVAIL != 0 { F_AVAIL | F_USED } else { 0 };
    let cell: Shared<u64> = memory.desc.cell(slots.slot(first) * DESC_BYTES + META)?;
    let id = (last >> 32) as u16;
    // T1, as in `Pending::publish`: makes the rest of the burst visible.
    cell.store(super::ring::meta(len, id, phase | direction), Release);
    Some(())
}

/// The second words of a ring, and the driver's position, from which they are counted: the oldest one first.
struct Slots {
    metas: Vec<u64>,
    driver: usize,
}

impl Slots {
    /// Returns `None` if the driver wrote so much meanwhile that the words are inconsistent.
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

    /// The number of slots of the chain that begins at `at`.
    fn chain(&self, at: usize) -> Option<usize> {
        let left = self.metas.len().checked_sub(at)?;
        (0..left).find(|n| flags(self.meta(at + n)) & F_NEXT == 0).map(|n| n + 1)
    }

    /// The position of the slot `at` descriptors after the driver's, for both indices.
    fn base(&self, at: usize) -> u32 {
        let lap = |at| u32::from(flags(self.meta(at)) & F_AVAIL != 0);
        // If all were used, the next one belongs to the driver's next lap.
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
