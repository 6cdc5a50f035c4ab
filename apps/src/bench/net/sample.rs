//! One sample: a fresh testpmd in a fresh namespace, and the rate at which packets pass.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linecard::eal::CoreId;

use super::cell::{Cell, Direction, Side};
use super::generator::Generator;
use super::place::{FAR, NEAR, Place};
use crate::bench::loopback::console::{Console, Failure, Interrupt};
use crate::bench::pair::per;

/// What all samples share.
pub(crate) struct Bed {
    /// Of the generator, and of the port.
    pub(crate) cores: [CoreId; 2],
    /// Our own program.
    pub(crate) ours: PathBuf,
    /// dpdk-testpmd, if there is one.
    pub(crate) dpdk: Option<PathBuf>,
    /// More device arguments, ours and DPDK's.
    pub(crate) arguments: [String; 2],
    pub(crate) hugepages: bool,
    pub(crate) window: Duration,
    /// For what DPDK leaves behind.
    pub(crate) folder: PathBuf,
    pub(crate) interrupt: Interrupt,
}

/// A rate, and what it cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Million packets per second.
    pub(crate) mpps: f64,
    /// Nanoseconds of processor time that the testpmd took per packet, user and system.
    pub(crate) cpu: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} Mpps, {:.0} ns of processor per packet", self.mpps, self.cpu)
    }
}

/// Megabytes for a testpmd.
const MEMORY: u32 = 256;
/// From the first packets to the first look at the counters.
const WARM_UP: Duration = Duration::from_millis(300);
/// Counters at one moment.
struct Look {
    packets: u64,
    /// Processor time of the testpmd, in ticks.
    ticks: u64,
    at: Instant,
}

impl Bed {
    /// Free 2 MiB pages that a testpmd needs.
    pub(crate) const HUGEPAGES: u64 = MEMORY as u64 / 2 + 8;

    /// Measures one row on one side.
    pub(crate) fn sample(&self, cell: Cell, side: Side) -> Result<Figure, Failure> {
        let place = Place::of(cell.kind)?;
        let mut command = self.testpmd(cell, side);
        let mut console = place.run(|| Console::start(side.name(), &mut command, &self.interrupt))??;
        if cell.kind.makes_interface() {
            place.interface(NEAR)?;
            place.quiet(NEAR)?;
        }
        let figure = match cell.direction {
            Direction::Tx => self.transmit(cell, &place, &mut console)?,
            Direction::Rx => self.receive(cell, &place, &mut console)?,
        };
        console.command("stop")?;
        console.finish()?;
        Ok(figure)
    }

    /// The interface that the kernel's side of the cable is.
    fn far(cell: Cell) -> &'static str {
        if cell.kind.makes_interface() { NEAR } else { FAR }
    }

    /// The kernel behind the cable counts.
    fn transmit(&self, cell: Cell, place: &Place, console: &mut Console) -> Result<Figure, Failure> {
        let far = place.interface(Self::far(cell))?;
        console.command("set fwd txonly")?;
        console.command(&format!("set txpkts {}", cell.bytes()))?;
        console.command("start")?;
        let pid = console.pid();
        let look = || -> Result<Look, Failure> {
            let facts = far.facts().map_err(|error| Failure::Program(error.to_string()))?;
            let packets = facts.stats.rx_packets + facts.stats.rx_dropped;
            Ok(Look { packets, ticks: ticks(pid), at: Instant::now() })
        };
        self.between(look)
    }

    /// The port counts.
    fn receive(&self, cell: Cell, place: &Place, console: &mut Console) -> Result<Figure, Failure> {
        let mut generator = Generator::new(place.path(), Self::far(cell), cell.bytes(), self.cores[0])?;
        console.command("set fwd rxonly")?;
        console.command("start")?;
        let stop = AtomicBool::new(false);
        let pid = console.pid();
        thread::scope(|scope| {
            scope.spawn(|| generator.run(&stop));
            let figure = self.between(|| {
                let packets = received(console)?;
                Ok(Look { packets, ticks: ticks(pid), at: Instant::now() })
            });
            stop.store(true, Ordering::Relaxed);
            figure
        })
    }

    fn between(&self, mut look: impl FnMut() -> Result<Look, Failure>) -> Result<Figure, Failure> {
        self.interrupt.sleep(WARM_UP)?;
        let before = look()?;
        self.interrupt.sleep(self.window)?;
        let after = look()?;
        let packets = after.packets.saturating_sub(before.packets);
        if packets == 0 {
            return Err(Failure::Program("no packet passed".into()));
        }
        let rate = per(packets, 1_000_000) / (after.at - before.at).as_secs_f64();
        let nanoseconds = after.ticks.saturating_sub(before.ticks) * (1_000_000_000 / TICKS);
        Ok(Figure { mpps: rate, cpu: per(nanoseconds, packets) })
    }

    /// A program whose console runs on the generator's core and whose packets on the other.
    fn testpmd(&self, cell: Cell, side: Side) -> Command {
        let (mut command, more) = match (side, &self.dpdk) {
            (Side::Dpdk, Some(program)) => {
                // What it prints to a pipe comes at once only this way, and its counters are read while it runs.
                let mut command = Command::new("stdbuf");
                command.arg("-oL").arg(program);
                (command, &self.arguments[1])
            }
            _ => {
                let mut command = Command::new(&self.ours);
                command.arg("testpmd");
                (command, &self.arguments[0])
            }
        };
        let [console, port] = self.cores;
        let prefix = format!("linecard-net-{}", std::process::id());
        let comma = if more.is_empty() { "" } else { "," };
        let device = format!("{}0,iface={NEAR}{comma}{more}", cell.kind.driver());
        command.args(["--lcores", &format!("0@{console},1@{port}"), "--no-pci", "--no-telemetry"]);
        command.args(["-m", &MEMORY.to_string(), "--file-prefix", &prefix]);
        command.env("RUNTIME_DIRECTORY", &self.folder);
        command.arg(if self.hugepages { "--in-memory" } else { "--no-huge" });
        command.args(["--vdev", &device, "--", "-i", "--nb-cores=1", "--total-num-mbufs=8192"]);
        command
    }
}

/// Processor time is counted in hundredths of a second (`USER_HZ`).
const TICKS: u64 = 100;

/// User and system time of a process; 0 when it is gone.
fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name, in brackets, may contain anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// What the port says it has received, now.
fn received(console: &mut Console) -> Result<u64, Failure> {
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
        assert!(ticks(std::process::id()) > 0);
        assert_eq!(ticks(u32::MAX), 0);
    }
}
