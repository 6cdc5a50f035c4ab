//! The system calls this room needs that `std` does not have.
//!
//! `poll` is `libc`'s: a set has lines without a descriptor, which `rustix` cannot express. Requests to devices (`kernel/ioctl.rs`,
//! `pci/ioctl.rs`) are `libc`'s, too, since `rustix` has none of them.

use std::os::fd::RawFd;
use std::time::Duration;

use rustix::rand::GetRandomFlags;

use crate::backend::Ready;

/// One line of a poll set.
pub(crate) fn pollfd(fd: Option<RawFd>, ready: Ready) -> libc::pollfd {
    let events = match ready {
        Ready::Read => libc::POLLIN,
        Ready::Write => libc::POLLOUT,
        // Reported without being asked for.
        Ready::Error => 0,
    };
    // A negative descriptor is skipped by the kernel.
    libc::pollfd { fd: fd.unwrap_or(-1), events, revents: 0 }
}

/// Waits until a descriptor of `set` is ready or `wait` is over (`None`: for ever); an interrupted call just returns.
pub(crate) fn poll(set: &mut [libc::pollfd], wait: Option<Duration>) {
    let timeout = wait.map_or(-1, |wait| {
        // Rounded up, so that a deadline is over when the call returns for it.
        i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    for line in set.iter_mut() {
        line.revents = 0;
    }
    // SAFETY: `set` is exclusively borrowed for the call and its length is passed along.
    unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) };
}

/// Six bytes nobody can guess, for an address.
pub(crate) fn random_bytes() -> [u8; 6] {
    let mut bytes = [0_u8; 6];
    if rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(bytes.len()) {
        // Unique within the machine is enough for an address: the clock and the process.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        let mix = now ^ (u64::from(std::process::id()) << 32);
        bytes.copy_from_slice(&mix.to_le_bytes()[..6]);
    }
    bytes
}
