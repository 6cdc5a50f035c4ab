//! From samples to rows.

use serde::Serialize;

use super::cell::{Load, Position, Subject};
use super::machine::State;
use super::schedule::{Outcome, Record, Rejected};
use super::statistics::{Interval, ratio};
use crate::bench::stats::Summary;

/// One row of the result, and one JSON line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    /// `backend/frontend`, or `ceiling`.
    pub(crate) position: &'static str,
    pub(crate) path: &'static str,
    /// Bytes of a packet, or `imix`.
    pub(crate) size: String,
    pub(crate) ring: u16,
    pub(crate) burst: u16,
    /// Million packets per second and direction; `None` when there is no sample.
    pub(crate) mpps: Option<Summary>,
    /// Over DPDK at both ends on the same path.
    pub(crate) ratio: Option<Interval>,
    /// Over DPDK at both ends on its best path with the same kind of ring.
    pub(crate) ratio_best: Option<Interval>,
    /// That path.
    pub(crate) best_path: Option<&'static str>,
    /// Share of the ceiling loop's rate.
    pub(crate) ceiling: Option<f64>,
    /// Samples that count.
    pub(crate) runs: usize,
    /// Samples that do not.
    pub(crate) rejected: u32,
    pub(crate) rejected_for: Rejected,
    /// The state all samples were taken in.
    pub(crate) state: Option<State>,
    /// Median of the time a cache line takes to the other core, in time-stamp cycles.
    pub(crate) hand_over: Option<f64>,
    /// Median of core cycles per time-stamp cycle.
    pub(crate) clock: Option<f64>,
    /// Why there are no samples.
    pub(crate) note: Option<String>,
    #[serde(skip)]
    pub(crate) subject: Subject,
    #[serde(skip)]
    pub(crate) load: Load,
}

/// The rows of everything that was tried.
pub(crate) fn rows(outcome: &Outcome) -> Vec<Row> {
    let book = Book { records: &outcome.records, state: outcome.state };
    outcome.records.iter().map(|record| book.row(record)).collect()
}

/// The row of a pair that cannot be measured.
pub(crate) fn absent(position: Position, path: super::path::Path, load: Load, why: &str) -> Row {
    let record = Record::unmeasured(Subject::Pair(position, path), load, why);
    Book { records: &[], state: None }.row(&record)
}

struct Book<'a> {
    records: &'a [Record],
    state: Option<State>,
}

impl Book<'_> {
    fn row(&self, record: &Record) -> Row {
        let load = record.cell.load;
        let (position, path) = match record.cell.subject {
            Subject::Pair(position, path) => (position.name(), path.name()),
            Subject::Ceiling => ("ceiling", "ceiling"),
        };
        let mpps = self.rates(record);
        let best = self.best(record);
        let ceiling = self.find(Subject::Ceiling, load).and_then(|other| ratio(&mpps, &self.rates(other)));
        let median = |of: fn(&super::machine::Probe) -> f64| {
            let values: Vec<f64> = self.samples(record).map(|sample| of(&sample.probe)).collect();
            Summary::of(&values).map(|summary| summary.median)
        };
        Row {
            bench: "loopback",
            position,
            path,
            size: load.size.to_string(),
            ring: load.ring,
            burst: load.burst,
            mpps: Summary::of(&mpps),
            ratio: self.same_path(record).and_then(|other| ratio(&mpps, &self.rates(other))),
            ratio_best: best.and_then(|(_, other)| ratio(&mpps, &self.rates(other))),
            best_path: best.map(|(name, _)| name),
            ceiling: ceiling.map(|interval| interval.median),
            runs: mpps.len(),
            rejected: record.rejected.total(),
            rejected_for: record.rejected,
            state: self.state.filter(|_| !mpps.is_empty()),
            hand_over: median(|probe| probe.hand_over),
            clock: median(|probe| probe.clock),
            note: record.trouble.clone().filter(|_| mpps.is_empty()),
            subject: record.cell.subject,
            load,
        }
    }

    fn samples<'r>(&self, record: &'r Record) -> impl Iterator<Item = &'r super::schedule::Sample> + use<'r> {
        self.state.into_iter().flat_map(|state| record.in_state(state))
    }

    fn rates(&self, record: &Record) -> Vec<f64> {
        self.samples(record).map(|sample| sample.mpps).collect()
    }

    fn find(&self, subject: Subject, load: Load) -> Option<&Record> {
        self.records.iter().find(|record| record.cell.subject == subject && record.cell.load == load)
    }

    fn same_path(&self, record: &Record) -> Option<&Record> {
        let Subject::Pair(_, path) = record.cell.subject else { return None };
        self.find(Subject::Pair(Position::DpdkDpdk, path), record.cell.load)
    }

    /// DPDK's quickest path with the same kind of ring and the same load.
    fn best(&self, record: &Record) -> Option<(&'static str, &Record)> {
        let Subject::Pair(_, path) = record.cell.subject else { return None };
        let candidates = self.records.iter().filter_map(|other| match other.cell.subject {
            Subject::Pair(Position::DpdkDpdk, theirs)
                if theirs.packed() == path.packed() && other.cell.load == record.cell.load =>
            {
                Some((Summary::of(&self.rates(other))?.median, theirs.name(), other))
            }
            _ => None,
        });
        candidates.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name, other)| (name, other))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::loopback::cell::{Cell, Size};
    use crate::bench::loopback::machine::Probe;
    use crate::bench::loopback::path::Path;
    use crate::bench::loopback::schedule::Sample;

    const LOAD: Load = Load { size: Size::Bytes(64), ring: 1024, burst: 32 };

    fn record(subject: Subject, rates: &[(f64, State)]) -> Record {
        let mut record = Record::new(Cell { subject, load: LOAD });
        let probe = Probe { hand_over: 400.0, clock: 1.4 };
        record.samples = rates.iter().map(|&(mpps, state)| Sample { mpps, state, probe }).collect();
        record
    }

    pub(crate) fn outcome() -> Outcome {
        use State::{Common, Far};
        let pair = Subject::Pair;
        let records = vec![
            record(Subject::Ceiling, &[(80.0, Common)]),
            record(pair(Position::OursOurs, Path::Packed), &[(40.0, Common), (12.0, Far), (40.0, Common)]),
            record(pair(Position::DpdkDpdk, Path::Packed), &[(16.0, Common), (16.0, Common)]),
            record(pair(Position::DpdkDpdk, Path::PackedInorder), &[(20.0, Common)]),
            record(pair(Position::DpdkDpdk, Path::Split), &[(30.0, Common)]),
        ];
        Outcome { records, state: Some(Common), cut_short: None, dpdk_version: None }
    }

    #[test]
    fn a_row_has_the_promised_fields_and_only_one_state() {
        let json = serde_json::to_value(&rows(&outcome())[1]).expect("json");
        assert_eq!(json["bench"], "loopback");
        assert_eq!(json["position"], "ours/ours");
        assert_eq!(json["path"], "packed");
        assert_eq!((&json["size"], &json["ring"], &json["burst"]), (&"64".into(), &1024.into(), &32.into()));
        assert_eq!(json["mpps"], serde_json::json!({"median": 40.0, "min": 40.0, "max": 40.0}));
        assert_eq!(json["ratio"], serde_json::json!({"median": 2.5, "low": 2.5, "high": 2.5}));
        assert_eq!(json["ratio_best"]["median"], 2.0);
        assert_eq!(json["best_path"], "packed-inorder");
        assert_eq!(json["ceiling"], 0.5);
        assert_eq!((&json["runs"], &json["state"]), (&2.into(), &"common".into()));
        assert!(json.get("rejected").is_some_and(serde_json::Value::is_number));
    }

    #[test]
    fn an_absent_peer_is_null_with_a_reason() {
        let row = absent(Position::DpdkOurs, Path::Split, LOAD, "dpdk-testpmd is not on PATH");
        let json = serde_json::to_value(row).expect("json");
        assert!(json["mpps"].is_null() && json["ratio"].is_null() && json["state"].is_null());
        assert_eq!(json["note"], "dpdk-testpmd is not on PATH");
    }
}
