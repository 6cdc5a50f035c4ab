//! One memory region: checked, mapped between guard pages, unmapped on drop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_wire::ledger::Charge;
use linecard_wire::payload::MemoryRegion;
use linecard_wire::{Closer, PeerFd};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::Stat;
use rustix::io::Errno;

use super::sigbus::{Alarm, ENTRIES, Watch};
use super::unmap::unmap;
use crate::error::RegionError;
use crate::limits::Ledger;

/// File systems whose page faults need no other process, and therefore cannot block.
const SAFE_FILE_SYSTEMS: [i64; 2] = [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC];
const SMALL_PAGE: u64 = 4096;
/// The largest page that may have to be allocated while a ring is polled.
const LARGEST_ABSENT: u64 = 2 << 20;

/// A mapped region of a peer's memory.
pub(crate) struct Region {
    /// The peer's description, checked.
    pub(crate) spec: MemoryRegion,
    /// The descriptor from which it was mapped, if a successor will need it.
    kept: Option<PeerFd>,
    /// The mapped file. The mapping keeps it open, so no other file gets its inode number meanwhile.
    file: FileId,
    /// Hugetlb pages of the file are missing: see [`is_sparse`].
    pub(crate) sparse: bool,
    /// The location of `spec.guest_addr` in this process.
    start: NonNull<u8>,
    /// Registers the mapping with the SIGBUS handler; must be dropped before the mapping.
    watch: Option<Watch>,
    /// The reservation, guards included; `Some` until the drop.
    mapping: Option<MmapRaw>,
    /// The charges for the addresses and the region, returned when it is unmapped.
    charges: Option<[Charge; 2]>,
    closer: Closer,
}

impl Drop for Region {
    fn drop(&mut self) {
        self.watch = None;
        if let Some(mapping) = self.mapping.take() {
            let charges = self.charges.take();
            self.closer.run(move || {
                unmap(mapping);
                drop(charges);
            });
        }
    }
}

// SAFETY: the region is an address range that stays mapped until the value drops; nothing in it depends on a
// thread.
unsafe impl Send for Region {}
// SAFETY: `&Region` only gives access to addresses.
unsafe impl Sync for Region {}

impl Region {
    /// Checks `spec` against `file`, charges `ledger` and maps the region. `alarm` is raised if its pages
    /// vanish.
    ///
    /// # Errors
    /// Any [`RegionError`] except those about several regions.
    pub(crate) fn map(
        spec: MemoryRegion,
        file: BorrowedFd<'_>,
        alarm: Option<&Arc<Alarm>>,
        ledger: &Ledger,
    ) -> Result<Self, RegionError> {
        check_ranges(&spec)?;
        check_kind(file)?;
        let file_facts = check_file(&spec, file)?;
        Self::place(spec, (file, file_facts), alarm, ledger)
    }

    /// As [`map`](Self::map), but without checks of the file, which may be a device with memory. For a
    /// trusted frontend in this process.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub(crate) fn map_trusted(
        spec: MemoryRegion,
        file: BorrowedFd<'_>,
        alarm: Option<&Arc<Alarm>>,
        ledger: &Ledger,
    ) -> Result<Self, RegionError> {
        check_ranges(&spec)?;
        if check_kind(file).is_ok() {
            return Self::map(spec, file, alarm, ledger);
        }
        Self::place(spec, (file, (FileId::of(file)?, SMALL_PAGE, false)), alarm, ledger)
    }

    fn place(
        spec: MemoryRegion,
        (file, (id, page, sparse)): (BorrowedFd<'_>, (FileId, u64, bool)),
        alarm: Option<&Arc<Alarm>>,
        ledger: &Ledger,
    ) -> Result<Self, RegionError> {
        // The file offset need not be page-aligned, so the mapping starts at the page that contains it.
        let skip = spec.offset % page;
        let len = (spec.size + skip).next_multiple_of(page);
        let layout = Placement { page: page as usize, len: len as usize, offset: spec.offset - skip };
        let charges = [ledger.mapped.charge(len)?, ledger.regions.charge(1)?];
        let (mapping, base) = layout.map(file)?;
        // SAFETY: `skip < page <= len`, so this stays inside the new mapping.
        let start = unsafe { base.add(skip as usize) };
        let start_of = base.as_ptr() as usize;
        let watch = alarm.map(|alarm| Watch::new(start_of, layout.len, layout.page, alarm));
        if matches!(watch, Some(None)) {
            return Err(RegionError::Unwatched { max: ENTRIES });
        }
        let (closer, charges) = (ledger.closer.clone(), Some(charges));
        Ok(Self {
            spec,
            kept: None,
            file: id,
            sparse,
            start,
            watch: watch.flatten(),
            mapping: Some(mapping),
            charges,
            closer,
        })
    }

    /// Keeps the descriptor from which the region was mapped.
    #[must_use]
    pub(crate) fn keeping(mut self, file: PeerFd) -> Self {
        self.kept = Some(file);
        self
    }

    /// The descriptor from which the region was mapped, if it was [kept](Self::keeping).
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.kept.as_ref().map(AsFd::as_fd)
    }

    /// Whether `spec` and `file` describe this region: the same addresses and the same part of the same file.
    pub(crate) fn is(&self, spec: &MemoryRegion, file: &PeerFd) -> bool {
        let same_file = |fd| check_kind(fd).and_then(|()| FileId::of(fd)).is_ok_and(|id| id == self.file);
        self.spec == *spec && same_file(file.as_fd())
    }

    /// The location of `len` bytes at `offset` into the region; `None` if they are not all inside.
    pub(crate) fn at(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset <= end <= size`, and the mapping has at least `size` bytes from `start`.
        (end <= self.spec.size).then(|| unsafe { self.start.add(offset as usize) })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

/// Identifies a file among all that exist at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Identifies the file of `fd`, whose kind was checked: for other files, `fstat` could block.
    fn of(fd: BorrowedFd<'_>) -> Result<Self, RegionError> {
        stat(fd).map(|stat| Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

fn stat(fd: BorrowedFd<'_>) -> Result<Stat, RegionError> {
    let failed = |source: Errno| RegionError::System { action: "inspecting the file", source: source.into() };
    rustix::fs::fstat(fd).map_err(failed)
}

/// Refuses files that are not memory. This check comes first, because the kernel answers it alone: any other
/// file may belong to a program of the peer (FUSE), for which `fstat` would wait.
fn check_kind(fd: BorrowedFd<'_>) -> Result<(), RegionError> {
    rustix::fs::fcntl_get_seals(fd).map(drop).map_err(|_| RegionError::FileKind)
}

pub(super) fn check_ranges(spec: &MemoryRegion) -> Result<(), RegionError> {
    if spec.size == 0 {
        return Err(RegionError::Empty);
    }
    let ranges =
        [("guest address", spec.guest_addr), ("user address", spec.user_addr), ("file offset", spec.offset)];
    for (what, start) in ranges {
        // File offsets stay in the lower half of their range, so rounding up to pages cannot overflow either.
        if start.checked_add(spec.size).is_none()
            || (what == "file offset" && start + spec.size > i64::MAX as u64)
        {
            return Err(RegionError::Overflow { what, start, size: spec.size });
        }
    }
    Ok(())
}

/// Checks the kind and length of the file. Returns its identity, its page size, and whether it is sparse.
fn check_file(spec: &MemoryRegion, file: BorrowedFd<'_>) -> Result<(FileId, u64, bool), RegionError> {
    let failed = |source| RegionError::System { action: "inspecting the file", source };
    let stat = stat(file)?;
    let system = file_system(file).map_err(failed)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || !SAFE_FILE_SYSTEMS.contains(&system) {
        return Err(RegionError::FileKind);
    }
    // This cannot overflow: `check_ranges` excluded it.
    let end = spec.offset + spec.size;
    let len = stat.st_size.cast_unsigned();
    if end > len {
        return Err(RegionError::FileSize { end, file: len });
    }
    // On hugetlbfs the block size is the page size.
    let huge = system == libc::HUGETLBFS_MAGIC;
    let page = if huge { stat.st_blksize.cast_unsigned().max(SMALL_PAGE) } else { SMALL_PAGE };
    Ok((FileId { device: stat.st_dev, inode: stat.st_ino }, page, is_sparse(&stat, page)?))
}

/// Whether a hugetlb file lacks some of its pages, so that the first access allocates one: 0.1 ms for 2 MiB.
///
/// # Errors
/// [`RegionError::Sparse`] for larger pages, which take up to 0.1 s each.
fn is_sparse(stat: &Stat, page: u64) -> Result<bool, RegionError> {
    /// The unit of `st_blocks` (`stat(2)`).
    const BLOCK: u64 = 512;
    let there = stat.st_blocks.cast_unsigned().saturating_mul(BLOCK);
    match page > SMALL_PAGE && there < stat.st_size.cast_unsigned() {
        true if page > LARGEST_ABSENT => Err(RegionError::Sparse { page, there }),
        sparse => Ok(sparse),
    }
}

/// The kind of file system of a file: `f_type` of `statfs(2)`.
fn file_system(file: BorrowedFd<'_>) -> io::Result<i64> {
    Ok(rustix::fs::fstatfs(file)?.f_type)
}

/// The mapping to make: `len` bytes of the file from `offset`, in pages of `page`.
struct Placement {
    page: usize,
    len: usize,
    offset: u64,
}

impl Placement {
    /// Reserves addresses without access, and maps the file into their middle.
    fn map(&self, file: BorrowedFd<'_>) -> Result<(MmapRaw, NonNull<u8>), RegionError> {
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
        // SAFETY: the range is exactly the reservation, which is not in use yet.
        cvt(unsafe { libc::mprotect(low.cast(), total, libc::PROT_NONE) }).map_err(failed("guarding"))?;
        let gap = low.addr().wrapping_neg() % self.page + self.page;
        // SAFETY: `gap < 2 * page`, so `gap + len + page <= total`: inside, with a guard page on both sides.
        let base = unsafe { low.add(gap) };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // Without NORESERVE, mapping a hugetlb file would reserve missing pages, beyond the limits of the
        // peer's memory cgroup. For other files the flag has no effect.
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let offset = self.offset.cast_signed();
        // SAFETY: this replaces part of the new reservation, which is not in use yet; MmapRaw unmaps it with
        // the rest.
        let mapped = unsafe { libc::mmap(base.cast(), self.len, access, flags, file.as_raw_fd(), offset) };
        if mapped == libc::MAP_FAILED {
            return Err(failed("mapping")(io::Error::last_os_error()));
        }
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the range is the new mapping; both advices only affect core dumps and forks.
            cvt(unsafe { libc::madvise(mapped, self.len, advice) }).map_err(failed("advising"))?;
        }
        NonNull::new(base).map(|base| (reservation, base)).ok_or_else(overflow)
    }
}

fn cvt(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
