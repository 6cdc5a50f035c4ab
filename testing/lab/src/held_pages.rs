//! Memory of this process whose pages do not come.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `_IOWR(0xaa, 0x3f, struct uffdio_api)` and `_IOWR(0xaa, 0, struct uffdio_register)` of linux/userfaultfd.h.
const API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
const REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
/// `UFFD_API`, `UFFD_FEATURE_MISSING_SHMEM` with `UFFD_FEATURE_MINOR_SHMEM`.
const VERSION: u64 = 0xaa;
const FEATURES: u64 = 1 << 5 | 1 << 10;
/// `UFFDIO_REGISTER_MODE_MISSING` and `UFFDIO_REGISTER_MODE_MINOR`.
const MODES: u64 = 1 | 4;
/// `UFFD_USER_MODE_ONLY`: every user may ask for it.
const USER_MODE_ONLY: libc::c_int = 1;

/// The mappings of a memfd in this process: whoever touches a page of them that is not mapped at that moment waits
/// until this is dropped. A hole that is punched into the memfd takes its pages out of all mappings.
///
/// ```
/// use linecard_lab::HeldPages;
/// // There is no mapping of such a file, which is as good as one that nobody touches.
/// if let Ok(held) = HeldPages::of("no-such-memfd") {
///     drop(held);
/// }
/// ```
#[derive(Debug)]
pub struct HeldPages(OwnedFd);

impl HeldPages {
    /// Holds the pages of the memfd that was created with this name.
    ///
    /// # Errors
    /// The kernel does not let this user do so.
    pub fn of(name: &str) -> io::Result<Self> {
        let flags = USER_MODE_ONLY | libc::O_CLOEXEC;
        // SAFETY: takes an integer, and makes a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = libc::c_int::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the descriptor was just made, and nobody else has it.
        let held = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut version = [VERSION, FEATURES, 0];
        // SAFETY: the argument is a `struct uffdio_api`, of three u64, which lives until the call returns.
        check(unsafe { libc::ioctl(fd, API, version.as_mut_ptr()) })?;
        for (start, end) in mappings(name)? {
            let mut range = [start, end - start, MODES, 0];
            // SAFETY: the argument is a `struct uffdio_register`, of four u64, which lives until the call returns. The
            // range is shared memory of a peer's, in which waiting for a page is always possible.
            check(unsafe { libc::ioctl(held.0.as_raw_fd(), REGISTER, range.as_mut_ptr()) })?;
        }
        Ok(held)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The first and the last address, exclusive, of each mapping of a memfd.
fn mappings(name: &str) -> io::Result<Vec<(u64, u64)>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let file = format!("/memfd:{name} (deleted)");
    let range = |line: &str| {
        let (start, rest) = line.strip_suffix(&file)?.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some((number(start)?, number(end)?))
    };
    Ok(maps.lines().filter_map(range).collect())
}
