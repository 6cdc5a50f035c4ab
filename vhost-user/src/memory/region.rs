//! One region: checked, mapped between guard pages, unmapped on drop.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_wire::PeerFd;
use linecard_wire::payload::MemoryRegion;
use memmap2::{MmapOptions, MmapRaw};

use super::sigbus::{Alarm, ENTRIES, Watch};
use super::unmap::unmap_elsewhere;
use crate::error::RegionError;

/// File systems whose pages appear without asking another process: a fault there cannot wait for anyone.
const SAFE_FILE_SYSTEMS: [i64; 2] = [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC];
const SMALL_PAGE: u64 = 4096;
/// The largest page that may have to be made while a ring is polled.
const LARGEST_ABSENT: u64 = 2 << 20;

/// A mapped region of a peer's memory.
pub(crate) struct Region {
    /// What the peer said, checked.
    pub(crate) spec: MemoryRegion,
    /// Hugetlb pages that are not all there: see [`is_sparse`].
    pub(crate) sparse: bool,
    /// Where `spec.guest_addr` is in this process.
    start: NonNull<u8>,
    /// Tells the fault handler about the mapping; must end before the mapping does.
    watch: Option<Watch>,
    /// The reservation, guards included; there until the drop.
    mapping: Option<MmapRaw>,
}

impl Drop for Region {
    fn drop(&mut self) {
        self.watch = None;
        if let Some(mapping) = self.mapping.take() {
            unmap_elsewhere(mapping);
        }
    }
}

// SAFETY: the region is an address range that stays mapped until the value drops; nothing in it is tied to
// a thread.
unsafe impl Send for Region {}
// SAFETY: `&Region` only tells addresses.
unsafe impl Sync for Region {}

impl Region {
    /// Checks what `spec` says against `file` and maps it; `alarm` watches it for pages that vanish.
    ///
    /// # Errors
    /// Any [`RegionError`] but those about several regions.
    pub(crate) fn map(
        spec: MemoryRegion,
        file: PeerFd,
        alarm: Option<&Arc<Alarm>>,
    ) -> Result<Self, RegionError> {
        check_ranges(&spec)?;
        // Asked before anything else, because the kernel alone answers it: any other file may be a program of the peer's
        // (FUSE), and `fstat` would wait for that.
        // SAFETY: takes integers.
        if unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GET_SEALS) } < 0 {
            return Err(RegionError::FileKind);
        }
        let file = File::from(file.into_owned());
        let region = Self::map_file(spec, &file, alarm);
        if region.is_err() {
            // Perhaps nobody else holds it any more, and to close it is to free it.
            drop(PeerFd::from(OwnedFd::from(file)));
        }
        region
    }

    fn map_file(spec: MemoryRegion, file: &File, alarm: Option<&Arc<Alarm>>) -> Result<Self, RegionError> {
        let page = check_file(&spec, file)?;
        // The file offset need not be page-aligned: map from the page it lies in.
        let skip = spec.offset % page;
        let len = (spec.size + skip).next_multiple_of(page);
        let sparse = is_sparse(file.as_fd(), page)?;
        let layout = Placement { page: page as usize, len: len as usize, offset: spec.offset - skip };
        let (mapping, base) = layout.map(file)?;
        // SAFETY: `skip < page <= len`, so this stays inside the mapping just made.
        let start = unsafe { base.add(skip as usize) };
        let start_of = base.as_ptr() as usize;
        let watch = alarm.map(|alarm| Watch::new(start_of, layout.len, layout.page, alarm));
        if matches!(watch, Some(None)) {
            return Err(RegionError::Unwatched { max: ENTRIES });
        }
        Ok(Self { spec, sparse, start, watch: watch.flatten(), mapping: Some(mapping) })
    }

    /// Where `len` bytes at `offset` into the region are; `None` when they are not all inside.
    pub(crate) fn at(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset <= end <= size`, the mapping is at least that long from `start`.
        (end <= self.spec.size).then(|| unsafe { self.start.add(offset as usize) })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

fn check_ranges(spec: &MemoryRegion) -> Result<(), RegionError> {
    if spec.size == 0 {
        return Err(RegionError::Empty);
    }
    let ranges =
        [("guest address", spec.guest_addr), ("user address", spec.user_addr), ("file offset", spec.offset)];
    for (what, start) in ranges {
        // Half the address space is kept free, so that rounding up to pages cannot overflow either.
        if start.checked_add(spec.size).is_none()
            || (what == "file offset" && start + spec.size > i64::MAX as u64)
        {
            return Err(RegionError::Overflow { what, start, size: spec.size });
        }
    }
    Ok(())
}

/// Checks kind and length of the file; returns its page size.
fn check_file(spec: &MemoryRegion, file: &File) -> Result<u64, RegionError> {
    let meta =
        file.metadata().map_err(|source| RegionError::System { action: "inspecting the file", source })?;
    let system =
        file_system(file).map_err(|source| RegionError::System { action: "inspecting the file", source })?;
    if !meta.is_file() || !SAFE_FILE_SYSTEMS.contains(&system) {
        return Err(RegionError::FileKind);
    }
    // Cannot overflow: `check_ranges` came before.
    let end = spec.offset + spec.size;
    if end > meta.len() {
        return Err(RegionError::FileSize { end, file: meta.len() });
    }
    // On hugetlbfs the block size is the page size.
    Ok(if system == libc::HUGETLBFS_MAGIC { meta.blksize().max(SMALL_PAGE) } else { SMALL_PAGE })
}

/// Whether a file of hugetlb pages lacks some of them, so that to touch one is to make it: 0.1 ms for 2 MiB.
///
/// # Errors
/// [`RegionError::Sparse`] for larger ones, which take as much as 0.1 s each.
fn is_sparse(file: BorrowedFd<'_>, page: u64) -> Result<bool, RegionError> {
    /// Unit of `st_blocks` (`stat(2)`).
    const BLOCK: u64 = 512;
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `stat` has room for the structure that fstat fills.
    cvt(unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) })
        .map_err(|source| RegionError::System { action: "inspecting the file", source })?;
    // SAFETY: all integers, zeroed before and filled now.
    let stat = unsafe { stat.assume_init() };
    let there = stat.st_blocks.cast_unsigned().saturating_mul(BLOCK);
    match page > SMALL_PAGE && there < stat.st_size.cast_unsigned() {
        true if page > LARGEST_ABSENT => Err(RegionError::Sparse { page, there }),
        sparse => Ok(sparse),
    }
}

fn file_system(file: &File) -> io::Result<i64> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `stat` has room for the structure that fstatfs fills.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstatfs succeeded, so it filled the structure.
    Ok(unsafe { stat.assume_init() }.f_type)
}

/// Where to map: `len` bytes of the file from `offset`, in pages of `page`.
struct Placement {
    page: usize,
    len: usize,
    offset: u64,
}

impl Placement {
    /// Reserves addresses, takes all access away, and maps the file into the middle.
    fn map(&self, file: &File) -> Result<(MmapRaw, NonNull<u8>), RegionError> {
        let failed = |action| move |source| RegionError::System { action, source };
        let overflow =
            || RegionError::Overflow { what: "mapping", start: self.offset, size: self.len as u64 };
        let total =
            self.page.checked_mul(3).and_then(|guards| guards.checked_add(self.len)).ok_or_else(overflow)?;
        let reservation = MmapOptions::new()
            .len(total)
            .no_reserve_swap()
            .map_anon()
            .map(MmapRaw::from)
            .map_err(failed("reserving addresses"))?;
        let low = reservation.as_mut_ptr();
        // SAFETY: the range is exactly the reservation, which nothing uses yet.
        cvt(unsafe { libc::mprotect(low.cast(), total, libc::PROT_NONE) }).map_err(failed("guarding"))?;
        let gap = low.addr().wrapping_neg() % self.page + self.page;
        // SAFETY: `gap < 2 * page`, so `gap + len + page <= total`: inside, with a guard page on both sides.
        let base = unsafe { low.add(gap) };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // Without NORESERVE whoever maps hugetlb pages reserves those that are not there, past the limits of the peer's
        // memory cgroup. For other files it means nothing.
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let offset = self.offset.cast_signed();
        // SAFETY: replaces part of our own reservation, which nothing uses yet; MmapRaw unmaps it with the rest.
        let mapped = unsafe { libc::mmap(base.cast(), self.len, access, flags, file.as_raw_fd(), offset) };
        if mapped == libc::MAP_FAILED {
            return Err(failed("mapping")(io::Error::last_os_error()));
        }
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the range is the mapping just made; both advices only change what dumps and forks see.
            cvt(unsafe { libc::madvise(mapped, self.len, advice) }).map_err(failed("advising"))?;
        }
        NonNull::new(base).map(|base| (reservation, base)).ok_or_else(overflow)
    }
}

fn cvt(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
