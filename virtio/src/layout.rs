//! The locations of a ring's three areas, and their formats.
//!
//! ```text
//! split   descriptor table   16 × size   { addr u64 | len u32, flags u16, next u16 }
//!         available ring     6 + 2×size  { flags u16, idx u16, ring [u16; size], used_event u16 }
//!         used ring          6 + 8×size  { flags u16, idx u16, ring [{ id u32, len u32 }; size], avail_event u16 }
//! packed  descriptor ring    16 × size   { addr u64 | len u32, id u16, flags u16 }
//!         driver area        4           { off_wrap u16, flags u16 }
//!         device area        4           { off_wrap u16, flags u16 }
//! ```
//! (virtio 1.3, Split Virtqueues and Packed Virtqueues.) All fields are little endian, as is this machine.

use crate::sync::SharedBytes;

use crate::error::Error;

#[cfg(target_endian = "big")]
compile_error!("ring words are read in place; virtio 1 rings are little endian");

/// The maximum number of descriptors of a ring.
pub const MAX_SIZE: u16 = 32_768;

/// The size of a descriptor in bytes, in both layouts and in indirect tables.
pub const DESC_BYTES: usize = 16;

/// Descriptor flag: the chain continues.
pub const F_NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer.
pub const F_WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const F_INDIRECT: u16 = 4;
/// Packed descriptor flag: equals the driver's wrap counter when available.
pub const F_AVAIL: u16 = 1 << 7;
/// Packed descriptor flag: equals the device's wrap counter when used.
pub const F_USED: u16 = 1 << 15;

/// Split: set in `avail.flags` (no interrupts) or `used.flags` (no kicks).
pub const F_NO_NOTIFY: u16 = 1;

/// Packed event suppression flags: notify always.
pub const EVENT_ENABLE: u16 = 0;
/// Packed event suppression flags: notify never.
pub const EVENT_DISABLE: u16 = 1;
/// Packed event suppression flags: notify at a specific descriptor.
pub const EVENT_DESC: u16 = 2;

/// The direction flag of a direct descriptor.
#[inline(always)]
pub(crate) const fn direction(writable: bool) -> u16 {
    if writable { F_WRITE } else { 0 }
}

/// Offsets inside the split available and used rings, which differ only in their elements.
pub(crate) const FLAGS: usize = 0;
pub(crate) const IDX: usize = 2;
pub(crate) const RING: usize = 4;

/// The ring format.
///
/// ```
/// use linecard_virtio::Layout;
/// assert!(Layout::Split.check_size(300).is_err()); // not a power of two
/// assert!(Layout::Packed.check_size(300).is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Descriptor table, available ring, used ring.
    Split,
    /// One descriptor ring that both sides write.
    Packed,
}

impl Layout {
    /// Checks whether a ring of this layout may have `size` descriptors.
    ///
    /// # Errors
    /// [`Error::Size`] if it is 0, above 32 768, or (split) not a power of two.
    pub const fn check_size(self, size: u32) -> Result<u16, Error> {
        let shape = match self {
            Self::Split => size.is_power_of_two(),
            Self::Packed => size > 0,
        };
        if shape && size <= MAX_SIZE as u32 {
            Ok(size as u16)
        } else {
            Err(Error::Size { layout: self, asked: size })
        }
    }

    /// The lengths in bytes of the descriptor area, the driver area and the device area.
    #[must_use]
    pub const fn areas(self, size: u16) -> [usize; 3] {
        let n = size as usize;
        match self {
            Self::Split => [DESC_BYTES * n, 6 + 2 * n, 6 + 8 * n],
            Self::Packed => [DESC_BYTES * n, 4, 4],
        }
    }

    /// The required alignment of the three areas.
    #[must_use]
    pub const fn alignment(self) -> [usize; 3] {
        match self {
            Self::Split => [16, 2, 4],
            Self::Packed => [16, 4, 4],
        }
    }

    /// The offsets of the areas in one zone of [`Layout::bytes`] bytes that is aligned to 128.
    ///
    /// Split: `{flags, idx}` of each ring are the last four bytes of a separate cache line, so that the index
    /// that a peer polls never shares a line with the entries; each ring has its own 128-byte pair of lines,
    /// because the adjacent-line prefetcher works on pairs.
    #[must_use]
    pub const fn offsets(self, size: u16) -> [usize; 3] {
        let [desc, driver, _] = self.areas(size);
        match self {
            Self::Split => {
                let avail = up(desc, PAIR) + PAIR - RING;
                let used = up(avail + driver, PAIR) + PAIR - RING;
                [0, avail, used]
            }
            Self::Packed => {
                let driver = up(desc, PAIR);
                [0, driver, driver + PAIR]
            }
        }
    }

    /// The size in bytes of a zone that holds a whole ring at [`Layout::offsets`]; a multiple of 128.
    #[must_use]
    pub const fn bytes(self, size: u16) -> usize {
        up(self.offsets(size)[2] + self.areas(size)[2], PAIR)
    }
}

/// Two cache lines.
const PAIR: usize = 128;

const fn up(n: usize, to: usize) -> usize {
    n.next_multiple_of(to)
}

/// Addresses of the three areas, for messages, in either address space.
///
/// ```
/// use linecard_virtio::{Layout, RingAddrs};
/// let addrs = RingAddrs::at(0x10_0000, Layout::Packed, 256);
/// assert_eq!(addrs.driver - addrs.desc, 4096);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingAddrs {
    /// Descriptor table or ring.
    pub desc: u64,
    /// Available ring or driver event suppression.
    pub driver: u64,
    /// Used ring or device event suppression.
    pub device: u64,
}

impl RingAddrs {
    /// The addresses of a ring laid out by [`Layout::offsets`] from `base` on.
    #[must_use]
    pub const fn at(base: u64, layout: Layout, size: u16) -> Self {
        let [desc, driver, device] = layout.offsets(size);
        Self {
            desc: base.wrapping_add(desc as u64),
            driver: base.wrapping_add(driver as u64),
            device: base.wrapping_add(device as u64),
        }
    }
}

/// The three areas as memory of this process.
///
/// The creator of the [`SharedBytes`] guarantees that the memory stays mapped as long as handles to it are
/// used; a queue made from a `RingMemory` uses it until the queue is dropped.
///
/// ```
/// use core::ptr::NonNull;
/// use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{Layout, RingMemory};
///
/// let mut zone = vec![0u128; Layout::Split.bytes(8) / 16];
/// let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` is as long as said and outlives every use of `bytes`.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Split, 8).unwrap();
/// assert_eq!(ring.driver.len(), 6 + 2 * 8);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RingMemory {
    /// Descriptor table or ring.
    pub desc: SharedBytes,
    /// Available ring or driver event suppression.
    pub driver: SharedBytes,
    /// Used ring or device event suppression.
    pub device: SharedBytes,
}

impl RingMemory {
    /// The areas of a ring laid out by [`Layout::offsets`] in one zone.
    ///
    /// # Errors
    /// [`Error::Size`] if the layout does not allow the size, [`Error::Area`] if the zone is too small.
    pub fn in_zone(zone: SharedBytes, layout: Layout, size: u16) -> Result<Self, Error> {
        layout.check_size(u32::from(size))?;
        let (offsets, lens) = (layout.offsets(size), layout.areas(size));
        let need = layout.bytes(size);
        let area = |i: usize| {
            let too_small = Error::Area {
                area: "whole",
                addr: zone.as_ptr() as usize,
                len: zone.len(),
                need,
                align: PAIR,
            };
            zone.slice(offsets[i], lens[i]).ok_or(too_small)
        };
        Ok(Self { desc: area(0)?, driver: area(1)?, device: area(2)? })
    }

    /// Checks that all three areas are long enough and aligned.
    pub(crate) fn check(&self, layout: Layout, size: u16) -> Result<(), Error> {
        let (needs, aligns) = (layout.areas(size), layout.alignment());
        let areas = [("descriptor", self.desc), ("driver", self.driver), ("device", self.device)];
        for ((area, bytes), (need, align)) in areas.into_iter().zip(needs.into_iter().zip(aligns)) {
            let addr = bytes.as_ptr() as usize;
            if bytes.len() < need || !addr.is_multiple_of(align) {
                return Err(Error::Area { area, addr, len: bytes.len(), need, align });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DESC_BYTES, Layout, MAX_SIZE, RingAddrs};
    use crate::error::Error;

    #[test]
    fn areas_are_those_of_the_spec() {
        // virtio 1.3, Split Virtqueues: 16 × size, 6 + 2 × size, 6 + 8 × size, aligned to 16, 2, 4.
        assert_eq!(Layout::Split.areas(256), [4096, 518, 2054]);
        assert_eq!(Layout::Split.alignment(), [16, 2, 4]);
        // Packed Virtqueues: 16 × size, 4, 4, aligned to 16, 4, 4.
        assert_eq!(Layout::Packed.areas(300), [4800, 4, 4]);
        assert_eq!(Layout::Packed.alignment(), [16, 4, 4]);
        assert_eq!(DESC_BYTES, 16);
    }

    #[test]
    fn areas_are_aligned_apart_and_inside() {
        for layout in [Layout::Split, Layout::Packed] {
            for size in (0..16).map(|n| 1u16 << n) {
                let (offsets, areas) = (layout.offsets(size), layout.areas(size));
                for (offset, align) in offsets.into_iter().zip(layout.alignment()) {
                    assert!(offset.is_multiple_of(align));
                }
                assert!(offsets[0] + areas[0] <= offsets[1] && offsets[1] + areas[1] <= offsets[2]);
                assert!(offsets[2] + areas[2] <= layout.bytes(size));
                // No cache line belongs to two areas.
                assert!((offsets[0] + areas[0] - 1) / 64 < offsets[1] / 64);
                assert!((offsets[1] + areas[1] - 1) / 64 < offsets[2] / 64);
            }
        }
    }

    #[test]
    fn a_polled_index_has_its_line_alone() {
        let [_, avail, used] = Layout::Split.offsets(256);
        assert_eq!((avail % 64, used % 64), (60, 60));
        // The elements begin at byte 4, at the start of a cache line, so used elements are aligned to their 8
        // bytes.
        assert_eq!(((avail + 4) % 64, (used + 4) % 8), (0, 0));
    }

    #[test]
    fn sizes_are_checked() {
        for bad in [0, 3, 300, 65_536, u32::MAX] {
            assert_eq!(Layout::Split.check_size(bad), Err(Error::Size { layout: Layout::Split, asked: bad }));
        }
        for bad in [0, 32_769, 65_536] {
            assert_eq!(
                Layout::Packed.check_size(bad),
                Err(Error::Size { layout: Layout::Packed, asked: bad })
            );
        }
        assert_eq!(Layout::Packed.check_size(300), Ok(300));
        assert_eq!(Layout::Split.check_size(32_768), Ok(MAX_SIZE));
    }

    #[test]
    fn addresses_follow_the_offsets() {
        let addrs = RingAddrs::at(1 << 40, Layout::Split, 8);
        let [desc, driver, device] = Layout::Split.offsets(8).map(|offset| (1u64 << 40) + offset as u64);
        assert_eq!(addrs, RingAddrs { desc, driver, device });
    }
}
