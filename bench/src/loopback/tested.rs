//! Samples with the tester at one end and a testpmd under test at the other: losses and round trips at a
//! rate, and the highest rate without loss.

use std::time::Duration;

use super::cell::{Load, Position, Side, Tool};
use super::console::{Console, Failure};
use super::kind::{Metric, Offer};
use super::machine::{Disturbance, Watch};
use super::path::Path;
use super::raw::Values;
use super::search::{Search, Trial};
use super::testbed::{Figure, Testbed};
use crate::end::Tally;
use crate::end::frame::MIN_LEN;
use crate::pair::per;

/// The tester and the program under test.
pub(crate) struct Bench {
    pub(crate) tester: Console,
    pub(crate) tested: Console,
}

/// Acceptable share of lost packets at the partial drop rate.
const PARTIAL: f64 = 0.005;
/// Precision of a rate without loss.
const PRECISION: f64 = 0.01;
/// Attempts of a trial that lost packets, because a moment without a core loses packets too.
const SECOND_LOOKS: u32 = 3;
/// The duration of a final trial, as a multiple of other trials.
const LAST: u32 = 4;

impl Testbed {
    /// Offers packets at a rate for the window.
    pub(crate) fn open_loop(
        &self,
        position: Position,
        path: Path,
        load: Load,
        offer: Offer,
    ) -> Result<Figure, Failure> {
        let mut bench = self.bench(position, path, load)?;
        bench.trial(offer, self.warm_up)?;
        let (tally, disturbance) = bench.trial(offer, self.window)?;
        bench.finish()?;
        if tally.received == 0 {
            return Err(Failure::Program(format!("none of {} packets came back", tally.offered)));
        }
        Ok(Figure { values: values(&tally), disturbance })
    }

    /// Searches the highest rates without loss and with partial loss.
    pub(crate) fn zero_loss(&self, position: Position, path: Path, load: Load) -> Result<Figure, Failure> {
        let mut bench = self.bench(position, path, load)?;
        bench.trial(Offer::Max, self.warm_up)?;
        let (tally, _) = bench.trial(Offer::Max, self.window / 4)?;
        if tally.received == 0 {
            return Err(Failure::Program(format!("none of {} packets came back", tally.offered)));
        }
        // The ring cannot accept more than this, so it bounds the rate that the tester can offer.
        let most = 1.05 * mpps(tally.offered, tally.nanos);
        let search = Search { most, allowed: 0.0, precision: PRECISION };
        let none = search.run(|trial| bench.lost(self, trial, 0.0))?;
        let partial = Search { allowed: PARTIAL, ..search };
        let some = partial.run(|trial| bench.lost(self, trial, PARTIAL))?;
        bench.finish()?;
        let values = [(Metric::Mpps, none), (Metric::Pdr, some.max(none)), (Metric::OfferedMpps, most)];
        Ok(Figure { values: values.into(), disturbance: Disturbance::default() })
    }

    /// Starts a tester and a testpmd that are connected.
    pub(crate) fn bench(&self, position: Position, path: Path, load: Load) -> Result<Bench, Failure> {
        let Some((side, tool)) = position.tested() else {
            return Err(Failure::Program("nothing is tested here".into()));
        };
        if usize::from(load.size.shortest()) < MIN_LEN {
            let problem = format!("the tester's packets have {MIN_LEN} bytes at least; ask for longer ones");
            return Err(Failure::Program(problem));
        }
        let socket = self.socket();
        let (mut tester, mut tested);
        if side == Side::Backend {
            tested = self.start("backend", self.backend(tool, &socket, load)?)?;
            tester = self.start("tester", self.tester(Side::Frontend, &socket, path, load))?;
            tester.command("port")?;
        } else {
            tester = self.start("tester", self.tester(Side::Backend, &socket, path, load))?;
            tester.command("port")?;
            tested = self.start("frontend", self.frontend(tool, &socket, path, load)?)?;
        }
        self.settle()?;
        tested.command(&format!("set fwd {}", self.forward))?;
        tested.command("start")?;
        Ok(Bench { tester, tested })
    }
}

impl Bench {
    /// Runs one trial; returns its disturbance too.
    fn trial(&mut self, offer: Offer, time: Duration) -> Result<(Tally, Disturbance), Failure> {
        let processes = [self.tester.pid(), self.tested.pid()];
        let watch = Watch::start(&processes);
        let order = format!("open {offer} {}", time.as_millis().max(1));
        let tally = self.tester.json(&order, time)?;
        self.tested.check()?;
        let disturbance = watch.end(&processes, 1);
        Ok((tally, disturbance))
    }

    /// Returns the share of packets that a trial loses; the least of several attempts while it exceeds
    /// `allowed`.
    fn lost(&mut self, testbed: &Testbed, trial: Trial, allowed: f64) -> Result<f64, Failure> {
        let time = testbed.window / 4 * if trial.last { LAST } else { 1 };
        let mut least = f64::INFINITY;
        for _ in 0..SECOND_LOOKS {
            let (tally, _) = self.trial(Offer::mpps(trial.rate), time)?;
            let slow =
                tally.short > tally.offered / 100 || mpps(tally.offered, tally.nanos) < 0.9 * trial.rate;
            // If the tester could not offer the rate, the rate was not tested.
            least = least.min(if slow { 1.0 } else { per(tally.lost, tally.offered.max(1)) });
            if least <= allowed {
                break;
            }
        }
        Ok(least)
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.tested.command("stop")?;
        self.tester.finish()?;
        self.tested.finish().map(drop)
    }
}

fn mpps(packets: u64, nanos: u64) -> f64 {
    per(packets, nanos.max(1)) * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn values(tally: &Tally) -> Values {
    let micros = |nanos| per(nanos, 1000);
    let count = |count: u64| count as f64;
    Values::from([
        (Metric::Mpps, mpps(tally.in_time, tally.nanos)),
        (Metric::OfferedMpps, mpps(tally.offered, tally.nanos)),
        (Metric::Sent, count(tally.offered)),
        (Metric::Lost, count(tally.lost)),
        (Metric::Duplicated, count(tally.duplicated)),
        (Metric::Reordered, count(tally.reordered)),
        (Metric::Corrupted, count(tally.corrupted)),
        (Metric::P50, micros(tally.p50)),
        (Metric::P90, micros(tally.p90)),
        (Metric::P99, micros(tally.p99)),
        (Metric::P999, micros(tally.p999)),
        (Metric::Max, micros(tally.max)),
    ])
}

/// The name of the tested program, for messages.
pub(crate) const fn name(tool: Tool) -> &'static str {
    match tool {
        Tool::Ours => "our testpmd",
        Tool::Dpdk => "dpdk-testpmd",
        Tool::Tester => "the tester",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_becomes_figures() {
        let tally = Tally {
            offered: 2000,
            in_time: 1500,
            nanos: 1_000_000,
            lost: 500,
            p99: 1500,
            ..Tally::default()
        };
        let values = values(&tally);
        assert_eq!((values[&Metric::Mpps], values[&Metric::OfferedMpps]), (1.5, 2.0));
        assert_eq!((values[&Metric::Lost], values[&Metric::P99]), (500.0, 1.5));
    }
}
