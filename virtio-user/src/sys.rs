//! System calls that this crate needs and `std` does not provide.
//!
//! `poll` comes from `libc`: a set may have entries without a descriptor, which `rustix` cannot express. The
//! ioctls of devices (`kernel/ioctl.rs`, `pci/ioctl.rs`) come from `libc` too, since `rustix` has none of
//! them.

use std::os::fd::RawFd;
use std::time::Duration;

use rustix::rand::GetRandomFlags;

use crate::backend::Ready;

/// Returns one entry of a poll set.
pub(crate) fn pollfd(fd: Option<RawFd>, ready: Ready) -> libc::pollfd {
    let events = match ready {
        Ready::Read => libc::POLLIN,
        Ready::Write => libc::POLLOUT,
        // Always reported.
        Ready::Error => 0,
    };
    // A negative descriptor is skipped by the kernel.
    libc::pollfd { fd: fd.unwrap_or(-1), events, revents: 0 }
}

/// Waits until a descriptor of `set` is ready or `wait` has passed (`None`: no limit). An interrupted call
/// returns.
pub(crate) fn poll(set: &mut [libc::pollfd], wait: Option<Duration>) {
    let timeout = wait.map_or(-1, |wait| {
        // Rounded up, so that the deadline has passed when the call returns because of it.
        i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    for line in set.iter_mut() {
        line.revents = 0;
    }
    // SAFETY: `set` is exclusively borrowed for the call and its length is passed along.
    unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) };
}

/// Returns six unpredictable bytes for an address.
pub(crate) fn random_bytes() -> [u8; 6] {
    let mut bytes = [0_u8; 6];
    if rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(bytes.len()) {
        // For an address, it suffices to be unique within the machine: the clock and the process.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        let mix = now ^ (u64::from(std::process::id()) << 32);
        bytes.copy_from_slice(&mix.to_le_bytes()[..6]);
    }
    bytes
}
