//! All regions of a peer, and the way from its addresses to ours.

use std::ptr::NonNull;
use std::sync::Arc;

use linecard_virtio::DeviceMemory;

use super::region::Region;
use crate::error::RegionError;

/// Most regions a peer may have, as `GET_MAX_MEM_SLOTS` says.
pub(crate) const MAX_REGIONS: usize = 509;

/// How much a peer may share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapLimits {
    /// Bytes of all regions together.
    pub(crate) total: u64,
}

/// The region that most addresses are in, flat for one comparison.
#[derive(Clone, Copy)]
struct Flat {
    guest: u64,
    size: u64,
    start: NonNull<u8>,
}

/// An unchanging set of regions, sorted by guest address, without overlaps.
///
/// ```
/// use linecard_virtio::DeviceMemory;
/// let nothing = linecard_vhost_user::MemoryMap::empty();
/// assert!(nothing.translate(0x1000, 1).is_none());
/// ```
pub struct MemoryMap {
    largest: Flat,
    by_guest: Vec<Arc<Region>>,
}

// SAFETY: addresses and regions that may go anywhere; see `Region`.
unsafe impl Send for MemoryMap {}
// SAFETY: as for Send; `&MemoryMap` only tells addresses.
unsafe impl Sync for MemoryMap {}

impl MemoryMap {
    /// A map of nothing.
    pub fn empty() -> Arc<Self> {
        let largest = Flat { guest: 0, size: 0, start: NonNull::dangling() };
        Arc::new(Self { largest, by_guest: Vec::new() })
    }

    /// A map of `regions`.
    ///
    /// # Errors
    /// [`RegionError::Count`], [`RegionError::Total`], [`RegionError::Overlap`].
    pub(crate) fn new(mut regions: Vec<Arc<Region>>, limits: MapLimits) -> Result<Arc<Self>, RegionError> {
        if regions.len() > MAX_REGIONS {
            return Err(RegionError::Count { asked: regions.len(), max: MAX_REGIONS });
        }
        let asked = regions.iter().fold(0u64, |sum, region| sum.saturating_add(region.spec.size));
        if asked > limits.total {
            return Err(RegionError::Total { asked, max: limits.total });
        }
        regions.sort_by_key(|region| region.spec.user_addr);
        no_overlap(&regions, |region| (region.spec.user_addr, region.spec.size))?;
        regions.sort_by_key(|region| region.spec.guest_addr);
        no_overlap(&regions, |region| (region.spec.guest_addr, region.spec.size))?;
        let Some(big) = regions.iter().max_by_key(|region| region.spec.size) else {
            return Ok(Self::empty());
        };
        let largest = Flat { guest: big.spec.guest_addr, size: big.spec.size, start: big.start() };
        Ok(Arc::new(Self { largest, by_guest: regions }))
    }

    /// Whether hugetlb pages of it were missing when it was mapped.
    pub(crate) fn is_sparse(&self) -> bool {
        self.by_guest.iter().any(|region| region.sparse)
    }

    pub(crate) fn regions(&self) -> &[Arc<Region>] {
        &self.by_guest
    }

    /// Where `len` bytes at the frontend's own address `addr` are; all in one region.
    pub(crate) fn translate_user(&self, addr: u64, len: u64) -> Option<NonNull<u8>> {
        self.by_guest.iter().find_map(|region| region.at(addr.checked_sub(region.spec.user_addr)?, len))
    }

    /// The region that contains guest address `addr`, and how far into it.
    fn find(&self, addr: u64) -> Option<(&Region, u64)> {
        let after = self.by_guest.partition_point(|region| region.spec.guest_addr <= addr);
        let region = self.by_guest.get(after.checked_sub(1)?)?;
        let offset = addr - region.spec.guest_addr;
        (offset < region.spec.size).then_some((region, offset))
    }

    #[cold]
    #[inline(never)]
    fn translate_slow(&self, addr: u64, len: u32) -> Option<NonNull<u8>> {
        let (region, offset) = self.find(addr)?;
        region.at(offset, u64::from(len))
    }
}

/// Whether neighbours of the sorted `regions` touch without overlapping.
fn no_overlap(regions: &[Arc<Region>], range: impl Fn(&Region) -> (u64, u64)) -> Result<(), RegionError> {
    for pair in regions.windows(2) {
        if let [low, high] = pair {
            let (start, size) = range(low);
            // Cannot overflow: each region was checked when it was made.
            if start + size > range(high).0 {
                return Err(RegionError::Overlap { guest: high.spec.guest_addr });
            }
        }
    }
    Ok(())
}

// SAFETY: every pointer comes from a checked range inside a mapping that lives as long as the map; raw and
// atomic access to shared file pages is always valid (pages that vanish are the fault handler's business).
unsafe impl DeviceMemory for MemoryMap {
    #[inline(always)]
    fn translate(&self, addr: u64, len: u32) -> Option<NonNull<u8>> {
        let offset = addr.wrapping_sub(self.largest.guest);
        if offset < self.largest.size && u64::from(len) <= self.largest.size - offset {
            // SAFETY: `offset + len` was just compared with the size of the mapping at `start`.
            return Some(unsafe { self.largest.start.add(offset as usize) });
        }
        self.translate_slow(addr, len)
    }

    fn translate_part(&self, addr: u64, len: u32) -> Option<(NonNull<u8>, u32)> {
        let (region, offset) = self.find(addr)?;
        let room = u32::try_from(region.spec.size - offset).unwrap_or(u32::MAX);
        let len = len.min(room);
        Some((region.at(offset, u64::from(len))?, len)).filter(|_| len > 0)
    }
}

impl std::fmt::Debug for MemoryMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_guest.iter().map(|region| region.spec)).finish()
    }
}
