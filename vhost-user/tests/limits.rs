//! A process out of file descriptors. Alone in its binary: the limit is the whole process's.

mod common;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::{Bench, Frontend};
use linecard_lab::{wait_for, wait_until};
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

/// What the kernel says of a thread of this process, from files that are open already.
struct Thread {
    status: File,
    schedstat: File,
}

impl Thread {
    fn called(name: &str) -> Self {
        let named = |path: &Path| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        // It takes its name when it begins to run.
        let task = wait_for("the thread", || {
            let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
            tasks.flatten().map(|task| task.path()).find(|path| named(path))
        });
        let open = |name| File::open(task.join(name)).expect("proc");
        Self { status: open("status"), schedstat: open("schedstat") }
    }

    /// How often it has slept.
    fn sleeps(&self) -> u64 {
        let text = read(&self.status);
        let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.and_then(|count| count.trim().parse().ok()).expect("a number")
    }

    fn processor_time(&self) -> Duration {
        let text = read(&self.schedstat);
        Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
    }
}

fn read(file: &File) -> String {
    let mut text = vec![0; 4096];
    let len = file.read_at(&mut text, 0).expect("proc");
    text.truncate(len);
    String::from_utf8(text).expect("text")
}

#[test]
fn a_frontend_that_cannot_be_accepted_waits_and_costs_no_processor_time() {
    const LOOKS: u64 = 6;
    let bench = Bench::new("files");
    let thread = Thread::called("files");
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
    // One that spins would not sleep; one that sleeps each time uses next to nothing.
    let (slept, spent) = (thread.sleeps(), thread.processor_time());
    wait_until("the control thread has slept again and again", || thread.sleeps() >= slept + LOOKS);
    let spent = thread.processor_time() - spent;
    limit(before);
    drop(filled);
    assert!(
        spent < Duration::from_millis(5) * LOOKS as u32,
        "the control thread took {spent:?} for {LOOKS} looks"
    );
    // As soon as there is room it is served.
    Frontend::over(UnixStream::from(socket)).number(Req::GET_FEATURES);
}
