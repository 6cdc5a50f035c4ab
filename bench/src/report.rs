//! The rows of the result, as a table or as JSON lines.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::Error;
use super::bootstrap::{self, Interval};
use super::stats::{Samples, Summary};

/// One row of the result.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    bench: &'static str,
    case: String,
    unit: &'static str,
    linecard: Summary,
    /// `None` if DPDK is absent.
    dpdk: Option<Summary>,
    /// Ratio of our median to DPDK's.
    ratio: Option<f64>,
    /// The ratios within pairs of adjacent samples.
    paired_ratio: Option<Summary>,
    /// Their median, with its 95 % confidence interval.
    interval: Option<Interval>,
    runs: usize,
    /// Samples that were preempted in every attempt.
    disturbed: u32,
}

impl Row {
    /// Creates the row of a case; `None` if nothing was measured.
    pub(crate) fn new(
        bench: &'static str,
        case: String,
        unit: &'static str,
        samples: &Samples,
        disturbed: u32,
    ) -> Option<Self> {
        let pairs = samples.pairs();
        Some(Self {
            bench,
            case,
            unit,
            linecard: Summary::of(&samples.linecard)?,
            dpdk: Summary::of(&samples.dpdk),
            ratio: samples.ratio(),
            paired_ratio: Summary::of(&pairs),
            interval: bootstrap::paired(&pairs),
            runs: samples.linecard.len(),
            disturbed,
        })
    }
}

/// Prints the rows; `setting` is printed above the table.
pub(crate) fn print(rows: &[Row], setting: &str, json: bool) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        for row in rows {
            serde_json::to_writer(&mut out, row).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    } else {
        table(&mut out, rows, setting)?;
    }
    Ok(out.flush()?)
}

fn table(out: &mut impl Write, rows: &[Row], setting: &str) -> io::Result<()> {
    writeln!(out, "{setting}")?;
    let unit = rows.first().map_or("", |row| row.unit);
    let width = rows.iter().map(|row| row.case.len()).max().unwrap_or(0).max(4);
    let heads = ("linecard (min..max)", "dpdk (min..max)", "ratio", "95 %");
    writeln!(out, "{:<width$}  {:>26}  {:>26}  {:>6}  {:>12}", unit, heads.0, heads.1, heads.2, heads.3)?;
    for row in rows {
        let dpdk = row.dpdk.map_or("absent".into(), spread);
        let (ratio, sure) = row.interval.map_or_else(Default::default, |ratio| {
            (format!("{:.2}", ratio.median), format!("{:.2}..{:.2}", ratio.low, ratio.high))
        });
        let mark = if row.disturbed > 0 { "  (disturbed)" } else { "" };
        writeln!(
            out,
            "{:<width$}  {:>26}  {dpdk:>26}  {ratio:>6}  {sure:>12}{mark}",
            row.case,
            spread(row.linecard)
        )?;
    }
    Ok(())
}

fn spread(summary: Summary) -> String {
    format!("{:.2} ({:.2}..{:.2})", summary.median, summary.min, summary.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(dpdk: Vec<f64>) -> Row {
        let samples = Samples { linecard: vec![1.0, 2.0, 3.0], dpdk };
        Row::new("ring", "sp/sc single".into(), "cycles/element", &samples, 0).expect("samples")
    }

    #[test]
    fn a_json_row_has_the_promised_fields() {
        let json = serde_json::to_value(row(vec![4.0; 3])).expect("json");
        assert_eq!(json["bench"], "ring");
        assert_eq!(json["case"], "sp/sc single");
        assert_eq!(json["unit"], "cycles/element");
        assert_eq!(json["linecard"]["median"], 2.0);
        assert_eq!(json["dpdk"]["max"], 4.0);
        assert_eq!(json["ratio"], 0.5);
        assert_eq!(json["paired_ratio"]["max"], 0.75);
        assert_eq!((&json["interval"]["median"], &json["interval"]["low"]), (&0.5.into(), &0.25.into()));
    }

    #[test]
    fn an_absent_peer_is_null() {
        let json = serde_json::to_value(row(Vec::new())).expect("json");
        assert!(json["dpdk"].is_null() && json["ratio"].is_null() && json["interval"].is_null());
        let mut text = Vec::new();
        table(&mut text, &[row(Vec::new())], "setting").expect("memory is writable");
        assert!(String::from_utf8_lossy(&text).contains("absent"));
    }
}
