//! The round trip of one packet: a program at the frontend sends it, a testpmd at the backend returns it.
//!
//! Our frontend is the tester; DPDK's is a small program on DPDK's driver, built when first needed. Both
//! measure the same time: from before `tx_burst` with one packet until `rx_burst` has returned one.

use std::process::Command;
use std::time::Duration;

use super::cell::{Load, Position, Side, Tool};
use super::console::{Console, Failure};
use super::kind::Metric;
use super::machine::Watch;
use super::path::Path;
use super::raw::Values;
use super::testbed::{FRONTEND_MEMORY, Figure, MEMORY, Testbed, frontend_device};
use crate::end::Tally;
use crate::pair::per;
use crate::peer;

/// The source of DPDK's frontend.
const SOURCE: &str = include_str!("../../peers/dpdk_ping.c");
/// The pause between the return of a packet and the next packet at low load.
const GAP: Duration = Duration::from_micros(20);
/// An upper estimate of a round trip; limits the number of packets.
const ABOUT: Duration = Duration::from_micros(2);

/// The most time that the round trips may take, as a multiple of the window.
const SLOWEST: u32 = 10;

/// Two ends: the frontend sends one packet at a time, the backend returns it.
pub(crate) struct PingPair {
    pub(crate) tested: Console,
    pub(crate) pinger: Console,
    /// Packets sent, and packets that did not return.
    sent: u64,
    lost: u64,
}

impl PingPair {
    /// Measures round trips for about `window` back to back, then for as long at low load.
    pub(crate) fn look(&mut self, window: Duration) -> Result<Values, Failure> {
        let tally = self.ping(window, Duration::ZERO)?;
        let low = self.ping(window, GAP)?;
        Ok(values(&tally, &low))
    }

    fn ping(&mut self, window: Duration, gap: Duration) -> Result<Tally, Failure> {
        let most = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        let count = (most / u64::try_from((gap + ABOUT).as_micros()).unwrap_or(1)).max(1);
        // When other programs use the cores too, a round trip takes a thousand times as long; then there are
        // fewer.
        let most = SLOWEST * window;
        let order = format!("ping {count} {} {}", gap.as_nanos(), most.as_millis());
        let tally: Tally = self.pinger.json(&order, most)?;
        self.sent += tally.offered;
        self.lost += tally.offered.saturating_sub(tally.received);
        Ok(tally)
    }

    /// Ends both programs.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.tested.command("stop")?;
        self.pinger.finish()?;
        self.tested.finish()?;
        if self.lost > 0 {
            let (lost, of) = (self.lost, self.sent);
            return Err(Failure::Program(format!("{lost} of {of} packets did not come back")));
        }
        Ok(())
    }
}

impl Testbed {
    /// Measures round trips back to back, and at low load.
    pub(crate) fn latency(&self, position: Position, path: Path, load: Load) -> Result<Figure, Failure> {
        let mut ping_pair = self.ping_pair(position, path, load)?;
        let processes = [ping_pair.tested.pid()];
        let watch = Watch::start(&processes);
        let values = ping_pair.look(self.window)?;
        let disturbance = watch.end(&processes, 1);
        ping_pair.end()?;
        Ok(Figure { values, disturbance })
    }

    /// Starts two ends and warms them up.
    pub(crate) fn ping_pair(&self, position: Position, path: Path, load: Load) -> Result<PingPair, Failure> {
        let (back, front) = position.tools();
        let socket = self.socket();
        let mut tested = self.start("backend", self.backend(back, &socket, load)?)?;
        let command = match front {
            Tool::Dpdk => self.dpdk_ping(&socket, path, load)?,
            Tool::Ours | Tool::Tester => self.tester(Side::Frontend, &socket, path, load),
        };
        let mut pinger = self.start("frontend", command)?;
        pinger.command("port")?;
        self.settle()?;
        tested.command("set fwd io")?;
        tested.command("start")?;
        let mut ping_pair = PingPair { tested, pinger, sent: 0, lost: 0 };
        ping_pair.ping(self.window / 4, Duration::ZERO)?;
        Ok(ping_pair)
    }

    /// Returns the command for the program on DPDK's driver.
    fn dpdk_ping(&self, socket: &std::path::Path, path: Path, load: Load) -> Result<Command, Failure> {
        let program = peer::build("dpdk_ping", SOURCE)
            .map_err(|absent| Failure::Program(format!("DPDK's pinging frontend cannot be had: {absent}")))?;
        let mut command = Command::new(program);
        command.args([
            "--lcores",
            &format!("0@{}", self.cores[0]),
            "--no-pci",
            "--no-telemetry",
            "-m",
            &MEMORY.to_string(),
        ]);
        command.args(["--file-prefix", &self.prefix("p")]);
        self.place_files(&mut command);
        command.args(FRONTEND_MEMORY).args(["--vdev", &frontend_device(socket, path, load.ring), "--"]);
        command.args([load.ring.to_string(), load.size.longest().to_string()]);
        Ok(command)
    }
}

fn values(tally: &Tally, low: &Tally) -> Values {
    let micros = |nanos| per(nanos, 1000);
    Values::from([
        (Metric::P50, micros(tally.p50)),
        (Metric::P90, micros(tally.p90)),
        (Metric::P99, micros(tally.p99)),
        (Metric::P999, micros(tally.p999)),
        (Metric::Max, micros(tally.max)),
        (Metric::LowP50, micros(low.p50)),
        (Metric::LowP99, micros(low.p99)),
    ])
}
