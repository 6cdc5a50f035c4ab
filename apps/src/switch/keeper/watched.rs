//! The process of the switch that a keeper watches.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use linecard::eal::liveness::Liveness;

/// How long the other threads of a switch may take to end after its main thread; usually they end at once.
const STOPPING: Duration = Duration::from_secs(1);

/// The process of the switch.
pub(super) struct Watched {
    pub(super) pid: u32,
    pub(super) handle: OwnedFd,
    /// `None` for a process that the keeper did not start.
    pub(super) child: Option<Child>,
    /// Whether it had hugepages once it had started.
    pub(super) had_hugepages: bool,
    /// Readable once its main thread has ended.
    pub(super) early: Option<UnixStream>,
}

impl Watched {
    /// A process that the keeper did not start.
    pub(super) fn new(pid: u32, handle: OwnedFd) -> Self {
        Self { pid, handle, child: None, had_hugepages: false, early: None }
    }

    /// Watches for the end of the main thread, which holds this mutex.
    pub(super) fn watch_main_thread(&mut self, liveness: Liveness) {
        let Ok((early, open)) = UnixStream::pair() else { return };
        // The thread closes its end of the pair, which makes the other readable. Without the thread the end of the
        // process is noticed later.
        let thread = std::thread::Builder::new().name("lc-liveness".into());
        let thread = thread.spawn(move || liveness.wait().map(|()| drop(open)));
        self.early = thread.is_ok().then_some(early);
    }

    /// Whether no thread of the process runs any more, after its main thread has ended.
    pub(super) fn has_stopped(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < STOPPING {
            if threads_are_exiting(self.pid) {
                return true;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        false
    }

    /// Has the kernel's record of the process removed when it has ended.
    pub(super) fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || drop(child.wait()));
        }
    }
}

/// Whether every thread of a process is in the kernel's exit (PF_EXITING) or has ended. Such a thread executes no
/// more instructions of the program.
fn threads_are_exiting(pid: u32) -> bool {
    /// `PF_EXITING` of the kernel's `linux/sched.h`.
    const EXITING: u32 = 4;
    // Without the folder, the process has ended.
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let mut stats = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("stat")));
    stats.all(|stat| match stat {
        // proc_pid_stat(5): the flags are the seventh field after the name, which is in parentheses.
        Ok(stat) => stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(6)?.parse::<u32>().ok())
            .is_some_and(|flags| flags & EXITING != 0),
        // The thread has ended meanwhile.
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::process::Command;

    use linecard_lab::wait_until;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    fn a_process_has_stopped_once_all_of_its_threads_exit() {
        assert!(!threads_are_exiting(std::process::id()));
        let mut child = Command::new("sleep").arg("600").spawn().expect("a process");
        assert!(!threads_are_exiting(child.id()));
        child.kill().expect("it runs");
        wait_until("it exits", || threads_are_exiting(child.id()));
        child.wait().expect("it has ended");
        assert!(threads_are_exiting(child.id()), "there is no such process any more");
    }

    #[test]
    fn the_end_of_the_thread_that_holds_the_mutex_is_noticed() {
        let mutex = Liveness::new().expect("a mutex");
        let of_keeper = mutex.as_fd().try_clone_to_owned().expect("a descriptor");
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (held, holds) = std::sync::mpsc::channel();
        let holder = std::thread::spawn(move || {
            held.send(mutex.hold()).expect("it is waited for");
            released.recv()
        });
        holds.recv().expect("it is sent").expect("nobody else holds it");
        let handle = OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
        let mut watched = Watched::new(1, handle);
        watched.watch_main_thread(Liveness::from_fd(of_keeper).expect("the same"));
        let early = watched.early.as_ref().expect("it is watched");
        let ready = |patience| {
            let patience = Timespec { tv_sec: patience, tv_nsec: 0 };
            poll(&mut [PollFd::new(early, PollFlags::IN)], Some(&patience))
        };
        assert_eq!(ready(0), Ok(0), "the thread goes on");
        drop(release);
        assert!(holder.join().expect("no panic").is_err());
        assert_eq!(ready(60), Ok(1));
    }
}
