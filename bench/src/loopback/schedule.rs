//! The schedule of samples: every cell once per run, in alternating order (A B, B A), with a probe of the
//! machine before and after each sample, and further attempts for rejected ones.

use std::time::Instant;

use super::cell::{Cell, Position, Subject};
use super::console::{Failure, Interrupted, apart};
use super::kind::Kind;
use super::machine::{Disturbance, Limits, Probe, State};
use super::raw::{SampleFile, SavedSamples, Values};
use super::testbed::{Figure, Testbed};
use crate::Error;

/// An accepted sample.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) values: Values,
    pub(crate) state: State,
    pub(crate) probe: Probe,
    /// The round in which the row took turns with others, as a time in milliseconds; 0 if it ran by itself.
    pub(crate) round: u64,
}

/// A sample, or the reason for its rejection and an explanation.
pub(crate) type Attempt = Result<Sample, (Reason, String)>;

/// The reason why a sample is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The machine's state changed during the sample.
    State,
    /// Other work used the cores.
    Disturbed,
    /// A program failed.
    Failed,
}

/// Numbers of rejected samples, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rejected {
    /// The machine's state changed during the sample, or differs from the compared one.
    pub(crate) state: u32,
    /// Other work used the cores.
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
    /// The explanation of the last failure.
    pub(crate) trouble: Option<String>,
    /// Rounds in which the cell was measured.
    pub(crate) turns: u32,
}

impl Record {
    pub(crate) fn new(cell: Cell) -> Self {
        Self { cell, samples: Vec::new(), rejected: Rejected::default(), trouble: None, turns: 0 }
    }

    /// Creates the record of a cell that cannot be measured.
    pub(crate) fn unmeasured(cell: Cell, why: &str) -> Self {
        Self { trouble: Some(why.to_owned()), ..Self::new(cell) }
    }

    /// Counts a rejected sample.
    pub(crate) fn reject(&mut self, reason: Reason, why: &str) {
        match reason {
            Reason::State => self.rejected.state += 1,
            Reason::Disturbed => self.rejected.disturbed += 1,
            Reason::Failed => {
                self.rejected.failed += 1;
                self.trouble = Some(why.to_owned());
            }
        }
    }

    /// Whether there are `runs` samples in the compared state.
    pub(crate) fn full(&self, state: Option<State>, runs: u32) -> bool {
        let count = state.map_or(0, |state| self.in_state(state).count());
        count >= usize::try_from(runs).unwrap_or(usize::MAX)
    }

    pub(crate) fn in_state(&self, state: State) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.state == state)
    }

    /// Whether the pair never worked, so that further attempts are useless.
    pub(crate) fn hopeless(&self) -> bool {
        self.samples.is_empty() && self.rejected.failed >= HOPELESS
    }
}

/// Failures without a success after which a cell is not measured any more.
const HOPELESS: u32 = 3;
/// Attempts of one sample in one run.
const TRIES: u32 = 3;

/// The parameters of the schedule.
pub(crate) struct Schedule<'a> {
    pub(crate) testbed: &'a Testbed,
    pub(crate) runs: u32,
    pub(crate) limits: Limits,
    /// Whether all rows are alive at the same time and take turns.
    pub(crate) together: bool,
    /// No sample starts after this time.
    pub(crate) deadline: Option<Instant>,
    /// The file for samples, if any.
    pub(crate) book: Option<SampleFile>,
    /// Called for each sample.
    pub(crate) progress: &'a mut dyn FnMut(&Progress<'_>),
}

/// The progress report of a sample.
pub(crate) struct Progress<'a> {
    pub(crate) cell: &'a Cell,
    pub(crate) run: u32,
    pub(crate) said: String,
}

/// The result of a run.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) records: Vec<Record>,
    /// The state of most samples.
    pub(crate) state: Option<State>,
    /// The reason, if the run ended early.
    pub(crate) cut_short: Option<&'static str>,
    pub(crate) dpdk_version: Option<String>,
}

/// The reason why sampling ends.
pub(crate) enum End {
    Interrupted,
    OutOfTime,
    Broken(Error),
}

impl From<Interrupted> for End {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

impl Schedule<'_> {
    /// Measures `cells`.
    ///
    /// # Errors
    /// A core that cannot be used, or a file that cannot be written. Failing pairs are noted in records.
    pub(crate) fn run(mut self, cells: Vec<Cell>, before: SavedSamples) -> Result<Outcome, Error> {
        let mut outcome = Outcome::of(before);
        for &cell in &cells {
            if !outcome.records.iter().any(|record| record.cell == cell) {
                outcome.records.push(Record::new(cell));
            }
        }
        let result = if self.together {
            self.all_together(&mut outcome, &cells)
        } else {
            self.all(&mut outcome, &cells)
        };
        outcome.settle();
        match result {
            Ok(()) => {}
            Err(End::Interrupted) => outcome.cut_short = Some("interrupted"),
            Err(End::OutOfTime) => outcome.cut_short = Some("out of time"),
            Err(End::Broken(error)) => return Err(error),
        }
        Ok(outcome)
    }

    /// Runs rounds until every requested cell has its samples in the compared state; at most twice as many as
    /// requested, to replace rejected samples.
    fn all(&mut self, outcome: &mut Outcome, cells: &[Cell]) -> Result<(), End> {
        let runs = self.runs;
        let wanted = |outcome: &Outcome, record: &Record| {
            let state = outcome.compared();
            cells.contains(&record.cell) && !record.hopeless() && !record.full(state, runs)
        };
        let first = |outcome: &Outcome| {
            let open = outcome.records.iter().filter(|record| wanted(outcome, record));
            open.map(|record| record.turns).min()
        };
        let Some(start) = first(outcome) else { return Ok(()) };
        for run in start..(start + runs).max(2 * runs) {
            let count = outcome.records.len();
            for step in 0..count {
                // Odd rounds run in reverse order.
                let at = if run.is_multiple_of(2) { step } else { count - 1 - step };
                if outcome.records[at].turns <= run && wanted(outcome, &outcome.records[at]) {
                    self.sample(run, &mut outcome.records[at], &mut outcome.dpdk_version)?;
                }
            }
            if first(outcome).is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Takes one sample of a cell, with further attempts if it is rejected.
    fn sample(&mut self, run: u32, record: &mut Record, version: &mut Option<String>) -> Result<(), End> {
        for _ in 0..TRIES {
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(End::OutOfTime);
            }
            let (said, good) = self.attempt(run, record, version)?;
            (self.progress)(&Progress { cell: &record.cell, run, said });
            if good {
                break;
            }
        }
        record.turns = run + 1;
        Ok(())
    }

    /// Makes one attempt; returns its description, and whether it was accepted.
    fn attempt(
        &mut self,
        run: u32,
        record: &mut Record,
        version: &mut Option<String>,
    ) -> Result<(String, bool), End> {
        let attempt = self.take(record.cell, version)?;
        self.file(run, record, attempt)
    }

    /// Stores an attempt; returns its description, and whether it was accepted.
    pub(crate) fn file(
        &mut self,
        run: u32,
        record: &mut Record,
        attempt: Attempt,
    ) -> Result<(String, bool), End> {
        if let Some(book) = &mut self.book {
            book.note(&record.cell, run, &attempt).map_err(End::Broken)?;
        }
        match attempt {
            Ok(sample) => {
                let Sample { state, probe, values, .. } = &sample;
                let (figure, hand_over) = (told(&record.cell, values), probe.hand_over);
                let said = format!("{figure} ({hand_over:.0} cycles), {}", state.name());
                record.samples.push(sample);
                Ok((said, true))
            }
            Err((reason, why)) => {
                record.reject(reason, &why);
                Ok((if reason == Reason::Failed { format!("failed: {why}") } else { why }, false))
            }
        }
    }

    /// Takes a sample between two probes of the machine, or returns the reason for its rejection.
    fn take(&mut self, cell: Cell, version: &mut Option<String>) -> Result<Attempt, End> {
        let before = self.testbed.probe().map_err(End::Broken)?;
        let figure = match apart(self.figure(cell, version))? {
            Ok(figure) => figure,
            Err(trouble) => return Ok(Err((Reason::Failed, trouble))),
        };
        let after = self.testbed.probe().map_err(End::Broken)?;
        if let Some(why) = self.disturbed(&cell, &figure) {
            return Ok(Err((Reason::Disturbed, why)));
        }
        let said = told(&cell, &figure.values);
        let state = if self.limits.any_state { Some(State::Any) } else { before.until(&after) };
        let Some(state) = state else {
            let why = format!(
                "{said}, rejected: a line took {:.0} cycles before and {:.0} after, the clock {:.2} and {:.2}",
                before.hand_over, after.hand_over, before.clock, after.clock
            );
            return Ok(Err((Reason::State, why)));
        };
        Ok(Ok(Sample { values: figure.values, state, probe: after, round: 0 }))
    }

    /// Returns an explanation if other work used too much of the cores.
    pub(crate) fn disturbed(&self, cell: &Cell, figure: &Figure) -> Option<String> {
        let Disturbance { waited, stolen, switches } = figure.disturbance;
        (!figure.disturbance.within(&self.limits)).then(|| {
            format!(
                "{}, rejected: cores taken away {:.1} %, stolen {:.1} %, {switches:.0} switches/s",
                told(cell, &figure.values),
                waited * 100.0,
                stolen * 100.0,
            )
        })
    }

    fn figure(&mut self, cell: Cell, version: &mut Option<String>) -> Result<Figure, Failure> {
        let Cell { kind, load, .. } = cell;
        let (position, path) = match cell.subject {
            Subject::Pair(position, path) => (position, path),
            Subject::Memif(memif) => {
                return Ok(self.testbed.closed_loop(self.testbed.memif(memif, load)?, load)?.0);
            }
            Subject::Ceiling => return self.testbed.ceiling(load, self.testbed.warm_up, self.testbed.window),
        };
        match kind {
            Kind::Closed => {
                let (figure, log) =
                    self.testbed.closed_loop(self.testbed.pair(position, path, load)?, load)?;
                self.learn(position, &log, version)?;
                Ok(figure)
            }
            Kind::Open(offer) => self.testbed.open_loop(position, path, load, offer),
            Kind::ZeroLoss => self.testbed.zero_loss(position, path, load),
            Kind::Latency => self.testbed.latency(position, path, load),
            Kind::Spare => self.testbed.spare(position, path, load),
            Kind::Startup => self.testbed.startup(position, path, load),
        }
    }

    /// Reads DPDK's version from a log, once.
    pub(crate) fn learn(
        &mut self,
        position: Position,
        log: &str,
        version: &mut Option<String>,
    ) -> Result<(), Failure> {
        if position != Position::DpdkDpdk || version.is_some() {
            return Ok(());
        }
        *version = dpdk_version(log);
        if let (Some(book), Some(version)) = (&mut self.book, version) {
            book.note_dpdk(version).map_err(|error| Failure::Program(error.to_string()))?;
        }
        Ok(())
    }
}

impl Outcome {
    /// Starts with the saved samples.
    pub(crate) fn of(pages: SavedSamples) -> Self {
        let SavedSamples { records, dpdk_version, .. } = pages;
        Self { records, state: None, cut_short: None, dpdk_version }
    }

    /// The state whose samples are compared at present.
    pub(crate) fn compared(&self) -> Option<State> {
        most_common(&self.records)
    }

    /// Selects the compared state, and counts samples of others as rejected.
    pub(crate) fn settle(&mut self) {
        self.state = self.compared();
        let Some(state) = self.state else { return };
        for record in &mut self.records {
            let other = record.samples.len() - record.in_state(state).count();
            record.rejected.state += u32::try_from(other).unwrap_or(u32::MAX);
        }
    }
}

/// Formats the main figure.
fn told(cell: &Cell, values: &Values) -> String {
    let main = cell.kind.main();
    let value = values.get(&main).copied().unwrap_or(f64::NAN);
    format!("{value:.2} {}", main.unit())
}

/// Parses `EAL: RTE Version: 'DPDK 22.11.7'`, which DPDK prints with `-v`.
fn dpdk_version(log: &str) -> Option<String> {
    let line = log.lines().find_map(|line| line.split_once("RTE Version: "))?;
    Some(line.1.trim().trim_matches('\'').to_owned())
}

/// Returns the state in which most cells have samples; among equals, the one with most samples.
fn most_common(records: &[Record]) -> Option<State> {
    let weight = |state: State| {
        let counts = records.iter().map(|record| record.in_state(state).count());
        counts.fold((0, 0), |(cells, samples), count| (cells + usize::from(count > 0), samples + count))
    };
    let states = [State::Turns, State::Any, State::Alone, State::Far, State::Near, State::Common];
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
    use crate::loopback::cell::{Load, Size};

    fn record(states: &[State]) -> Record {
        let load = Load { size: Size::Bytes(64), ring: 256, burst: 32 };
        let mut record = Record::new(Cell { kind: Kind::Closed, subject: Subject::Ceiling, load });
        let probe = Probe { hand_over: 400.0, clock: 1.4 };
        record.samples =
            states.iter().map(|&state| Sample { values: Values::new(), state, probe, round: 0 }).collect();
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
