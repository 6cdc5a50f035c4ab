//! The memory of a ring, which its handles keep alive together.

use std::alloc::{self, Layout};
use std::ptr::NonNull;

use crate::Error;
use crate::config::{Geometry, SharedMemory};
use crate::layout::{ALIGN, Cells, Half, Modes, Sharing, check_region};
use crate::sync::Track;

/// The memory of one ring.
pub(crate) struct Storage {
    cells: Cells,
    track: Track,
    backing: Backing,
}

enum Backing {
    Heap(Layout),
    Given { _memory: SharedMemory },
}

// SAFETY: the cells are atomics; the ring's protocol passes slots from thread to thread.
unsafe impl Send for Storage {}
// SAFETY: a shared reference gives access to atomics, and to slots that the protocol gives to one thread at a
// time.
unsafe impl Sync for Storage {}

impl Storage {
    pub(crate) fn heap<T>(geometry: &Geometry, modes: Modes) -> Result<Self, Error> {
        let bytes = geometry.bytes(element_size::<T>())?;
        let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| Error::OutOfMemory { bytes })?;
        // SAFETY: `layout` is not empty: it contains the control cells.
        let start = NonNull::new(unsafe { alloc::alloc(layout) }).ok_or(Error::OutOfMemory { bytes })?;
        // SAFETY: `layout` is for a whole ring of this geometry, aligned to `ALIGN`, and nothing else refers
        // to the memory.
        let cells = unsafe { Cells::format(start, geometry, element_bytes::<T>(), modes, Sharing::Handles) };
        Ok(Self { cells, track: Track::new(geometry.slots as usize), backing: Backing::Heap(layout) })
    }

    /// # Safety
    /// Nothing else uses `memory`.
    pub(crate) unsafe fn format<T>(
        memory: SharedMemory,
        geometry: &Geometry,
        modes: Modes,
    ) -> Result<Self, Error> {
        check_region(memory.start, memory.len, geometry.bytes(element_size::<T>())?)?;
        // SAFETY: valid and aligned as just checked, unused (this function's condition).
        let cells =
            unsafe { Cells::format(memory.start, geometry, element_bytes::<T>(), modes, Sharing::Anyone) };
        Ok(Self {
            cells,
            track: Track::new(geometry.slots as usize),
            backing: Backing::Given { _memory: memory },
        })
    }

    /// Attaches to the ring in `memory` and checks that its elements have the size of `T` and this half the
    /// given mode.
    pub(crate) fn attach<T>(
        memory: SharedMemory,
        half: Half,
        mode: (u32, &'static str),
    ) -> Result<(Self, Geometry), Error> {
        // SAFETY: `SharedMemory::new` requires what `attach` needs, and `memory` is kept below.
        let found = unsafe { Cells::attach(memory.start, memory.len, element_bytes::<T>(), half, mode) };
        let (cells, geometry) = found?;
        let track = Track::new(geometry.slots as usize);
        Ok((Self { cells, track, backing: Backing::Given { _memory: memory } }, geometry))
    }

    pub(crate) fn cells(&self) -> Cells {
        self.cells
    }

    pub(crate) fn track(&self) -> Track {
        self.track.clone()
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Backing::Heap(layout) = self.backing {
            let start = self.cells.start();
            // SAFETY: the last handle was dropped, so nothing uses the cells any more.
            unsafe { self.cells.destroy() };
            // SAFETY: allocated with this layout in `heap`; elements are `Copy` and need no drop.
            unsafe { alloc::dealloc(start.as_ptr(), layout) };
        }
    }
}

/// The size of an element in bytes; does not compile for elements that the layout cannot align.
const fn element_size<T>() -> usize {
    const { assert!(align_of::<T>() <= ALIGN, "ring elements need at most 128-byte alignment") };
    size_of::<T>()
}

/// [`element_size`] in the format of the header.
fn element_bytes<T>() -> u32 {
    u32::try_from(element_size::<T>()).unwrap_or(u32::MAX)
}
