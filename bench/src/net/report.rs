//! The rows of the result, as a table or as JSON lines.

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::cell::{Cell, Question, Side};
use super::sample::Figure;
use crate::Error;
use crate::bootstrap::{self, Interval};
use crate::stats::Summary;

/// The number of failures after which a side is not measured any more.
const HOPELESS: u32 = 2;

/// The failures of one side.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    why: Option<String>,
}

/// One line of the result.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) cell: Cell,
    /// The figures of each turn, by side.
    pairs: Vec<[Option<Figure>; 3]>,
    troubles: [Trouble; 3],
}

impl Row {
    pub(crate) fn new(cell: Cell) -> Self {
        Self { cell, pairs: Vec::new(), troubles: Default::default() }
    }

    fn figures(&self, side: Side) -> impl Iterator<Item = Figure> {
        self.pairs.iter().filter_map(move |pair| pair[side as usize])
    }

    fn values(&self, side: Side) -> Vec<f64> {
        self.figures(side).map(|figure| figure.value).collect()
    }

    /// Whether to measure this side again.
    pub(crate) fn wants(&self, side: Side) -> bool {
        self.figures(side).next().is_some() || self.troubles[side as usize].failures < HOPELESS
    }

    /// Begins a new turn, whose figures are compared.
    pub(crate) fn next_pair(&mut self) {
        self.pairs.push([None; 3]);
    }

    pub(crate) fn push(&mut self, side: Side, figure: Figure) {
        if let Some(pair) = self.pairs.last_mut() {
            pair[side as usize] = Some(figure);
        }
    }

    pub(crate) fn failed(&mut self, side: Side, why: String) {
        let trouble = &mut self.troubles[side as usize];
        trouble.failures += 1;
        trouble.why = Some(why);
    }

    /// Whether our side has no figures.
    pub(crate) fn is_empty(&self) -> bool {
        self.figures(Side::Linecard).next().is_none()
    }

    /// Returns the reason why our side has no figures.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.troubles[Side::Linecard as usize].why.clone().filter(|_| self.is_empty())
    }

    fn note(&self) -> Option<String> {
        let told = |side: Side| {
            let trouble = &self.troubles[side as usize];
            let name = side.name(self.cell.question);
            trouble.why.as_ref().map(|why| format!("{name} failed {} times: {why}", trouble.failures))
        };
        let all: Vec<String> = Side::ALL.into_iter().filter_map(told).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn second(&self, side: Side) -> Option<f64> {
        let all: Vec<f64> = self.figures(side).map(|figure| figure.second).collect();
        Summary::of(&all).map(|summary| summary.median)
    }

    /// Returns the ratio of our median to another side's.
    fn ratio(&self, other: Side) -> Option<f64> {
        let ours = Summary::of(&self.values(Side::Linecard))?;
        Some(ours.median / Summary::of(&self.values(other))?.median)
    }

    /// Returns the median of the ratios within turns: changes of the machine between turns cancel out.
    fn paired_ratio(&self, other: Side) -> Option<Interval> {
        let of = |pair: &[Option<Figure>; 3], side: Side| pair[side as usize].map(|figure| figure.value);
        let pair = |pair: &[Option<Figure>; 3]| Some(of(pair, Side::Linecard)? / of(pair, other)?);
        let ratios: Vec<f64> = self.pairs.iter().filter_map(pair).collect();
        bootstrap::paired(&ratios)
    }

    fn json(&self) -> Value {
        let question = self.cell.question;
        let side = |side: Side| {
            let values = self.values(side);
            let mut value = Summary::of(&values).map(|rate| {
                json!({ "median": rate.median, "min": rate.min, "max": rate.max, "runs": values.len() })
            });
            if let (Some(value), Some((_, key))) = (&mut value, question.second()) {
                value[key] = json!(self.second(side));
            }
            value
        };
        let kernel = question.kernel().replace(' ', "_");
        let mut value = json!({
            "bench": "net",
            "question": question.name(),
            "driver": self.cell.kind.map(super::cell::Kind::name),
            "direction": self.cell.direction.map(super::cell::Direction::name),
            "size": self.cell.size,
            "unit": question.unit(),
            "linecard": side(Side::Linecard),
            "dpdk": side(Side::Dpdk),
            "ratio": self.ratio(Side::Dpdk),
            "paired_ratio": self.paired_ratio(Side::Dpdk),
            "note": self.note(),
        });
        value[&kernel] = json!(side(Side::Kernel));
        value[format!("ratio_{kernel}")] = json!(self.ratio(Side::Kernel));
        value[format!("paired_ratio_{kernel}")] = json!(self.paired_ratio(Side::Kernel));
        value
    }
}

/// Prints the rows; `setting` is printed above the table.
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
    let Some(question) = rows.first().map(|row| row.cell.question) else { return Ok(()) };
    let second = question.second().map_or("", |(head, _)| head);
    let heads = [
        question.unit().to_owned(),
        "linecard (min..max)".into(),
        "dpdk (min..max)".into(),
        format!("{} (min..max)", question.kernel()),
        "/ dpdk (95 %)".into(),
        format!("/ {} (95 %)", question.kernel()),
        second.into(),
    ];
    line(out, &heads)?;
    for row in rows {
        line(out, &columns(row, question))?;
        if let Some(note) = row.note() {
            writeln!(out, "  {note}")?;
        }
    }
    Ok(())
}

fn columns(row: &Row, question: Question) -> [String; 7] {
    let value = |side| Summary::of(&row.values(side)).map_or("absent".to_owned(), spread);
    let pairs = |side| {
        row.paired_ratio(side).map_or(String::new(), |ratio| {
            format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.low, ratio.high)
        })
    };
    let second = |side| row.second(side).map_or("-".to_owned(), |second| format!("{second:.0}"));
    let seconds = Side::ALL.map(second).join("/");
    [
        row.cell.to_string(),
        value(Side::Linecard),
        value(Side::Dpdk),
        value(Side::Kernel),
        pairs(Side::Dpdk),
        pairs(Side::Kernel),
        question.second().map_or(String::new(), |_| seconds),
    ]
}

fn line(out: &mut impl Write, columns: &[String; 7]) -> io::Result<()> {
    let [case, ours, dpdk, kernel, first, second, last] = columns;
    let text =
        format!("{case:<18}  {ours:>22}  {dpdk:>22}  {kernel:>24}  {first:>18}  {second:>22}  {last:>14}");
    writeln!(out, "{}", text.trim_end())
}

fn spread(summary: Summary) -> String {
    format!("{:.3} ({:.3}..{:.3})", summary.median, summary.min, summary.max)
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Direction, Kind};
    use super::*;

    fn row(question: Question) -> Row {
        let (kind, direction) = (Some(Kind::AfPacket), Some(Direction::Tx));
        let mut row = Row::new(Cell { question, kind, direction, size: Some(64) });
        for value in [0.4, 0.5, 0.6] {
            row.next_pair();
            row.push(Side::Linecard, Figure { value, second: 2000.0 });
        }
        row
    }

    #[test]
    fn missing_sides_are_null() {
        let json = row(Question::Rate).json();
        assert_eq!((json["driver"].as_str(), json["direction"].as_str()), (Some("af_packet"), Some("tx")));
        assert_eq!((json["size"].as_u64(), json["linecard"]["median"].as_f64()), (Some(64), Some(0.5)));
        assert!(json["dpdk"].is_null() && json["ratio"].is_null() && json["note"].is_null());
        assert!(json["kernel_loop"].is_null() && json["paired_ratio_kernel_loop"].is_null());
    }

    #[test]
    fn all_sides_have_ratios_and_failures_are_told() {
        let mut row = row(Question::Rate);
        row.push(Side::Dpdk, Figure { value: 0.3, second: 4000.0 });
        row.failed(Side::Dpdk, "it ended early".into());
        row.failed(Side::Dpdk, "it ended early".into());
        assert!(row.wants(Side::Dpdk), "it works now and then");
        row.push(Side::Kernel, Figure { value: 0.8, second: 1000.0 });
        let json = row.json();
        // The ratio of the turn that has both, not that of medians.
        assert_eq!(json["paired_ratio"]["median"].as_f64(), Some(2.0));
        assert_eq!(json["kernel_loop"]["cpu_ns"].as_f64(), Some(1000.0));
        let ratio = json["paired_ratio_kernel_loop"]["median"].as_f64().expect("both were measured");
        assert!((ratio - 0.75).abs() < 1e-9, "{ratio}");
        let mut text = Vec::new();
        table(&mut text, &[row], "setting").expect("memory is writable");
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("af_packet tx 64 B") && text.contains("2.00 (2.00..2.00)"), "{text}");
        assert!(text.contains("kernel loop (min..max)") && text.contains("2000/4000/1000"), "{text}");
        assert!(text.contains("dpdk failed 2 times: it ended early"), "{text}");
    }

    #[test]
    fn other_questions_name_their_own_columns() {
        let mut row = row(Question::Containers);
        row.push(Side::Kernel, Figure { value: 0.06, second: 0.0 });
        let json = row.json();
        assert_eq!(json["bridge"]["median"].as_f64(), Some(0.06));
        assert!(json["linecard"]["cpu_ns"].is_null() && json["unit"] == "Mpps", "{json}");
        let mut text = Vec::new();
        table(&mut text, &[row], "setting").expect("memory is writable");
        assert!(String::from_utf8_lossy(&text).contains("/ bridge (95 %)"));
        assert_eq!((Question::Tcp.kernel(), Question::Tcp.unit()), ("veth", "Gbit/s"));
    }
}
