//! The rows of the result, as a table or as JSON lines.

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::middle::Kind;
use crate::Error;
use crate::bootstrap::{self, Interval};
use crate::stats::Summary;

/// The number of failures after which a switch is not measured any more.
const HOPELESS: u32 = 2;

/// The rates of one switch at one length.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) size: u16,
    /// Million frames per second each way, by turn.
    rates: Vec<(u32, f64)>,
    failures: u32,
    why: Option<String>,
}

impl Row {
    /// Creates a row; `absent` is the reason if it cannot be measured at all.
    pub(super) fn new(kind: Kind, size: u16, absent: Option<String>) -> Self {
        let failures = if absent.is_some() { HOPELESS } else { 0 };
        Self { kind, size, rates: Vec::new(), failures, why: absent }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.failures < HOPELESS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rates.is_empty()
    }

    /// Returns the reason for missing samples.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.why.as_deref()
    }

    pub(super) fn push(&mut self, run: u32, outcome: Result<f64, String>) {
        match outcome {
            Ok(rate) => self.rates.push((run, rate)),
            Err(why) => {
                self.failures += 1;
                self.why = Some(why);
            }
        }
    }

    fn summary(&self) -> Option<Summary> {
        let rates: Vec<f64> = self.rates.iter().map(|(_, rate)| *rate).collect();
        Summary::of(&rates)
    }

    /// Returns the ratio of `ours` to this row, in the turns that both have.
    fn behind(&self, ours: &Self) -> Option<Interval> {
        let in_turn = |run: u32| self.rates.iter().find(|(other, _)| *other == run).map(|(_, rate)| *rate);
        let ratios: Vec<f64> =
            ours.rates.iter().filter_map(|(run, rate)| in_turn(*run).map(|theirs| rate / theirs)).collect();
        bootstrap::paired(&ratios)
    }

    fn json(&self, ours: Option<&Self>) -> Value {
        json!({
            "bench": "switch",
            "switch": self.kind.name(),
            "size": self.size,
            "unit": "Mpps each way",
            "mpps": self.summary(),
            "linecard_ratio": ours.and_then(|ours| self.behind(ours)),
            "runs": self.rates.len(),
            "note": self.why,
        })
    }
}

/// Returns the row of our switch at the length of `row`, unless that is `row` itself.
fn ours<'a>(rows: &'a [Row], row: &Row) -> Option<&'a Row> {
    let found = rows.iter().find(|other| other.kind == Kind::Linecard && other.size == row.size);
    found.filter(|_| row.kind != Kind::Linecard)
}

/// Prints the rows; `setting` is printed above the table.
pub(super) fn print(rows: &[Row], setting: &str, json: bool) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        for row in rows {
            serde_json::to_writer(&mut out, &row.json(ours(rows, row))).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    } else {
        table(&mut out, rows, setting)?;
    }
    Ok(out.flush()?)
}

fn table(out: &mut impl Write, rows: &[Row], setting: &str) -> io::Result<()> {
    writeln!(out, "{setting}")?;
    writeln!(
        out,
        "{:<22}  {:>24}  {:>10}  {:>12}",
        "Mpps each way", "median (min..max)", "linecard /", "95 %"
    )?;
    for row in rows {
        let rate = match (row.summary(), &row.why) {
            (Some(rate), _) => format!("{:.2} ({:.2}..{:.2})", rate.median, rate.min, rate.max),
            (None, Some(why)) => why.clone(),
            (None, None) => String::new(),
        };
        let (ratio, sure) =
            ours(rows, row).and_then(|ours| row.behind(ours)).map_or_else(Default::default, |ratio| {
                (format!("{:.2}", ratio.median), format!("{:.2}..{:.2}", ratio.low, ratio.high))
            });
        let name = format!("{} {} B", row.kind.name(), row.size);
        writeln!(out, "{}", format!("{name:<22}  {rate:>24}  {ratio:>10}  {sure:>12}").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Row; 3] {
        let mut rows = [Kind::Linecard, Kind::DpdkIo, Kind::Ovs].map(|kind| Row::new(kind, 64, None));
        for (run, rate) in [(0, 10.0), (1, 12.0), (2, 12.0)] {
            rows[0].push(run, Ok(rate));
        }
        rows[1].push(0, Ok(5.0));
        rows[1].push(1, Err("it ended".into()));
        rows[1].push(2, Ok(6.0));
        rows
    }

    #[test]
    fn ratios_are_those_of_turns_that_both_have() {
        let rows = rows();
        let json = rows[1].json(ours(&rows, &rows[1]));
        assert_eq!(json["linecard_ratio"]["median"].as_f64(), Some(2.0));
        assert_eq!((json["runs"].as_u64(), json["note"].as_str()), (Some(2), Some("it ended")));
        assert!(rows[0].json(ours(&rows, &rows[0]))["linecard_ratio"].is_null());
        assert!(rows[2].json(ours(&rows, &rows[2]))["mpps"].is_null());
    }

    #[test]
    fn what_cannot_be_measured_says_why_in_the_table() {
        let mut rows = rows();
        rows[2] = Row::new(Kind::Ovs, 64, Some("it is not installed".into()));
        assert!(!rows[2].is_wanted());
        let mut text = Vec::new();
        table(&mut text, &rows, "setting").expect("memory is writable");
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("ovs 64 B") && text.contains("it is not installed"), "{text}");
        assert!(text.contains("12.00 (10.00..12.00)"), "{text}");
    }

    #[test]
    fn a_switch_that_fails_twice_is_left_alone() {
        let mut row = Row::new(Kind::DpdkIo, 64, None);
        row.push(0, Err("one".into()));
        assert!(row.is_wanted());
        row.push(1, Err("two".into()));
        assert!(!row.is_wanted() && row.is_empty() && row.trouble() == Some("two"));
    }
}
