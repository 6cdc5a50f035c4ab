//! A sealed memfd with a ring for each side of each queue; the only unsafe code of this crate.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_ring::{Config, SharedMemory, Single, spsc};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create,
};

use super::record::Cell;

pub(super) type Producer = spsc::Producer<Cell>;
pub(super) type Consumer = spsc::Consumer<Cell>;

/// Rings begin at multiples of this.
const PAGE: usize = 4096;

/// The position of a ring in the memfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingExtent {
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// The memory of a capture, from the writer's side.
pub(super) struct Made {
    pub(super) file: OwnedFd,
    pub(super) producers: Vec<Producer>,
    pub(super) places: Vec<RingExtent>,
}

/// Creates a memfd with one ring for each entry of `cells`, which are numbers of cells and powers of two.
///
/// # Errors
/// Memory or descriptors are short.
pub(super) fn make(cells: &[usize]) -> std::io::Result<Made> {
    let mut places = Vec::new();
    let mut end = 0_usize;
    for &count in cells {
        let len = Config::power_of_two(count).bytes::<Cell>().map_err(std::io::Error::other)?;
        let len = len.next_multiple_of(PAGE);
        places.push(RingExtent { offset: end, len });
        end = end.checked_add(len).ok_or(std::io::ErrorKind::OutOfMemory)?;
    }
    affordable(end)?;
    let file = memfd_create("linecard-capture", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, end as u64)?;
    // So that no later access can fail for lack of memory.
    fallocate(&file, FallocateFlags::empty(), 0, end as u64)?;
    // Otherwise the other side could remove pages, and this process would get a SIGBUS.
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let map = map(&file, end)?;
    let ring = |(place, &count): (&RingExtent, &usize)| {
        let memory = memory(&map, *place)?;
        // SAFETY: new memory that this ring alone uses; the consumer created here is dropped at once, and the
        // descriptor goes to one reader, which attaches the only other one.
        let ends = unsafe { Config::power_of_two(count).in_memory::<Cell, Single, Single>(memory) };
        ends.map(|(producer, _)| producer).map_err(std::io::Error::other)
    };
    let producers = places.iter().zip(cells).map(ring).collect::<std::io::Result<_>>()?;
    Ok(Made { file, producers, places })
}

/// A client may request more memory than available: this must be an error for it, not the end of this
/// process.
fn affordable(bytes: usize) -> std::io::Result<()> {
    let file_size = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let file_size = file_size.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
    let available = linecard_eal::memory::available_bytes().min(file_size);
    if bytes <= available {
        return Ok(());
    }
    Err(std::io::Error::other(format!("{bytes} bytes asked, {available} can be had")))
}

/// Attaches consumers to the rings in a memfd that another process may have created.
///
/// # Errors
/// It cannot be mapped, is not sealed, or has no such rings.
pub(super) fn attach(file: &OwnedFd, places: &[RingExtent]) -> std::io::Result<Vec<Consumer>> {
    let seals = rustix::fs::fcntl_get_seals(file)?;
    let end = places.iter().map(|place| place.offset.saturating_add(place.len)).max().unwrap_or(0);
    let size = usize::try_from(fstat(file)?.st_size).unwrap_or(0);
    if !seals.contains(SealFlags::SHRINK) || end > size {
        return Err(std::io::Error::other("this is no memory for a capture"));
    }
    let map = map(file, end)?;
    let consumer = |place: &RingExtent| {
        let memory = memory(&map, *place)?;
        // SAFETY: `memory` is valid while `map` is kept, and this is the only reader of these rings.
        unsafe { Consumer::attach(memory) }.map_err(std::io::Error::other)
    };
    places.iter().map(consumer).collect()
}

fn map(file: &impl AsFd, len: usize) -> std::io::Result<Arc<MmapRaw>> {
    let file = std::fs::File::from(file.as_fd().try_clone_to_owned()?);
    Ok(Arc::new(MmapOptions::new().len(len).map_raw(&file)?))
}

fn memory(map: &Arc<MmapRaw>, place: RingExtent) -> std::io::Result<SharedMemory> {
    let inside = place.offset.checked_add(place.len).is_some_and(|end| end <= map.len());
    let start = NonNull::new(map.as_mut_ptr().wrapping_add(place.offset)).filter(|_| inside);
    let start = start.ok_or(std::io::ErrorKind::InvalidData)?;
    // SAFETY: `place` is within the mapping, which the returned memory keeps; it is accessed only through
    // rings.
    let memory = unsafe { SharedMemory::new(start, place.len) };
    Ok(memory.keeping(Arc::clone(map) as _))
}
