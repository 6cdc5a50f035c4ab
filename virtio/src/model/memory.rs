//! Memory for models and tests: a zone for rings, and guest memory with region borders.

use std::alloc::{Layout as Shape, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::queue::{Access, DeviceMemory, Translation};
use crate::sync::SharedBytes;

/// Zeroed memory aligned to 128, at a fixed address.
#[derive(Debug)]
pub struct Zone {
    start: NonNull<u8>,
    shape: Shape,
}

// SAFETY: owned memory, accessed only through shared cells.
unsafe impl Send for Zone {}
// SAFETY: the memory is accessed only through shared cells, which any thread may use.
unsafe impl Sync for Zone {}

impl Zone {
    /// Allocates `len` bytes (at least one).
    #[must_use]
    pub fn new(len: usize) -> Self {
        let Ok(shape) = Shape::from_size_align(len.max(1), 128) else { panic!("zone of {len} bytes") };
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(shape) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(shape) };
        Self { start, shape }
    }

    /// The whole zone; valid until the zone is dropped.
    #[must_use]
    pub fn bytes(&self) -> SharedBytes {
        // SAFETY: the models drop their queues together with the zone and use neither afterwards.
        unsafe { SharedBytes::new(self.start, self.shape.size()) }
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this shape, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.shape) }
    }
}

/// Guest memory from `base` on, in regions that meet at `seams`: contiguous for the guest, but not in this
/// process.
#[derive(Debug)]
pub struct Guest {
    zone: Zone,
    base: u64,
    seams: Vec<u64>,
}

impl Guest {
    /// `len` bytes at `base`, with region borders at the given ascending addresses.
    #[must_use]
    pub fn new(base: u64, len: usize, seams: Vec<u64>) -> Self {
        Self { zone: Zone::new(len), base, seams }
    }

    /// The first address.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// The memory in this process.
    #[must_use]
    pub fn bytes(&self) -> SharedBytes {
        self.zone.bytes()
    }

    fn len(&self) -> u64 {
        self.zone.shape.size() as u64
    }
}

// SAFETY: pointers are returned only for ranges inside the zone, which lives as long as the guest.
unsafe impl DeviceMemory for Guest {
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        self.part(addr, len).filter(|(_, part)| *part == len).map(|(ptr, _)| ptr)
    }

    fn translate_part(&self, addr: u64, len: u32, _: Access) -> Translation {
        self.part(addr, len).into()
    }
}

impl Guest {
    /// The location of the longest contiguous prefix of `len` bytes at `addr`.
    pub(super) fn part(&self, addr: u64, len: u32) -> Option<(NonNull<u8>, u32)> {
        let offset = addr.checked_sub(self.base)?;
        let room = self.len().checked_sub(offset).filter(|room| *room > 0)?;
        let seam = self.seams.iter().find(|s| **s > addr).map_or(u64::MAX, |s| s - addr);
        let part = u64::from(len).min(room).min(seam);
        let bytes = self.zone.bytes().slice(offset as usize, part as usize)?;
        Some((NonNull::new(bytes.as_ptr())?, part as u32))
    }
}
