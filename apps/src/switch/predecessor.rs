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

/// The variable in which the keeper gives the process ID.
pub(super) const VARIABLE: &str = "LINECARD_PREDECESSOR";
/// How long the kernel may take to end the process; usually it takes about 50 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// The predecessor, or none.
#[derive(Debug)]
pub(super) struct Predecessor(Option<OwnedFd>);

impl Predecessor {
    /// The process that the keeper named, if it has not ended yet.
    pub(super) fn of_this_process() -> Self {
        let pid = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        Self(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()))
    }

    /// Waits for its end; returns at once if there is none, or it was waited for before.
    pub(super) fn wait(&mut self) {
        let Some(handle) = self.0.take() else { return };
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

    /// Starts something that needs memory. If there is less than needed while the predecessor still holds its own,
    /// waits for its end and starts again.
    pub(super) fn start_beside<T, E>(
        &mut self,
        memory: &Memory,
        start: impl Fn() -> Result<T, E>,
    ) -> Result<T, E> {
        let first = start();
        if self.0.is_none() || (first.is_ok() && !has_small_pages_instead(memory)) {
            return first;
        }
        drop(first);
        self.wait();
        start()
    }
}

/// Whether there is memory in ordinary pages on a machine with hugepages: the predecessor may hold them.
fn has_small_pages_instead(memory: &Memory) -> bool {
    let usage = memory.usage();
    let reserved = std::fs::read_to_string("/proc/sys/vm/nr_hugepages");
    let reserved = reserved.is_ok_and(|count| count.trim().parse() != Ok(0_u64));
    reserved && usage.huge_1g == 0 && usage.huge_2m == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::process::Command;

    use linecard::eal::MemoryConfig;

    fn predecessor(child: &std::process::Child) -> Predecessor {
        Predecessor(pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok())
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
    fn nothing_is_waited_for_without_a_predecessor() {
        Predecessor(None).wait();
    }
}
