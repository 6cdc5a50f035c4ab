//! Calculates the rows of the result from the samples.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::cell::{Cell, Position, Subject};
use super::kind::{Kind, Metric};
use super::machine::{Probe, State};
use super::path::Path;
use super::schedule::{Outcome, Record, Rejected, Sample};
use crate::bootstrap::{Interval, paired, ratio};
use crate::stats::Summary;

/// One row of the result, which is also one line of JSON.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    #[serde(serialize_with = "as_text")]
    pub(crate) kind: Kind,
    /// `backend/frontend`, or `ceiling`.
    pub(crate) position: &'static str,
    pub(crate) path: &'static str,
    /// Bytes of a packet, or `imix`.
    pub(crate) size: String,
    pub(crate) ring: u16,
    pub(crate) burst: u16,
    /// Million packets per second and direction; `None` without samples, or if this kind has no such figure.
    pub(crate) mpps: Option<Summary>,
    /// Ratio of the main figure to that of DPDK in the same position, on the same path.
    pub(crate) ratio: Option<Interval>,
    /// Ratio to DPDK on its best path with the same kind of ring.
    pub(crate) ratio_best: Option<Interval>,
    /// That path.
    pub(crate) best_path: Option<&'static str>,
    /// Ratio to DPDK's net_memif, in the better of its two modes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_memif: Option<Interval>,
    /// Share of the ceiling loop's rate.
    pub(crate) ceiling: Option<f64>,
    /// Sums over all samples: packets sent, lost, duplicated, reordered, corrupted.
    #[serde(flatten)]
    pub(crate) counts: BTreeMap<Metric, u64>,
    /// Round trips: the medians over the samples, but for the maximum the maximum.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) latency_us: BTreeMap<Metric, f64>,
    /// All other figures.
    pub(crate) figures: BTreeMap<Metric, Summary>,
    /// Ratios of further figures to DPDK's.
    pub(crate) ratios: BTreeMap<Metric, Interval>,
    /// Accepted samples.
    pub(crate) runs: usize,
    /// Rejected samples.
    pub(crate) rejected: u32,
    pub(crate) rejected_for: Rejected,
    /// The state of the machine in all samples.
    pub(crate) state: Option<State>,
    /// Median of the time that a cache line takes to the other core, in time-stamp cycles.
    pub(crate) hand_over: Option<f64>,
    /// Median of core cycles per time-stamp cycle.
    pub(crate) clock: Option<f64>,
    /// The reason why there are no samples.
    pub(crate) note: Option<String>,
    #[serde(skip)]
    pub(crate) cell: Cell,
}

fn as_text<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(kind)
}

impl Row {
    /// Returns the summary of a figure; `None` if it has no samples.
    pub(crate) fn figure(&self, metric: Metric) -> Option<Summary> {
        self.figures.get(&metric).copied()
    }
}

/// Returns the rows of all records, in order.
pub(crate) fn rows(outcome: &Outcome) -> Vec<Row> {
    let all = Compared { records: &outcome.records, state: outcome.state };
    let mut rows: Vec<Row> = outcome.records.iter().map(|record| all.row(record)).collect();
    sort(&mut rows);
    rows
}

/// Returns the row of a cell that cannot be measured.
pub(crate) fn absent(cell: Cell, why: &str) -> Row {
    Compared { records: &[], state: None }.row(&Record::unmeasured(cell, why))
}

/// Sorts by kind and load, then by path and position; the ceiling comes last.
pub(crate) fn sort(rows: &mut [Row]) {
    rows.sort_by_cached_key(|row| {
        let Cell { kind, subject, load } = row.cell;
        let subject = match subject {
            Subject::Pair(position, path) => (path as usize, position as usize),
            Subject::Memif(memif) => (usize::MAX - 1, memif as usize),
            Subject::Ceiling => (usize::MAX, 0),
        };
        let load = (load.size.longest(), load.size.parts().len(), load.ring, load.burst);
        (kind.rank(), load, subject)
    });
}

/// The records to compare; only samples of one state of the machine are compared with each other.
struct Compared<'a> {
    records: &'a [Record],
    state: Option<State>,
}

impl Compared<'_> {
    fn row(&self, record: &Record) -> Row {
        let Cell { kind, subject, load } = record.cell;
        let (position, path) = subject.names();
        let (main, baseline) = (self.figures(record, kind.main()), self.baseline(record, None));
        let over = |other: Option<&Record>, metric| other.and_then(|other| self.over(record, other, metric));
        let best = self.best(record);
        let ceiling = self.records.iter().find(|other| {
            other.cell == Cell { kind: Kind::Closed, subject: Subject::Ceiling, load } && kind == Kind::Closed
        });
        let also = kind.also().iter();
        Row {
            bench: "loopback",
            kind,
            position,
            path,
            size: load.size.to_string(),
            ring: load.ring,
            burst: load.burst,
            mpps: Summary::of(&self.figures(record, Metric::Mpps)),
            ratio: over(baseline, kind.main()),
            ratio_best: over(best.map(|(_, other)| other), kind.main()),
            best_path: best.map(|(name, _)| name),
            ratio_memif: over(self.memif(record), Metric::Mpps),
            ceiling: over(ceiling, Metric::Mpps).map(|interval| interval.median),
            counts: self.counts(record),
            latency_us: self.latency(record),
            figures: self.summaries(record),
            ratios: also.filter_map(|&metric| Some((metric, over(baseline, metric)?))).collect(),
            runs: main.len(),
            rejected: record.rejected.total(),
            rejected_for: record.rejected,
            state: self.state.filter(|_| !main.is_empty()),
            hand_over: self.median(record, |probe| probe.hand_over),
            clock: self.median(record, |probe| probe.clock),
            note: record.trouble.clone().filter(|_| main.is_empty()),
            cell: record.cell,
        }
    }

    fn samples<'r>(&self, record: &'r Record) -> impl Iterator<Item = &'r Sample> + use<'r> {
        self.state.into_iter().flat_map(|state| record.in_state(state))
    }

    fn median(&self, record: &Record, of: fn(&Probe) -> f64) -> Option<f64> {
        let values: Vec<f64> = self.samples(record).map(|sample| of(&sample.probe)).collect();
        Summary::of(&values).map(|summary| summary.median)
    }

    fn figures(&self, record: &Record, metric: Metric) -> Vec<f64> {
        self.samples(record).filter_map(|sample| sample.values.get(&metric).copied()).collect()
    }

    /// Returns the ratio within rounds in which both took turns, else that of all samples of the state.
    fn over(&self, record: &Record, other: &Record, metric: Metric) -> Option<Interval> {
        let value = |sample: &Sample| sample.values.get(&metric).copied();
        let same = |round: u64| self.samples(other).find(|other| other.round == round && round > 0);
        let ratios: Vec<f64> = self
            .samples(record)
            .filter_map(|sample| Some(value(sample)? / value(same(sample.round)?)?))
            .collect();
        paired(&ratios).or_else(|| ratio(&self.figures(record, metric), &self.figures(other, metric)))
    }

    fn metrics(&self, record: &Record) -> Vec<Metric> {
        let mut metrics: Vec<Metric> = self.samples(record).flat_map(|s| s.values.keys().copied()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sums of counts")]
    fn counts(&self, record: &Record) -> BTreeMap<Metric, u64> {
        let counts = self.metrics(record).into_iter().filter(|metric| metric.counts());
        counts.map(|metric| (metric, self.figures(record, metric).iter().sum::<f64>() as u64)).collect()
    }

    fn latency(&self, record: &Record) -> BTreeMap<Metric, f64> {
        let of = |metric| {
            let summary = Summary::of(&self.figures(record, metric))?;
            Some((metric, if metric == Metric::Max { summary.max } else { summary.median }))
        };
        Metric::ROUND_TRIP.into_iter().filter_map(of).collect()
    }

    fn summaries(&self, record: &Record) -> BTreeMap<Metric, Summary> {
        let metrics = self.metrics(record).into_iter().filter(|metric| !metric.counts());
        metrics.filter_map(|metric| Some((metric, Summary::of(&self.figures(record, metric))?))).collect()
    }

    /// Returns DPDK's record in the same position with the same load; on `path`, or on the same path.
    fn baseline(&self, record: &Record, path: Option<Path>) -> Option<&Record> {
        let Cell { kind, load, .. } = record.cell;
        let Subject::Pair(position, own) = record.cell.subject else { return None };
        let subject = Subject::Pair(position.baseline(), path.unwrap_or(own));
        self.records.iter().find(|other| other.cell == Cell { kind, subject, load })
    }

    /// Returns the faster of memif's two modes, with the load of a pair.
    fn memif(&self, record: &Record) -> Option<&Record> {
        let Cell { kind: Kind::Closed, load, subject: Subject::Pair(..) } = record.cell else { return None };
        let of = |other: &Record| matches!(other.cell.subject, Subject::Memif(_)) && other.cell.load == load;
        let median = |other: &&Record| Some(Summary::of(&self.figures(other, Metric::Mpps))?.median);
        let measured = self.records.iter().filter(|other| of(other)).filter_map(|o| Some((median(&o)?, o)));
        measured.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
    }

    /// Returns DPDK's best path with the same kind of ring and the same load.
    fn best(&self, record: &Record) -> Option<(&'static str, &Record)> {
        let Cell { kind, load, .. } = record.cell;
        let Subject::Pair(position, path) = record.cell.subject else { return None };
        let candidates = self.records.iter().filter_map(|other| match other.cell.subject {
            Subject::Pair(theirs, way)
                if theirs == position.baseline()
                    && way.packed() == path.packed()
                    && (other.cell.kind, other.cell.load) == (kind, load) =>
            {
                Some((Summary::of(&self.figures(other, kind.main()))?.median, way.name(), other))
            }
            _ => None,
        });
        let better = if kind.main().less_is_better() { f64::min } else { f64::max };
        let best = candidates.reduce(|a, b| if better(a.0, b.0).total_cmp(&a.0).is_eq() { a } else { b });
        best.map(|(_, name, other)| (name, other))
    }
}

/// Returns the positions in which a kind of sample is measured.
pub(crate) const fn positions(kind: Kind) -> &'static [Position] {
    match kind {
        Kind::Closed | Kind::Latency => &Position::PAIRS,
        Kind::Open(_) | Kind::ZeroLoss | Kind::Startup => &Position::TESTED,
        Kind::Spare => &Position::MIXED,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::loopback::cell::{Load, Memif, Size};
    use crate::loopback::kind::Offer;
    use crate::loopback::raw::Values;

    pub(crate) const LOAD: Load = Load { size: Size::Bytes(64), ring: 1024, burst: 32 };

    pub(crate) fn sample(values: Values, state: State) -> Sample {
        Sample { values, state, probe: Probe { hand_over: 400.0, clock: 1.4 }, round: 0 }
    }

    fn record(subject: Subject, rates: &[(f64, State)]) -> Record {
        let mut record = Record::new(Cell { kind: Kind::Closed, subject, load: LOAD });
        let of = |&(mpps, state): &(f64, State)| sample(Values::from([(Metric::Mpps, mpps)]), state);
        record.samples = rates.iter().map(of).collect();
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
        Outcome { records, state: Some(Common), ..Outcome::default() }
    }

    /// Round trips of both programs, on one path.
    pub(crate) fn round_trips() -> Outcome {
        let of = |position, p50: f64| {
            let subject = Subject::Pair(position, Path::Split);
            let mut record = Record::new(Cell { kind: Kind::Latency, subject, load: LOAD });
            let values = [
                (Metric::P50, p50),
                (Metric::P99, 2.0 * p50),
                (Metric::Max, 40.0),
                (Metric::LowP50, 1.5 * p50),
                (Metric::LowP99, 3.0 * p50),
            ];
            record.samples = vec![sample(values.into(), State::Near); 3];
            record
        };
        let records = vec![of(Position::OursOurs, 0.5), of(Position::DpdkDpdk, 1.0)];
        Outcome { records, state: Some(State::Near), ..Outcome::default() }
    }

    fn json(rows: &[Row], position: &str, path: &str) -> serde_json::Value {
        let row = rows.iter().find(|row| row.position == position && row.path == path).expect("a row");
        serde_json::to_value(row).expect("json")
    }

    #[test]
    fn a_row_has_the_promised_fields_and_only_one_state() {
        let json = json(&rows(&outcome()), "ours/ours", "packed");
        assert_eq!((&json["bench"], &json["kind"]), (&"loopback".into(), &"closed".into()));
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
    fn memif_is_compared_by_its_better_mode() {
        let mut outcome = outcome();
        let memif = |mode, mpps| record(Subject::Memif(mode), &[(mpps, State::Common)]);
        outcome.records.extend([memif(Memif::Copy, 10.0), memif(Memif::ZeroCopy, 8.0)]);
        let rows = rows(&outcome);
        assert_eq!(json(&rows, "ours/ours", "packed")["ratio_memif"]["median"], 4.0);
        let copy = json(&rows, "memif", "copy");
        assert!(copy.get("ratio_memif").is_none() && copy["ratio"].is_null(), "{copy}");
        let places: Vec<_> = rows.iter().rev().take(3).map(|row| (row.position, row.path)).collect();
        assert_eq!(places, [("ceiling", "ceiling"), ("memif", "zero-copy"), ("memif", "copy")]);
    }

    #[test]
    fn an_open_loop_adds_losses_and_takes_the_middle_of_round_trips() {
        let subject = Subject::Pair(Position::OursTester, Path::Split);
        let mut record = Record::new(Cell { kind: Kind::Open(Offer::Max), subject, load: LOAD });
        for (lost, p99, max) in [(1.0, 10.0, 70.0), (0.0, 30.0, 50.0), (2.0, 20.0, 60.0)] {
            let values = [(Metric::Mpps, 5.0), (Metric::Lost, lost), (Metric::P99, p99), (Metric::Max, max)];
            record.samples.push(sample(values.into(), State::Near));
        }
        let outcome = Outcome { records: vec![record], state: Some(State::Near), ..Outcome::default() };
        let json = json(&rows(&outcome), "ours/tester", "split");
        assert_eq!((&json["kind"], &json["lost"]), (&"open-max".into(), &3.into()));
        assert_eq!(json["latency_us"], serde_json::json!({"p99": 20.0, "max": 70.0}));
        assert_eq!(json["mpps"]["median"], 5.0);
    }

    #[test]
    fn less_is_better_for_round_trips() {
        let json = json(&rows(&round_trips()), "ours/ours", "split");
        assert_eq!((&json["ratio"]["median"], &json["ratios"]["p99"]["high"]), (&0.5.into(), &0.5.into()));
        assert_eq!((&json["best_path"], &json["mpps"]), (&"split".into(), &serde_json::Value::Null));
        assert_eq!(json["figures"]["low_p99"]["median"], 1.5);
    }

    #[test]
    fn an_absent_peer_is_null_with_a_reason() {
        let subject = Subject::Pair(Position::DpdkOurs, Path::Split);
        let row = absent(Cell { kind: Kind::Closed, subject, load: LOAD }, "dpdk-testpmd is not on PATH");
        let json = serde_json::to_value(row).expect("json");
        assert!(json["mpps"].is_null() && json["ratio"].is_null() && json["state"].is_null());
        assert_eq!(json["note"], "dpdk-testpmd is not on PATH");
    }
}
