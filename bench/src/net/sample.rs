//! One sample: the rate at which packets pass a port or return from it, for the time of a slice or with fresh
//! programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linecard::eal::CoreId;
use linecard::netdev::Interface;

use super::cell::{Cell, Direction, Kind, Question, Side};
use super::generator::Generator;
use super::namespace::{FAR, NEAR, TestNamespace};
use crate::loopback::console::{Console, Failure, Interrupt};
use crate::pair::per;

/// The parameters that all samples share.
pub(crate) struct Testbed {
    /// The cores of the generator and of the port.
    pub(crate) cores: [CoreId; 2],
    /// Our own program.
    pub(crate) ours: PathBuf,
    /// dpdk-testpmd, if there is one.
    pub(crate) dpdk: Option<PathBuf>,
    /// The C program, if there is one.
    pub(crate) kernel_loop: Option<PathBuf>,
    /// Whether the kernel's side is requested.
    pub(crate) kernel: bool,
    /// More device arguments, ours and DPDK's.
    pub(crate) arguments: [String; 2],
    pub(crate) hugepages: bool,
    pub(crate) window: Duration,
    /// From the first packets to the first snapshot of the counters.
    pub(crate) warm_up: Duration,
    /// The folder for files that DPDK leaves behind.
    pub(crate) folder: PathBuf,
    pub(crate) interrupt: Interrupt,
}

/// The result of a sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// In the question's unit.
    pub(crate) value: f64,
    /// For a rate: processor time of the port's program per packet, user and system, in nanoseconds. For a
    /// latency: the 99th percentile.
    pub(crate) second: f64,
}

/// Megabytes for a testpmd.
const MEMORY: u32 = 256;

/// Counters at one time.
pub(super) struct Snapshot {
    pub(super) count: u64,
    /// Processor time of the program, in nanoseconds.
    pub(super) busy: u64,
    pub(super) at: Instant,
}

impl Snapshot {
    /// Returns a snapshot of `count` with the processor time of a process.
    fn now(count: u64, pid: u32) -> Self {
        Self { count, busy: busy(pid), at: Instant::now() }
    }

    /// Returns a snapshot of `count` without processor time.
    pub(super) fn of(count: u64) -> Self {
        Self { count, busy: 0, at: Instant::now() }
    }
}

/// A side of a row that is set up; it is idle between its slices.
pub(crate) enum PreparedSide {
    /// A port and the other end of its veth pair.
    Port(Box<PausedPort>),
    /// Nothing: a slice sets up everything it needs.
    Fresh,
}

/// A port that is idle between slices.
pub(crate) struct PausedPort {
    console: Console,
    /// Present if the port receives.
    generator: Option<Generator>,
    /// The interface at which the kernel counts the port's frames.
    far: Interface,
    /// Dropped last: the others exist in it.
    _namespace: TestNamespace,
}

impl Testbed {
    /// The number of free 2 MiB pages that the testpmds of a question need.
    pub(crate) const fn hugepages(question: Question) -> u64 {
        (MEMORY as u64 / 2 + 8) * question.programs() as u64
    }

    /// Whether this side can be measured.
    pub(crate) fn has(&self, side: Side, question: Question) -> bool {
        match (side, question) {
            (Side::Linecard, _) => true,
            (Side::Dpdk, _) => self.dpdk.is_some(),
            (Side::Kernel, Question::Rate | Question::Latency) => self.kernel_loop.is_some(),
            (Side::Kernel, _) => self.kernel,
        }
    }

    /// Sets up one side of a row.
    pub(crate) fn stand(&self, cell: Cell, side: Side) -> Result<PreparedSide, Failure> {
        let Some(kind) = cell.kind else { return Ok(PreparedSide::Fresh) };
        let (namespace, mut console) = self.port(kind, side)?;
        let far = namespace.interface(Self::far(kind))?;
        let sends = cell.direction == Some(Direction::Tx);
        let generator = if sends {
            console.command(&format!("set txpkts {}", cell.bytes()))?;
            None
        } else {
            Some(Generator::new(namespace.path(), Self::far(kind), cell.bytes(), self.cores[0])?)
        };
        let mode = match (cell.question, sends) {
            (Question::Latency, _) => "macswap",
            (_, true) => "txonly",
            _ => "rxonly",
        };
        console.command(&format!("set fwd {mode}"))?;
        Ok(PreparedSide::Port(Box::new(PausedPort { console, generator, far, _namespace: namespace })))
    }

    /// Measures one side of a row for the time of a slice.
    pub(crate) fn slice(&self, cell: Cell, side: Side, stand: &mut PreparedSide) -> Result<Figure, Failure> {
        let PreparedSide::Port(standing) = stand else {
            return match cell.question {
                Question::Containers => self.containers(cell, side),
                _ => self.tcp(side),
            };
        };
        standing.console.command("start")?;
        let figure = match (cell.question, &mut standing.generator) {
            (Question::Latency, Some(generator)) => self.latency(generator),
            (_, Some(generator)) => self.receive(generator, &mut standing.console),
            (_, None) => self.transmit(&standing.far, standing.console.pid()),
        };
        standing.console.command("stop")?;
        figure
    }

    /// Ends a side in order.
    pub(crate) fn leave(stand: PreparedSide) -> Result<(), Failure> {
        match stand {
            PreparedSide::Port(standing) => standing.console.finish().map(drop),
            PreparedSide::Fresh => Ok(()),
        }
    }

    /// Measures round trips to a port that returns every frame.
    fn latency(&self, generator: &mut Generator) -> Result<Figure, Failure> {
        let (mut trips, lost) = thread::scope(|scope| {
            let pinger = scope.spawn(|| {
                generator.ping(self.warm_up, &self.interrupt.0);
                generator.ping(self.window, &self.interrupt.0)
            });
            pinger.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        self.interrupt.check()?;
        if lost > 0 || trips.is_empty() {
            let sent = lost + trips.len() as u64;
            return Err(Failure::Program(format!("{lost} of {sent} frames did not come back")));
        }
        trips.sort_unstable();
        let below = |percent: usize| per(trips[(trips.len() - 1) * percent / 100], 1000);
        Ok(Figure { value: below(50), second: below(99) })
    }

    /// Starts the program of a side with its port, in a new namespace.
    fn port(&self, kind: Kind, side: Side) -> Result<(TestNamespace, Console), Failure> {
        let namespace = TestNamespace::of(kind)?;
        let mut command = match (&self.kernel_loop, side) {
            (Some(program), Side::Kernel) => {
                let mut command = Command::new(program);
                command.args([kind.name(), NEAR, &self.cores[1].to_string()]);
                command
            }
            _ => {
                let more = &self.arguments[usize::from(side == Side::Dpdk)];
                let comma = if more.is_empty() { "" } else { "," };
                let device = format!("{}0,iface={NEAR}{comma}{more}", kind.driver());
                let mut command = self.testpmd(side, "port", self.cores);
                command.args(["--vdev", &device]).args(Self::APP);
                command
            }
        };
        let console =
            namespace.run(|| Console::start(side.name(Question::Rate), &mut command, &self.interrupt))??;
        if kind.makes_interface() {
            namespace.interface(NEAR)?;
            namespace.quiet(NEAR)?;
        }
        Ok((namespace, console))
    }

    /// The name of the interface at the kernel's end.
    fn far(kind: Kind) -> &'static str {
        if kind.makes_interface() { NEAR } else { FAR }
    }

    /// Measures the transmit rate by the kernel's counters at the other end.
    fn transmit(&self, far: &Interface, pid: u32) -> Result<Figure, Failure> {
        let look = || -> Result<Snapshot, Failure> {
            let info = far.info().map_err(|error| Failure::Program(error.to_string()))?;
            let count = info.stats.rx_packets + info.stats.rx_dropped;
            Ok(Snapshot::now(count, pid))
        };
        self.between(1_000_000, look)
    }

    /// Measures the receive rate by the port's counters.
    fn receive(&self, generator: &mut Generator, console: &mut Console) -> Result<Figure, Failure> {
        let stop = AtomicBool::new(false);
        let pid = console.pid();
        thread::scope(|scope| {
            scope.spawn(|| generator.run(&stop));
            let figure = self.between(1_000_000, || {
                let asked = Instant::now();
                let count = received(console)?;
                let look = Snapshot::now(count, pid);
                // The program read the counter at some time in between.
                Ok(Snapshot { at: asked + (look.at - asked) / 2, ..look })
            });
            stop.store(true, Ordering::Relaxed);
            figure
        })
    }

    /// Measures a rate, in `unit` per second.
    pub(super) fn between(
        &self,
        unit: u64,
        mut look: impl FnMut() -> Result<Snapshot, Failure>,
    ) -> Result<Figure, Failure> {
        self.interrupt.sleep(self.warm_up)?;
        let before = look()?;
        self.interrupt.sleep(self.window)?;
        let after = look()?;
        let count = after.count.saturating_sub(before.count);
        if count == 0 {
            return Err(Failure::Program("no packet passed".into()));
        }
        let value = per(count, unit) / (after.at - before.at).as_secs_f64();
        Ok(Figure { value, second: per(after.busy.saturating_sub(before.busy), count) })
    }

    /// testpmd's own options, after the devices.
    pub(super) const APP: [&str; 4] = ["--", "-i", "--nb-cores=1", "--total-num-mbufs=8192"];

    /// Returns the command for a program whose console runs on the first core and whose port on the second,
    /// without devices.
    pub(super) fn testpmd(&self, side: Side, name: &str, [console, port]: [CoreId; 2]) -> Command {
        let mut command = match (side, &self.dpdk) {
            (Side::Dpdk, Some(program)) => {
                // Without stdbuf its output to a pipe is buffered, but its counters are read while it runs.
                let mut command = Command::new("stdbuf");
                command.arg("-oL").arg(program);
                command
            }
            _ => {
                let mut command = Command::new(&self.ours);
                command.arg("testpmd");
                command
            }
        };
        let prefix = format!("linecard-net-{}-{name}", std::process::id());
        command.args(["--lcores", &format!("0@{console},1@{port}"), "--no-pci", "--no-telemetry"]);
        command.args(["-m", &MEMORY.to_string(), "--file-prefix", &prefix]);
        // A few whole files, which DPDK's virtio-user port can share.
        command.arg("--single-file-segments");
        command.env("RUNTIME_DIRECTORY", &self.folder);
        command.arg(if self.hugepages { "--in-memory" } else { "--no-huge" });
        command
    }

    /// Returns the path of a socket for the next sample; removes what a killed program left there.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        let socket = self.folder.join(name);
        let _ = std::fs::remove_file(&socket);
        socket
    }

    /// Returns the frontend's device argument for a socket.
    pub(super) fn virtio_user(&self, side: Side, socket: &Path) -> String {
        let more = &self.arguments[usize::from(side == Side::Dpdk)];
        let comma = if more.is_empty() { "" } else { "," };
        format!("net_virtio_user0,path={},queue_size=1024{comma}{more}", socket.display())
    }
}

/// Returns the user and system time of a process so far, in nanoseconds; 0 if it is gone.
fn busy(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |file: PathBuf| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse::<u64>().ok())
    };
    threads.filter_map(|thread| of(thread.path().join("schedstat"))).sum()
}

/// Returns the port's receive counter.
pub(super) fn received(console: &mut Console) -> Result<u64, Failure> {
    let text = console.ask("show port stats 0", Duration::ZERO)?;
    last_received(&text).ok_or_else(|| Failure::Program("the port printed no statistics".into()))
}

fn last_received(text: &str) -> Option<u64> {
    let line = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("RX-packets:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_a_block() {
        let block =
            "  #### NIC statistics for port 0  ####\n  RX-packets: 1518784    RX-missed: 7  RX-bytes:  9\n";
        assert_eq!(last_received(block), Some(1_518_784));
        assert_eq!(last_received("testpmd> "), None);
    }

    #[test]
    fn our_own_processor_time_is_known() {
        let start = Instant::now();
        let mut spins = 0_u64;
        while start.elapsed() < Duration::from_millis(60) {
            spins = std::hint::black_box(spins + 1);
        }
        assert!(busy(std::process::id()) > 0);
        assert_eq!(busy(u32::MAX), 0);
    }
}
