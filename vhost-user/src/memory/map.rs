//! All regions of a peer, and the translation of its addresses to addresses in this process.

use std::ptr::NonNull;
use std::sync::Arc;

use linecard_virtio::{Access, DeviceMemory, Translation};
use linecard_wire::payload::MemoryRegion;

use super::region::{Region, check_ranges};
use crate::error::RegionError;

/// The maximum number of regions of a peer, regardless of its limit.
pub(crate) const MAX_REGIONS: u16 = 509;

/// Limits on the memory that a peer may share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapLimits {
    /// The total size of all regions in bytes.
    pub(crate) total: u64,
    /// The number of regions, as reported by `GET_MAX_MEM_SLOTS`.
    pub(crate) regions: u16,
}

impl MapLimits {
    /// Checks whether regions with these descriptions can form one map.
    ///
    /// # Errors
    /// [`RegionError::Count`], [`RegionError::Total`], [`RegionError::Overlap`], [`RegionError::Empty`],
    /// [`RegionError::Overflow`].
    pub(crate) fn check(self, specs: &[MemoryRegion]) -> Result<(), RegionError> {
        let max = usize::from(self.regions);
        if specs.len() > max {
            return Err(RegionError::Count { asked: specs.len(), max });
        }
        specs.iter().try_for_each(check_ranges)?;
        let asked = specs.iter().fold(0u64, |sum, spec| sum.saturating_add(spec.size));
        if asked > self.total {
            return Err(RegionError::Total { asked, max: self.total });
        }
        let mut specs = specs.to_vec();
        no_overlap(&mut specs, |spec| spec.user_addr)?;
        no_overlap(&mut specs, |spec| spec.guest_addr)
    }
}

/// The largest region, which contains most addresses, stored for a single comparison.
#[derive(Clone, Copy)]
struct Flat {
    guest: u64,
    size: u64,
    start: NonNull<u8>,
}

/// An immutable set of regions, sorted by guest address, without overlaps.
///
/// ```
/// use linecard_virtio::{Access, DeviceMemory};
/// let nothing = linecard_vhost_user::MemoryMap::empty();
/// assert!(nothing.translate(0x1000, 1, Access::Read).is_none());
/// ```
pub struct MemoryMap {
    largest: Flat,
    by_guest: Vec<Arc<Region>>,
}

// SAFETY: addresses, and regions that may be sent to any thread; see `Region`.
unsafe impl Send for MemoryMap {}
// SAFETY: a shared reference only gives access to addresses.
unsafe impl Sync for MemoryMap {}

impl MemoryMap {
    /// A map without regions.
    pub fn empty() -> Arc<Self> {
        #[expect(clippy::disallowed_methods, reason = "a region of no bytes, as in a slice of none")]
        let largest = Flat { guest: 0, size: 0, start: NonNull::dangling() };
        Arc::new(Self { largest, by_guest: Vec::new() })
    }

    /// A map of `regions`, which were [checked](MapLimits::check) together.
    pub(crate) fn new(mut regions: Vec<Arc<Region>>) -> Arc<Self> {
        regions.sort_by_key(|region| region.spec.guest_addr);
        let Some(big) = regions.iter().max_by_key(|region| region.spec.size) else {
            return Self::empty();
        };
        let largest = Flat { guest: big.spec.guest_addr, size: big.spec.size, start: big.start() };
        Arc::new(Self { largest, by_guest: regions })
    }

    /// Whether hugetlb pages of a region were missing when it was mapped.
    pub(crate) fn is_sparse(&self) -> bool {
        self.by_guest.iter().any(|region| region.sparse)
    }

    pub(crate) fn regions(&self) -> &[Arc<Region>] {
        &self.by_guest
    }

    /// The first guest address after the last region.
    pub(crate) fn end(&self) -> u64 {
        // This cannot overflow: `check` excluded it.
        self.by_guest.last().map_or(0, |region| region.spec.guest_addr + region.spec.size)
    }

    /// The guest address of the memory at `at` in this process: the inverse of
    /// [`translate`](DeviceMemory::translate). It is unique, because each region has its own mapping. Only
    /// code that needs guest addresses (the dirty log) uses this; packets do not carry them.
    pub(crate) fn guest_addr(&self, at: *const u8) -> Option<u64> {
        let inside = |start: NonNull<u8>, size: u64| {
            let offset = at.addr().wrapping_sub(start.addr().get()) as u64;
            (offset < size).then_some(offset)
        };
        if let Some(offset) = inside(self.largest.start, self.largest.size) {
            return Some(self.largest.guest + offset);
        }
        self.by_guest
            .iter()
            .find_map(|region| Some(region.spec.guest_addr + inside(region.start(), region.spec.size)?))
    }

    /// The location of `len` bytes at the frontend's address `addr`, if they are inside one region.
    pub(crate) fn translate_user(&self, addr: u64, len: u64) -> Option<NonNull<u8>> {
        self.by_guest.iter().find_map(|region| region.at(addr.checked_sub(region.spec.user_addr)?, len))
    }

    /// The region that contains guest address `addr`, and the offset in it.
    fn find(&self, addr: u64) -> Option<(&Region, u64)> {
        let after = self.by_guest.partition_point(|region| region.spec.guest_addr <= addr);
        let region = self.by_guest.get(after.checked_sub(1)?)?;
        let offset = addr - region.spec.guest_addr;
        (offset < region.spec.size).then_some((region, offset))
    }

    /// The location and length of the longest contiguous prefix of `len` bytes at guest address `addr`.
    pub(crate) fn part(&self, addr: u64, len: u32) -> Option<(NonNull<u8>, u32)> {
        let (region, offset) = self.find(addr)?;
        let room = u32::try_from(region.spec.size - offset).unwrap_or(u32::MAX);
        let len = len.min(room);
        Some((region.at(offset, u64::from(len))?, len)).filter(|_| len > 0)
    }

    #[cold]
    #[inline(never)]
    fn translate_slow(&self, addr: u64, len: u32) -> Option<NonNull<u8>> {
        let (region, offset) = self.find(addr)?;
        region.at(offset, u64::from(len))
    }
}

/// Checks that the ranges of the specs do not overlap.
fn no_overlap(
    specs: &mut [MemoryRegion],
    start_of: impl Fn(&MemoryRegion) -> u64,
) -> Result<(), RegionError> {
    specs.sort_by_key(&start_of);
    for pair in specs.windows(2) {
        if let [low, high] = pair {
            // This cannot overflow: `check_ranges` excluded it.
            if start_of(low) + low.size > start_of(high) {
                return Err(RegionError::Overlap { guest: high.guest_addr });
            }
        }
    }
    Ok(())
}

// SAFETY: every pointer comes from a checked range inside a mapping that lives as long as the map. Raw and
// atomic access to shared file pages is always valid; the SIGBUS handler replaces pages that vanish.
unsafe impl DeviceMemory for MemoryMap {
    #[inline(always)]
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        let offset = addr.wrapping_sub(self.largest.guest);
        if offset < self.largest.size && u64::from(len) <= self.largest.size - offset {
            // SAFETY: `offset + len` was just compared with the size of the mapping at `start`.
            return Some(unsafe { self.largest.start.add(offset as usize) });
        }
        self.translate_slow(addr, len)
    }

    fn translate_part(&self, addr: u64, len: u32, _: Access) -> Translation {
        self.part(addr, len).into()
    }
}

impl std::fmt::Debug for MemoryMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_guest.iter().map(|region| region.spec)).finish()
    }
}
