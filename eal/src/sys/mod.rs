//! System calls, each behind a safe function. The documentation of the crate lists the other modules with
//! `unsafe`.
//!
//! They use `rustix`, which checks lifetimes of descriptors and buffers. The exceptions that use `libc`:
//!
//! | call | reason |
//! |---|---|
//! | `sched_getaffinity`, `sched_setaffinity` | `rustix`'s set has 1024 cores, and the kernel refuses a set smaller than its own |
//! | `fcntl` of a passed descriptor ([`inherited`]) | the number may not be open, but a `BorrowedFd` must be |
//! | `io_setup`, `io_submit`, `io_getevents`, `io_destroy` (`aio`) | not in `rustix` |
//! | `mmap`, `munmap`, `madvise`, `mbind` (`memory/map.rs`) | addresses are chosen and replaced (`MAP_FIXED`); unsafe in `rustix` too |

pub(crate) mod aio;
#[cfg(not(loom))]
pub(crate) mod membarrier;
pub(crate) mod tsc;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::time::ClockId;

/// Converts the result of a call that returns −1 on error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Creates an anonymous file that can be sealed, is closed on exec and never executable. `huge` is the power
/// of two of a hugetlb page size.
pub(crate) fn memfd(name: &str, huge: Option<u32>) -> io::Result<File> {
    // The kernel allows 249 bytes; the name is only shown in /proc.
    let name: Vec<u8> = name.bytes().filter(|b| *b != 0).take(240).collect();
    let pages = huge.map_or(0, |power| libc::MFD_HUGETLB | (power << libc::MFD_HUGE_SHIFT));
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::from_bits_retain(pages);
    let file = match rustix::fs::memfd_create(&name[..], flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(&name[..], flags),
        result => result,
    };
    Ok(File::from(file?))
}

/// Takes ownership of the descriptor with this number, which was passed to this process at its start and has
/// no other owner here; `None` if it is not open. Call this once for each number.
pub(crate) fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: takes only integers; fails for a number that is not open.
    let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    check(set).ok()?;
    // SAFETY: it was open before this process ran any of its own code, and the environment says that it is
    // this process's; the caller takes each number once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Permanently forbids all holders to shrink or grow the file and to add seals.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?)
}

/// Allocates memory for every page of the file now, so that no later access can fail.
pub(crate) fn allocate(file: &File, len: usize) -> io::Result<()> {
    Ok(retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len as u64))?)
}

/// Creates an eventfd with counter 0, non-blocking and close-on-exec.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Resets a non-blocking eventfd to 0.
pub(crate) fn drain(event: BorrowedFd<'_>) {
    let _ = rustix::io::read(event, &mut [0_u8; 8]);
}

/// Whether a descriptor is an eventfd. `fcntl` and `fstat` do not tell; its link in `/proc` does.
fn is_eventfd(fd: BorrowedFd<'_>) -> bool {
    // "/proc/self/fd/", ten digits, and the terminating zero.
    let mut path = [0_u8; 32];
    if write!(&mut path[..31], "/proc/self/fd/{}", fd.as_raw_fd()).is_err() {
        return false;
    }
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return false };
    let mut name = [0_u8; 32];
    match rustix::fs::readlinkat_raw(rustix::fs::CWD, path, &mut name) {
        Ok(len) => name.get(..len) == Some(b"anon_inode:[eventfd]"),
        Err(_) => has_no_type(fd),
    }
}

/// Whether a descriptor is an anonymous file without a type, which is all that can be known without `/proc`.
/// Among these, only an eventfd accepts the eight bytes of the number one.
pub(crate) fn has_no_type(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == 0)
}

/// Adds one to an eventfd that has room at this moment; `WouldBlock` if it has none, `EINVAL` if it is not an
/// eventfd.
pub(crate) fn write_if_ready(to: BorrowedFd<'_>) -> io::Result<()> {
    if !is_eventfd(to) {
        return Err(Errno::INVAL.into());
    }
    let mut entry = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
    if poll(&mut entry, Some(&Timespec::default()))? == 0 || !entry[0].revents().contains(PollFlags::OUT) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    rustix::io::write(to, &1_u64.to_ne_bytes())?;
    Ok(())
}

/// A limited resource of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resource {
    /// The address space (`ulimit -v`).
    AddressSpace,
    /// The size of a file (`ulimit -f`); exceeding it raises a signal.
    FileSize,
}

/// The soft limit on a resource in bytes; `usize::MAX` if there is none.
pub(crate) fn limit(resource: Resource) -> usize {
    let resource = match resource {
        Resource::AddressSpace => rustix::process::Resource::As,
        Resource::FileSize => rustix::process::Resource::Fsize,
    };
    let limit = rustix::process::getrlimit(resource).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The cores that the calling thread may run on, in order. Kernels with more than 8192 cores are not
/// supported.
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

/// Restricts the calling thread to `cores`.
pub(crate) fn set_affinity(cores: &[u32]) -> io::Result<()> {
    let mut set = [0_u64; 128];
    for core in cores {
        let word = set.get_mut(*core as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (core % 64);
    }
    // SAFETY: the kernel reads `size_of_val(&set)` bytes of `set`.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), set.as_ptr().cast()) }).map(drop)
}

/// The effective user of this process.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// CLOCK_MONOTONIC, in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}
