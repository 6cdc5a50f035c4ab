//! Rows, as a table or as JSON lines.

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::cell::{Cell, Side};
use super::sample::Figure;
use crate::bench::Error;
use crate::bench::stats::{Samples, Summary};

/// A side that failed so often is not asked again.
const HOPELESS: u32 = 2;

/// What one side showed.
#[derive(Debug, Default)]
struct Record {
    cpu: Vec<f64>,
    failures: u32,
    why: Option<String>,
}

/// One line of the result.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) cell: Cell,
    rates: Samples,
    records: [Record; 2],
}

impl Row {
    pub(crate) fn new(cell: Cell) -> Self {
        Self { cell, rates: Samples::default(), records: Default::default() }
    }

    fn rates(&self, side: Side) -> &[f64] {
        match side {
            Side::Linecard => &self.rates.linecard,
            Side::Dpdk => &self.rates.dpdk,
        }
    }

    /// Whether it makes sense to measure this side again.
    pub(crate) fn wants(&self, side: Side) -> bool {
        !self.rates(side).is_empty() || self.records[side as usize].failures < HOPELESS
    }

    pub(crate) fn push(&mut self, side: Side, figure: Figure) {
        match side {
            Side::Linecard => self.rates.linecard.push(figure.mpps),
            Side::Dpdk => self.rates.dpdk.push(figure.mpps),
        }
        self.records[side as usize].cpu.push(figure.cpu);
    }

    pub(crate) fn failed(&mut self, side: Side, why: String) {
        let record = &mut self.records[side as usize];
        record.failures += 1;
        record.why = Some(why);
    }

    /// Whether nothing of ours was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.rates.linecard.is_empty()
    }

    /// Why there is nothing of ours.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.records[0].why.clone().filter(|_| self.is_empty())
    }

    fn note(&self) -> Option<String> {
        let sides = [Side::Linecard, Side::Dpdk];
        let trouble = sides.map(|side| {
            let record = &self.records[side as usize];
            record.why.as_ref().map(|why| format!("{} failed {} times: {why}", side.name(), record.failures))
        });
        let all: Vec<String> = trouble.into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn cpu(&self, side: Side) -> Option<f64> {
        Summary::of(&self.records[side as usize].cpu).map(|summary| summary.median)
    }

    fn json(&self) -> Value {
        let side = |side: Side| {
            Summary::of(self.rates(side)).map(|rate| {
                json!({ "median": rate.median, "min": rate.min, "max": rate.max, "cpu_ns": self.cpu(side),
                        "runs": self.rates(side).len() })
            })
        };
        json!({
            "bench": "net",
            "driver": self.cell.kind.name(),
            "direction": self.cell.direction.name(),
            "size": self.cell.size,
            "unit": "Mpps",
            "linecard": side(Side::Linecard),
            "dpdk": side(Side::Dpdk),
            "ratio": self.rates.ratio(),
            "paired_ratio": self.rates.paired_ratio(),
            "note": self.note(),
        })
    }
}

/// Prints the rows; `setting` goes above the table.
pub(crate) fn print(rows: &[Row], setting: &str, json: bool) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        for row in rows {
            writeln!(out, "{}", row.json())?;
        }
    } else {
        table(&mut out, rows, setting)?;
    }
    Ok(out.flush()?)
}

fn table(out: &mut impl Write, rows: &[Row], setting: &str) -> io::Result<()> {
    writeln!(out, "{setting}")?;
    let heads = ("Mpps", "linecard (min..max)", "dpdk (min..max)", "ratio", "in pairs", "ns/packet");
    writeln!(
        out,
        "{:<20}  {:>22}  {:>22}  {:>5}  {:>16}  {:>9}",
        heads.0, heads.1, heads.2, heads.3, heads.4, heads.5
    )?;
    for row in rows {
        let rate = |side| Summary::of(row.rates(side)).map_or("absent".to_owned(), spread);
        let ratio = row.rates.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let pairs = row.rates.paired_ratio().map_or(String::new(), |ratio| {
            format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.min, ratio.max)
        });
        let cost = |side| row.cpu(side).map_or("-".to_owned(), |cpu| format!("{cpu:.0}"));
        let cost = format!("{}/{}", cost(Side::Linecard), cost(Side::Dpdk));
        writeln!(
            out,
            "{:<20}  {:>22}  {:>22}  {ratio:>5}  {pairs:>16}  {cost:>9}",
            row.cell.to_string(),
            rate(Side::Linecard),
            rate(Side::Dpdk)
        )?;
        if let Some(note) = row.note() {
            writeln!(out, "  {note}")?;
        }
    }
    Ok(())
}

fn spread(summary: Summary) -> String {
    format!("{:.3} ({:.3}..{:.3})", summary.median, summary.min, summary.max)
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Direction, Kind};
    use super::*;

    fn row() -> Row {
        let mut row = Row::new(Cell { kind: Kind::AfPacket, direction: Direction::Tx, size: 64 });
        for mpps in [0.4, 0.5, 0.6] {
            row.push(Side::Linecard, Figure { mpps, cpu: 2000.0 });
        }
        row
    }

    #[test]
    fn a_missing_dpdk_is_null() {
        let json = row().json();
        assert_eq!((json["driver"].as_str(), json["direction"].as_str()), (Some("af_packet"), Some("tx")));
        assert_eq!((json["size"].as_u64(), json["linecard"]["median"].as_f64()), (Some(64), Some(0.5)));
        assert!(json["dpdk"].is_null() && json["ratio"].is_null() && json["note"].is_null());
    }

    #[test]
    fn both_sides_have_a_ratio_and_failures_are_told() {
        let mut row = row();
        row.push(Side::Dpdk, Figure { mpps: 0.25, cpu: 4000.0 });
        row.failed(Side::Dpdk, "it ended early".into());
        row.failed(Side::Dpdk, "it ended early".into());
        assert!(row.wants(Side::Dpdk), "it works now and then");
        let mut text = Vec::new();
        table(&mut text, &[row], "setting").expect("memory is writable");
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("af_packet tx 64 B") && text.contains("2.00"), "{text}");
        assert!(text.contains("2000/4000") && text.contains("dpdk failed 2 times: it ended early"), "{text}");
    }
}
