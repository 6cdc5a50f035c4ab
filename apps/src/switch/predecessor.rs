//! The killed switch that this one replaces, while the kernel is still ending its process.
//!
//! The keeper starts the next switch when no thread of the killed one runs any more, and does not wait until the
//! kernel has released its memory and closed its descriptors. Ports whose state was kept need neither. What else
//! the killed process may still hold - memory, addresses of sockets, interfaces - is waited for.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use linecard::eal::Memory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The variable in which the keeper gives the process ID, followed by [`HUGE`] if the process had hugepages.
pub(super) const VARIABLE: &str = "LINECARD_PREDECESSOR";
pub(super) const HUGE: &str = " hugepages";
/// How long the kernel may take to end the process; usually it takes about 50 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// The predecessor, or none.
#[derive(Debug, Default)]
pub(super) struct Predecessor {
    handle: Option<OwnedFd>,
    had_hugepages: bool,
}

impl Predecessor {
    /// The process that the keeper named, if it has not ended yet.
    pub(super) fn of_this_process() -> Self {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let (pid, had_hugepages) = text.strip_suffix(HUGE).map_or((&*text, false), |pid| (pid, true));
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        Self { handle: pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()), had_hugepages }
    }

    /// Waits for its end; returns at once if there is none, or it was waited for before.
    pub(super) fn wait(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => {
                    return tracing::warn!("the kernel has not ended the earlier process of the switch yet");
                }
                _ => return,
            }
        }
    }

    /// Starts something that needs memory. If there is less than needed, or none in hugepages, while the predecessor
    /// still holds its own, waits for its end and starts again.
    pub(super) fn start_beside<T, E>(
        &mut self,
        memory: &Memory,
        start: impl Fn() -> Result<T, E>,
    ) -> Result<T, E> {
        let first = start();
        let usage = memory.usage();
        let lacks_hugepages = self.had_hugepages && usage.huge_1g == 0 && usage.huge_2m == 0;
        if self.handle.is_none() || (first.is_ok() && !lacks_hugepages) {
            return first;
        }
        drop(first);
        self.wait();
        start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::process::Command;

    use linecard::eal::MemoryConfig;

    fn predecessor(child: &std::process::Child) -> Predecessor {
        let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
        Predecessor { handle, had_hugepages: false }
    }

    #[test]
    fn what_fails_beside_the_predecessor_is_tried_after_its_end() {
        let memory = Memory::new(MemoryConfig::default()).expect("memory");
        let mut child = Command::new("sleep").arg("600").spawn().expect("a process");
        let mut before = predecessor(&child);
        let attempts = Cell::new(0);
        let start = || {
            attempts.set(attempts.get() + 1);
            if attempts.get() == 1 { Err("no memory") } else { Ok(attempts.get()) }
        };
        child.kill().expect("it runs");
        assert_eq!(before.start_beside(&memory, start), Ok(2));
        // It was waited for, so the second failure is final.
        attempts.set(0);
        assert_eq!(before.start_beside(&memory, start), Err("no memory"));
        child.wait().expect("it has ended");
    }

    #[test]
    fn hugepages_are_waited_for_where_the_predecessor_had_some() {
        let memory = Memory::new(MemoryConfig::default()).expect("memory");
        for had_hugepages in [false, true] {
            let mut child = Command::new("sleep").arg("600").spawn().expect("a process");
            let mut before = Predecessor { had_hugepages, ..predecessor(&child) };
            child.kill().expect("it runs");
            let starts = Cell::new(0);
            let start = || {
                starts.set(starts.get() + 1);
                Ok::<_, ()>(())
            };
            before.start_beside(&memory, start).expect("it starts");
            assert_eq!(starts.get(), if had_hugepages { 2 } else { 1 }, "no domain, so no hugepages");
            child.wait().expect("it has ended");
        }
    }

    #[test]
    fn nothing_is_waited_for_without_a_predecessor() {
        Predecessor::default().wait();
    }
}
