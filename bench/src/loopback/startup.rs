//! Start-up: the times from exec and from the connection to the first packet, and the memory of a process
//! with one port.
//!
//! The tester tries to send a packet already before the program starts; the tester's own start is not part of
//! the time.

use std::fs;
use std::time::Duration;

use super::cell::{Load, Position, Side};
use super::console::Failure;
use super::kind::Metric;
use super::machine::{Disturbance, Watch};
use super::path::Path;
use super::raw::Values;
use super::testbed::{Figure, Testbed, backend_device, frontend_device};
use super::tested;
use crate::end::First;
use crate::pair::per;
use linecard_apps_common::clock::monotonic_ns;

/// The time limit for the first packet.
const PATIENCE: Duration = Duration::from_secs(20);

impl Testbed {
    /// Starts one testpmd and measures the time until it forwards a packet.
    pub(crate) fn startup(&self, position: Position, path: Path, load: Load) -> Result<Figure, Failure> {
        let Some((side, tool)) = position.tested() else {
            return Err(Failure::Program("nothing is tested here".into()));
        };
        let socket = self.socket();
        let (device, other) = match side {
            Side::Backend => (backend_device(&socket), Side::Frontend),
            Side::Frontend => (frontend_device(&socket, path, load.ring), Side::Backend),
        };
        let mut tester = self.start("tester", self.tester(other, &socket, path, load))?;
        if other == Side::Backend {
            tester.command("port")?;
        }
        let from = tester.order(&format!("first {}", PATIENCE.as_millis()))?;
        let watch = Watch::start(&[tester.pid()]);
        let exec = monotonic_ns();
        let tested = self.start("testpmd", self.plain(tool, side, &device)?)?;
        let answer = tester.answer(from, PATIENCE)?;
        let first: First = tester.parse(&answer)?;
        let disturbance = Disturbance { waited: 0.0, ..watch.end(&[tester.pid()], 0) };
        let memory = ResidentMemory::of(tested.pid());
        let Some(came) = first.came else {
            return Err(Failure::Program(format!("no packet came through {}", tested::name(tool))));
        };
        tester.finish()?;
        tested.finish()?;
        let millis = |from: u64| per(came.saturating_sub(from), 1_000_000);
        let mut values = memory.ok_or_else(|| Failure::Program("its memory cannot be read".into()))?.values();
        values.insert(Metric::ExecMs, millis(exec));
        if first.connected > 0 {
            values.insert(Metric::ConnectMs, millis(first.connected));
        }
        Ok(Figure { values, disturbance })
    }
}

/// Resident memory of a process, in kilobytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ResidentMemory {
    resident: u64,
    shared: u64,
    huge: u64,
}

impl ResidentMemory {
    fn of(process: u32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
    }

    /// Parses `/proc/PID/status` (proc(5)), whose resident set does not include hugepages.
    fn read(status: &str) -> Option<Self> {
        let of = |label| {
            let line = status.lines().find_map(|line| line.strip_prefix(label))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let huge = of("HugetlbPages:")?;
        Some(Self { resident: of("VmRSS:")?, shared: of("RssShmem:")?, huge })
    }

    fn values(self) -> Values {
        let megabytes = |kilobytes| per(kilobytes, 1024);
        Values::from([
            (Metric::MemoryMb, megabytes(self.resident + self.huge)),
            (Metric::HugeMb, megabytes(self.huge)),
            (Metric::ShmemMb, megabytes(self.shared)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let status =
            "VmRSS:\t   20480 kB\nRssAnon:\t 4 kB\nRssShmem:\t   1024 kB\nHugetlbPages:\t    2048 kB\n";
        let memory = ResidentMemory::read(status).expect("readable");
        assert_eq!(memory, ResidentMemory { resident: 20_480, shared: 1024, huge: 2048 });
        assert_eq!(memory.values()[&Metric::MemoryMb], 22.0);
        assert_eq!(ResidentMemory::read(""), None);
        assert!(ResidentMemory::of(std::process::id()).is_some_and(|memory| memory.resident > 0));
    }
}
