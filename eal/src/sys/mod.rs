//! System calls, each behind a safe function. Where else there is `unsafe` the documentation of the crate says.

pub(crate) mod aio;
#[cfg(not(loom))]
pub(crate) mod membarrier;
pub(crate) mod tsc;

use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An `io::Error` for a call that returned −1.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An anonymous file that can be sealed, closed on exec, never executable. `huge` chooses a hugetlb page size by its
/// power of two.
pub(crate) fn memfd(name: &str, huge: Option<u32>) -> io::Result<File> {
    // The kernel allows 249 bytes; it shows the name in /proc only.
    let name: Vec<u8> = name.bytes().filter(|b| *b != 0).take(240).chain([0]).collect();
    let pages = huge.map_or(0, |power| libc::MFD_HUGETLB | (power << libc::MFD_HUGE_SHIFT));
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | pages;
    let create = |flags| {
        // SAFETY: `name` ends with a zero byte and lives across the call, which only reads it.
        check(unsafe { libc::memfd_create(name.as_ptr().cast(), flags) })
    };
    let fd = match create(flags | libc::MFD_NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(flags)?,
        result => result?,
    };
    // SAFETY: a new descriptor nobody else owns.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Takes the descriptor of that number, which whoever started this process passed to it and nobody here owns; `None` where none is
/// open. To be called once for each number.
pub(crate) fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: takes integers only; it fails for a number that is not open.
    let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    check(set).ok()?;
    // SAFETY: it is open, since before this process ran any code of ours, and the environment says that it is this process's to
    // take; the caller takes each number once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Forbids, for ever and for every holder, shrinking and growing the file, and further seals.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: takes integers only.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// Gives every page of the file its memory now, so that no later touch can fail.
pub(crate) fn allocate(file: &File, len: usize) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: takes integers only.
        match check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// An eventfd with nothing in it, non-blocking and close-on-exec.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: a new descriptor nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Empties a non-blocking eventfd.
pub(crate) fn drain(event: BorrowedFd<'_>) {
    let mut count = [0_u8; 8];
    // SAFETY: `count` lives across the call, which writes at most its 8 bytes.
    unsafe { libc::read(event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// Whether a descriptor is an eventfd. `fcntl` and `fstat` cannot tell; its link in `/proc` can.
fn is_eventfd(fd: BorrowedFd<'_>) -> bool {
    // "/proc/self/fd/", ten digits, and the zero at the end.
    let mut path = [0_u8; 32];
    if write!(&mut path[..31], "/proc/self/fd/{}", fd.as_raw_fd()).is_err() {
        return false;
    }
    let mut name = [0_u8; 32];
    // SAFETY: `path` ends with a zero byte; at most the length of `name` is written to it; both live across the call.
    let len = unsafe { libc::readlink(path.as_ptr().cast(), name.as_mut_ptr().cast(), name.len()) };
    if let Ok(len) = usize::try_from(len) {
        return name.get(..len) == Some(b"anon_inode:[eventfd]");
    }
    has_no_type(fd)
}

/// Whether a descriptor is an anonymous file without a type: what can be known where there is no `/proc`. Of those only an
/// eventfd takes eight bytes that say one.
pub(crate) fn has_no_type(fd: BorrowedFd<'_>) -> bool {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: writes one `stat`, which lives across the call.
    let known = unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) } == 0;
    // SAFETY: all zeros, or what the kernel wrote, is a valid `stat`.
    known && unsafe { stat.assume_init() }.st_mode & libc::S_IFMT == 0
}

/// Adds one to an eventfd that has room at this moment; `WouldBlock` when it has none, `EINVAL` when it is something else.
pub(crate) fn write_if_ready(to: BorrowedFd<'_>) -> io::Result<()> {
    if !is_eventfd(to) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut entry = libc::pollfd { fd: to.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid entry, exclusively borrowed until the call returns, which is at once.
    if check(unsafe { libc::poll(&raw mut entry, 1, 0) })? == 0 || entry.revents & libc::POLLOUT == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let one = 1_u64.to_ne_bytes();
    // SAFETY: reads the eight bytes of `one`, which lives across the call.
    let written = unsafe { libc::write(to.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A resource of which this process may use only so much.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resource {
    /// Addresses (`ulimit -v`).
    AddressSpace,
    /// The size of a file (`ulimit -f`); to pass it is a signal.
    FileSize,
}

/// The soft limit on a resource in bytes, `usize::MAX` for none.
pub(crate) fn limit(resource: Resource) -> usize {
    let resource = match resource {
        Resource::AddressSpace => libc::RLIMIT_AS,
        Resource::FileSize => libc::RLIMIT_FSIZE,
    };
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: writes one `rlimit`, which lives across the call. On failure it stays infinite.
    unsafe { libc::getrlimit(resource, &mut limit) };
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// The cores the calling thread may run on, in order; kernels with more than 8192 cores are not covered.
pub(crate) fn affinity() -> io::Result<Vec<u32>> {
    // Larger than `cpu_set_t`, because the kernel refuses sets smaller than its own.
    let mut set = [0_u64; 128];
    // SAFETY: the kernel writes at most `size_of_val(&set)` bytes to `set`.
    check(unsafe { libc::sched_getaffinity(0, size_of_val(&set), set.as_mut_ptr().cast()) })?;
    let bits = set
        .iter()
        .zip(0_u32..)
        .flat_map(|(word, i)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| i * 64 + bit));
    Ok(bits.collect())
}

/// Lets the calling thread run on `cores` only.
pub(crate) fn set_affinity(cores: &[u32]) -> io::Result<()> {
    let mut set = [0_u64; 128];
    for core in cores {
        let word = set.get_mut(*core as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (core % 64);
    }
    // SAFETY: the kernel reads `size_of_val(&set)` bytes of `set`.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), set.as_ptr().cast()) }).map(drop)
}

/// The user this process acts as.
pub(crate) fn user() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

/// CLOCK_MONOTONIC, in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`, which lives across the call. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}
