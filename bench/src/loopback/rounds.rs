//! The schedule of rows that take turns: rounds of each group, until every row has its samples.

use std::time::Instant;

use super::cell::{Cell, Subject};
use super::console::apart;
use super::machine::{Probe, State};
use super::schedule::{Attempt, End, Outcome, Progress, Reason, Record, Sample, Schedule};
use super::together::{RowResult, groups};
use linecard_apps_common::clock::unix_ns;

impl Schedule<'_> {
    /// Runs rounds until every cell has its samples; at most twice as many as requested, to replace failed
    /// and disturbed samples.
    pub(crate) fn all_together(&mut self, outcome: &mut Outcome, cells: &[Cell]) -> Result<(), End> {
        let groups = groups(cells);
        let first = outcome.records.iter().map(|record| record.turns).min().unwrap_or(0);
        for run in first..first + 2 * self.runs {
            for group in &groups {
                if self.needs_samples(outcome, group) {
                    self.one(run, outcome, group)?;
                }
            }
        }
        Ok(())
    }

    /// Whether any row of a group still needs samples.
    fn needs_samples(&self, outcome: &Outcome, group: &[Cell]) -> bool {
        let lacks = |record: &Record| !record.hopeless() && !record.full(Some(State::Turns), self.runs);
        outcome.records.iter().any(|record| group.contains(&record.cell) && lacks(record))
    }

    /// Runs one round of a group.
    fn one(&mut self, run: u32, outcome: &mut Outcome, group: &[Cell]) -> Result<(), End> {
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(End::OutOfTime);
        }
        let known = |cell: &Cell| outcome.records.iter().position(|record| record.cell == *cell);
        let rows_in_turn: Vec<usize> =
            group.iter().filter_map(known).filter(|&at| !outcome.records[at].hopeless()).collect();
        let cells: Vec<Cell> = rows_in_turn.iter().map(|&at| outcome.records[at].cell).collect();
        let before = self.testbed.probe().map_err(End::Broken)?;
        let taken = self.testbed.round(&cells)?;
        // The time in milliseconds identifies a round, across runs of the program too.
        let round = unix_ns() / 1_000_000;
        for (&at, taken) in rows_in_turn.iter().zip(taken) {
            let cell = outcome.records[at].cell;
            let attempt = self.judge(cell, taken, before, round, &mut outcome.dpdk_version)?;
            let record = &mut outcome.records[at];
            let (said, _) = self.file(run, record, attempt)?;
            record.turns = run + 1;
            (self.progress)(&Progress { cell: &cell, run, said });
        }
        Ok(())
    }

    /// Turns the result of a row into a sample, or the reason for its rejection.
    fn judge(
        &mut self,
        cell: Cell,
        taken: RowResult,
        probe: Probe,
        round: u64,
        version: &mut Option<String>,
    ) -> Result<Attempt, End> {
        let (figure, log) = match taken {
            Ok(taken) => taken,
            Err(why) => return Ok(Err((Reason::Failed, why))),
        };
        if let Subject::Pair(position, _) = cell.subject
            && let Err(why) = apart(self.learn(position, &log, version))?
        {
            return Ok(Err((Reason::Failed, why)));
        }
        if let Some(why) = self.disturbed(&cell, &figure) {
            return Ok(Err((Reason::Disturbed, why)));
        }
        Ok(Ok(Sample { values: figure.values, state: State::Turns, probe, round }))
    }
}
