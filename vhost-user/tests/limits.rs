//! A process out of file descriptors. Alone in its binary: the limit is the whole process's.

mod common;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Bench, Frontend};
use linecard_wire::FrontendReq as Req;

/// Sets the soft limit of descriptors; returns the one before.
fn limit(files: u64) -> u64 {
    // SAFETY: all zeros is a valid structure.
    let mut now: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: fills the structure.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) }, 0);
    let before = std::mem::replace(&mut now.rlim_cur, files);
    // SAFETY: reads the structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const now) }, 0);
    before
}

/// Processor time of the whole process.
fn processor_time() -> Duration {
    // SAFETY: all zeros is a valid structure.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: fills the structure.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) }, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[test]
fn a_frontend_that_cannot_be_accepted_waits_and_costs_no_processor_time() {
    let bench = Bench::new("files");
    // SAFETY: takes integers; the result is a new descriptor.
    let raw = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: just made, nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let before = limit(u64::from(socket.as_raw_fd().unsigned_abs()) + 1);
    // All numbers below the limit are taken.
    let mut filled = Vec::new();
    while let Ok(fd) = socket.try_clone() {
        filled.push(fd);
    }
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let path = std::os::unix::ffi::OsStrExt::as_bytes(bench.path.as_os_str());
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = from.cast_signed();
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is a valid address of that length.
    assert_eq!(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) }, 0);
    let began = processor_time();
    std::thread::sleep(Duration::from_millis(600));
    let spent = processor_time() - began;
    limit(before);
    drop(filled);
    assert!(spent < Duration::from_millis(150), "the control thread spins: {spent:?} of 600 ms");
    // As soon as there is room it is served.
    Frontend::over(UnixStream::from(socket)).number(Req::GET_FEATURES);
}
