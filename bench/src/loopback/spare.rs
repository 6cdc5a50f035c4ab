//! The spare capacity of our end in a mixed pair: idle cycles are added to each of its packets until the pair
//! becomes slower.
//!
//! The slower end determines the rate of a mixed pair and hides the capacity of the other; this measurement
//! shows it.

use std::time::Duration;

use super::cell::{Load, Position, Tool};
use super::console::{Console, Failure};
use super::kind::Metric;
use super::machine::{Disturbance, Watch};
use super::path::Path;
use super::raw::Values;
use super::sample::snapshots;
use super::testbed::{Figure, Testbed};
use crate::pair::per;
use crate::stats::Summary;

/// The share of the rate whose loss counts as slower.
const SLOWER: f64 = 0.01;
/// Measurements with and without work, alternating.
const TURNS: u32 = 5;
/// Upper bound of the search, in cycles per packet.
const MOST: u32 = 4096;
/// Precision of the search, in cycles.
const STEP: u32 = 4;

impl Testbed {
    /// Searches how many cycles per packet our end can spend without loss of rate.
    pub(crate) fn spare(&self, position: Position, path: Path, load: Load) -> Result<Figure, Failure> {
        let (back_tool, _) = position.tools();
        let mut pair = self.pair(position, path, load)?;
        for end in [&mut pair.back, &mut pair.front] {
            end.command("set record-core-cycles on")?;
        }
        pair.go(self, load)?;
        pair.rest(self, self.warm_up)?;
        let processes = [pair.back.pid(), pair.front.pid()];
        let (watch, slice) = (Watch::start(&processes), self.window / 10);
        let ours = if back_tool == Tool::Ours { &mut pair.back } else { &mut pair.front };
        let mut idle = Vec::new();
        let work = most_work(|work| -> Result<bool, Failure> {
            let mut slowed = Vec::new();
            for _ in 0..TURNS {
                idle.push(rate_with(self, ours, 0, slice)?);
                slowed.push(rate_with(self, ours, work, slice)?);
            }
            let before = idle.get(idle.len() - slowed.len()..).unwrap_or_default();
            Ok(middle(&slowed) < (1.0 - SLOWER) * middle(before))
        })?;
        ours.command("set work-cycles 0")?;
        let disturbance = watch.end(&processes, 1);
        let busy = self.busy(&mut pair.back, &mut pair.front)?;
        let [back, front] = [pair.back.finish()?.output, pair.front.finish()?.output];
        let mut values = Values::from([(Metric::Mpps, middle(&idle)), (Metric::Work, f64::from(work))]);
        for (metric, output) in [(Metric::BusyBackend, back), (Metric::BusyFrontend, front)] {
            values.extend(busy_share(&output, busy).map(|share| (metric, share)));
        }
        Ok(Figure { values, disturbance: Disturbance { waited: 0.0, ..disturbance } })
    }

    /// Lets both ends count busy cycles for a while without work; returns the time.
    fn busy(&self, back: &mut Console, front: &mut Console) -> Result<Duration, Failure> {
        back.command("clear fwd stats all")?;
        front.command("clear fwd stats all")?;
        let start = std::time::Instant::now();
        self.interrupt.sleep(self.window)?;
        let took = start.elapsed();
        back.command("stop")?;
        front.command("stop")?;
        Ok(took)
    }
}

/// Returns our end's rate while each of its packets costs `work` cycles more, in million packets per second.
fn rate_with(testbed: &Testbed, ours: &mut Console, work: u32, time: Duration) -> Result<f64, Failure> {
    ours.command(&format!("set work-cycles {work}"))?;
    ours.command("show port stats 0")?;
    testbed.interrupt.sleep(time)?;
    let answer = ours.ask("show port stats 0", Duration::ZERO)?;
    let look = snapshots(&answer).pop().filter(|look| look.per_second > 0);
    let look = look.ok_or_else(|| Failure::Program("no packets went round".into()))?;
    Ok(per(look.per_second, 1_000_000))
}

/// Returns the most work that does not make the pair slower; `slower` tests one value.
fn most_work<E>(mut slower: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
    let (mut low, mut high) = (0, STEP);
    while high < MOST && !slower(high)? {
        (low, high) = (high, high * 2);
    }
    while high - low > STEP {
        let middle = u32::midpoint(low, high);
        *(if slower(middle)? { &mut high } else { &mut low }) = middle;
    }
    Ok(low)
}

fn middle(rates: &[f64]) -> f64 {
    Summary::of(rates).map_or(f64::NAN, |summary| summary.median)
}

/// Returns the share of `time` in which a program was busy: `(total cycles=N / … ) at M MHz Clock`, at its
/// last stop.
fn busy_share(output: &str, time: Duration) -> Option<f64> {
    let line = output.lines().rfind(|line| line.contains("CPU cycles/packet="))?;
    let number = |after: &str| -> Option<u64> {
        let rest = line.split_once(after)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let (cycles, mhz) = (number("total cycles=").or_else(|| number("busy cycles="))?, number(") at ")?);
    let micros = u64::try_from(time.as_micros()).ok()?;
    Some(per(cycles, (micros * mhz).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_work_is_found() {
        for limit in [0, 3, 17, 100, 1000, 3000] {
            let found = most_work(|work| Ok::<_, ()>(work > limit)).expect("no try fails");
            assert!(found <= limit && limit - found <= STEP, "{limit}: {found}");
        }
        assert!(
            most_work(|_| Ok::<_, ()>(false)).is_ok_and(|found| found >= MOST - STEP),
            "no limit within reach"
        );
        assert_eq!(most_work(|_| Err("gone")), Err("gone"));
    }

    #[test]
    fn both_programs_say_how_busy_they_were() {
        let old =
            "  CPU cycles/packet=10.00 (total cycles=500000 / total mac packets=50000) at 1000 MHz Clock\n";
        let new =
            "  CPU cycles/packet=10.00 (busy cycles=250000 / total io packets=50000) at 1000 MHz Clock\n";
        let share = |text| busy_share(text, Duration::from_millis(1));
        assert_eq!((share(old), share(new), share("")), (Some(0.5), Some(0.25), None));
        assert_eq!(share(&format!("{old}{new}")), Some(0.25), "the last stop counts");
    }
}
