//! When what is measured: every cell once per run, there and back in turn (A B, B A), probes around each sample, and a
//! second chance for what the machine spoiled.

use std::time::Instant;

use super::cell::{Cell, Load, Position, Subject};
use super::console::Failure;
use super::machine::{Limits, Probe, State};
use super::sample::{Bed, Figure};
use crate::bench::Error;

/// A sample that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) mpps: f64,
    pub(crate) state: State,
    pub(crate) probe: Probe,
}

/// Samples that do not count, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rejected {
    /// The machine's state changed meanwhile, or is not the one that is compared.
    pub(crate) state: u32,
    /// Something else took the cores.
    pub(crate) disturbed: u32,
    /// A program failed.
    pub(crate) failed: u32,
}

impl Rejected {
    pub(crate) fn total(self) -> u32 {
        self.state + self.disturbed + self.failed
    }
}

/// All samples of a cell.
pub(crate) struct Record {
    pub(crate) cell: Cell,
    pub(crate) samples: Vec<Sample>,
    pub(crate) rejected: Rejected,
    /// Why the last failed sample failed.
    pub(crate) trouble: Option<String>,
}

impl Record {
    pub(crate) fn new(cell: Cell) -> Self {
        Self { cell, samples: Vec::new(), rejected: Rejected::default(), trouble: None }
    }

    /// The record of what cannot be measured.
    pub(crate) fn unmeasured(subject: Subject, load: Load, why: &str) -> Self {
        Self { trouble: Some(why.to_owned()), ..Self::new(Cell { subject, load }) }
    }

    pub(crate) fn in_state(&self, state: State) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.state == state)
    }

    /// A pair that never worked is not tried for ever.
    fn hopeless(&self) -> bool {
        self.samples.is_empty() && self.rejected.failed >= HOPELESS
    }
}

/// Failures without a single success after which a cell is left alone.
const HOPELESS: u32 = 3;
/// Tries of one sample in one run.
const TRIES: u32 = 3;

/// How samples are taken.
pub(crate) struct Schedule<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) runs: u32,
    pub(crate) limits: Limits,
    /// No sample starts after this.
    pub(crate) deadline: Option<Instant>,
    /// Told about each sample.
    pub(crate) progress: &'a mut dyn FnMut(&Progress<'_>),
}

/// A word on a sample for whoever waits.
pub(crate) struct Progress<'a> {
    pub(crate) cell: &'a Cell,
    pub(crate) run: u32,
    pub(crate) said: String,
}

/// What a run left behind.
pub(crate) struct Outcome {
    pub(crate) records: Vec<Record>,
    /// The state most samples were taken in.
    pub(crate) state: Option<State>,
    /// Whether the run ended before its time, and why.
    pub(crate) cut_short: Option<&'static str>,
    pub(crate) dpdk_version: Option<String>,
}

/// Why no more samples are taken.
enum End {
    Interrupted,
    OutOfTime,
    Broken(Error),
}

impl Schedule<'_> {
    /// Measures `cells`.
    ///
    /// # Errors
    /// A core that cannot be used. A pair that does not work is reported in its record.
    pub(crate) fn run(mut self, cells: Vec<Cell>) -> Result<Outcome, Error> {
        let records = cells.into_iter().map(Record::new).collect();
        let mut outcome = Outcome { records, state: None, cut_short: None, dpdk_version: None };
        match self.all(&mut outcome) {
            Ok(()) => {}
            Err(End::Interrupted) => outcome.cut_short = Some("interrupted"),
            Err(End::OutOfTime) => outcome.cut_short = Some("out of time"),
            Err(End::Broken(error)) => return Err(error),
        }
        outcome.state = most_common(&outcome.records);
        if let Some(state) = outcome.state {
            for record in &mut outcome.records {
                let other = record.samples.len() - record.in_state(state).count();
                record.rejected.state += u32::try_from(other).unwrap_or(u32::MAX);
            }
        }
        Ok(outcome)
    }

    fn all(&mut self, outcome: &mut Outcome) -> Result<(), End> {
        for run in 0..self.runs {
            self.round(run, outcome, |_| true)?;
        }
        // What the machine spoiled gets as many rounds again.
        for run in self.runs..2 * self.runs {
            let Some(state) = most_common(&outcome.records) else { return Ok(()) };
            let wanted = usize::try_from(self.runs).unwrap_or(usize::MAX);
            let short = |record: &Record| record.in_state(state).count() < wanted;
            if !outcome.records.iter().any(|record| short(record) && !record.hopeless()) {
                return Ok(());
            }
            self.round(run, outcome, short)?;
        }
        Ok(())
    }

    /// Every wanted cell once; odd rounds go backwards.
    fn round(
        &mut self,
        run: u32,
        outcome: &mut Outcome,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<(), End> {
        let count = outcome.records.len();
        for step in 0..count {
            let at = if run.is_multiple_of(2) { step } else { count - 1 - step };
            let record = &mut outcome.records[at];
            if wanted(record) && !record.hopeless() {
                self.sample(run, record, &mut outcome.dpdk_version)?;
            }
        }
        Ok(())
    }

    /// One sample of a cell, tried again while the machine spoils it.
    fn sample(&mut self, run: u32, record: &mut Record, version: &mut Option<String>) -> Result<(), End> {
        for _ in 0..TRIES {
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(End::OutOfTime);
            }
            let (said, good) = self.attempt(record, version)?;
            (self.progress)(&Progress { cell: &record.cell, run, said });
            if good {
                break;
            }
        }
        Ok(())
    }

    fn attempt(&self, record: &mut Record, version: &mut Option<String>) -> Result<(String, bool), End> {
        let before = Probe::take(self.bed.cores).map_err(End::Broken)?;
        let figure = match self.figure(record.cell, version) {
            Ok(figure) => figure,
            Err(Failure::Interrupted) => return Err(End::Interrupted),
            Err(Failure::Program(trouble)) => {
                record.rejected.failed += 1;
                record.trouble = Some(trouble.clone());
                return Ok((format!("failed: {trouble}"), false));
            }
        };
        let after = Probe::take(self.bed.cores).map_err(End::Broken)?;
        let disturbance = figure.disturbance;
        if !disturbance.within(&self.limits) {
            record.rejected.disturbed += 1;
            let said = format!(
                "{:.2} Mpps, rejected: cores taken away {:.1} %, stolen {:.1} %, {:.0} switches/s",
                figure.mpps,
                disturbance.waited * 100.0,
                disturbance.stolen * 100.0,
                disturbance.switches
            );
            return Ok((said, false));
        }
        let Some(state) = before.until(&after) else {
            record.rejected.state += 1;
            let said = format!(
                "{:.2} Mpps, rejected: a line took {:.0} cycles before and {:.0} after, the clock {:.2} and {:.2}",
                figure.mpps, before.hand_over, after.hand_over, before.clock, after.clock
            );
            return Ok((said, false));
        };
        record.samples.push(Sample { mpps: figure.mpps, state, probe: after });
        Ok((format!("{:.2} Mpps, {} ({:.0} cycles)", figure.mpps, state.name(), after.hand_over), true))
    }

    fn figure(&self, cell: Cell, version: &mut Option<String>) -> Result<Figure, Failure> {
        match cell.subject {
            Subject::Ceiling => self.bed.ceiling(cell.load),
            Subject::Pair(position, path) => {
                let (figure, log) = self.bed.closed_loop(position, path, cell.load)?;
                if position == Position::DpdkDpdk && version.is_none() {
                    *version = dpdk_version(&log);
                }
                Ok(figure)
            }
        }
    }
}

/// DPDK prints `EAL: RTE Version: 'DPDK 22.11.7'` when asked with `-v`.
fn dpdk_version(log: &str) -> Option<String> {
    let line = log.lines().find_map(|line| line.split_once("RTE Version: "))?;
    Some(line.1.trim().trim_matches('\'').to_owned())
}

/// The state in which the fewest cells are without samples; of several, the one with most samples.
fn most_common(records: &[Record]) -> Option<State> {
    let weight = |state: State| {
        let counts = records.iter().map(|record| record.in_state(state).count());
        counts.fold((0, 0), |(cells, samples), count| (cells + usize::from(count > 0), samples + count))
    };
    let states = [State::Far, State::Near, State::Common];
    states
        .into_iter()
        .map(|state| (weight(state), state))
        .filter(|(weight, _)| weight.1 > 0)
        .max_by_key(|x| x.0)
        .map(|x| x.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::loopback::cell::Size;

    fn record(states: &[State]) -> Record {
        let load = Load { size: Size::Bytes(64), ring: 256, burst: 32 };
        let mut record = Record::new(Cell { subject: Subject::Ceiling, load });
        let probe = Probe { hand_over: 400.0, clock: 1.4 };
        record.samples = states.iter().map(|&state| Sample { mpps: 1.0, state, probe }).collect();
        record
    }

    #[test]
    fn the_state_that_serves_most_cells_is_compared() {
        use State::{Common, Far, Near};
        assert_eq!(most_common(&[]), None);
        assert_eq!(most_common(&[record(&[])]), None);
        assert_eq!(most_common(&[record(&[Near, Near, Near]), record(&[Far]), record(&[Far])]), Some(Far));
        assert_eq!(most_common(&[record(&[Near, Far, Near]), record(&[Far, Near])]), Some(Near));
        assert_eq!(most_common(&[record(&[Near, Common])]), Some(Common));
    }

    #[test]
    fn a_cell_that_never_works_is_given_up() {
        let mut record = record(&[]);
        record.rejected.failed = HOPELESS;
        assert!(record.hopeless());
        record.samples = self::record(&[State::Near]).samples;
        assert!(!record.hopeless());
    }

    #[test]
    fn dpdk_says_its_version() {
        let log = "EAL: Detected CPU lcores: 2\nEAL: RTE Version: 'DPDK 22.11.7'\nEAL: more\n";
        assert_eq!(dpdk_version(log).as_deref(), Some("DPDK 22.11.7"));
        assert_eq!(dpdk_version("nothing"), None);
    }
}
