//! The rows of `linecard bench events`, as a table or as JSON lines.

use std::io::{self, BufWriter, Write};

use linecard::eal::CoreId;
use serde::Serialize;

use super::{Event, Figure};
use crate::Error;
use crate::bootstrap::{self, Interval};
use crate::pair::hand_over;
use crate::stats::Summary;

/// A figure that a case gives in each round.
pub(super) struct Metric {
    /// The name, behind that of the case; may be empty.
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// The reference, and how the figure is compared with it.
    pub(super) reference: Option<(&'static str, Comparison)>,
}

/// How a figure is compared with its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Comparison {
    /// The figure over its reference.
    Ratio,
    /// The figure less its reference, in the same unit.
    Difference,
}

/// One row of the result.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    bench: &'static str,
    case: String,
    unit: &'static str,
    linecard: Summary,
    /// The name of the reference.
    beside: Option<&'static str>,
    reference: Option<Summary>,
    comparison: Option<Comparison>,
    /// The comparisons within rounds: their median, with its 95 % confidence interval.
    interval: Option<Interval>,
    runs: usize,
}

/// Returns a row per metric of a case; none without rounds.
pub(super) fn rows(case: &dyn Event, rounds: &[Vec<Figure>]) -> Vec<Row> {
    let of = |(at, metric): (usize, &Metric)| {
        let figures: Vec<Figure> = rounds.iter().filter_map(|round| round.get(at).copied()).collect();
        row(case.name(), metric, &figures)
    };
    case.metrics().iter().enumerate().filter_map(of).collect()
}

fn row(case: String, metric: &Metric, figures: &[Figure]) -> Option<Row> {
    let ours: Vec<f64> = figures.iter().map(|figure| figure.linecard).collect();
    let references: Vec<f64> = figures.iter().filter_map(|figure| figure.reference).collect();
    let comparison = metric.reference.map(|(_, comparison)| comparison);
    let compare = |(ours, reference): (&f64, &f64)| {
        Some(match comparison? {
            Comparison::Ratio => ours / reference,
            Comparison::Difference => ours - reference,
        })
    };
    let compared: Vec<f64> = ours.iter().zip(&references).filter_map(compare).collect();
    Some(Row {
        bench: "events",
        case: if metric.name.is_empty() { case } else { format!("{case}, {}", metric.name) },
        unit: metric.unit,
        linecard: Summary::of(&ours)?,
        beside: metric.reference.map(|(name, _)| name),
        reference: Summary::of(&references),
        comparison,
        interval: bootstrap::paired(&compared),
        runs: ours.len(),
    })
}

/// Prints the rows.
pub(super) fn print(rows: &[Row], cores: [CoreId; 2], json: bool) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        for row in rows {
            serde_json::to_writer(&mut out, row).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    } else {
        let [first, second] = cores;
        let cycles = hand_over(cores)?;
        writeln!(out, "cores {first} and {second}; a cache line changes cores in {cycles:.0} cycles")?;
        table(&mut out, rows)?;
    }
    Ok(out.flush()?)
}

fn table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let width = rows.iter().map(|row| row.case.len()).max().unwrap_or(0);
    let heads = ["unit", "linecard (min..max)", "reference (min..max)", "compared (95 %)"];
    writeln!(out, "{:<width$}  {:>4}  {:>26}  {:>40}  {:>26}", "", heads[0], heads[1], heads[2], heads[3])?;
    for row in rows {
        let spread =
            |summary: Summary| format!("{:.2} ({:.2}..{:.2})", summary.median, summary.min, summary.max);
        let reference = match (row.beside, row.reference) {
            (Some(name), Some(summary)) => format!("{name} {}", spread(summary)),
            _ => String::new(),
        };
        let sign = if row.comparison == Some(Comparison::Ratio) { "×" } else { "+" };
        let compared = row.interval.map_or_else(String::new, |interval| {
            format!("{sign}{:.2} ({:.2}..{:.2})", interval.median, interval.low, interval.high)
        });
        let (case, unit, ours) = (&row.case, row.unit, spread(row.linecard));
        writeln!(out, "{case:<width$}  {unit:>4}  {ours:>26}  {reference:>40}  {compared:>26}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(comparison: Comparison) -> Row {
        let metric = Metric { name: "p99", unit: "µs", reference: Some(("eventfd", comparison)) };
        let figure = |linecard, reference| Figure { linecard, reference: Some(reference) };
        let figures = [figure(6.0, 4.0), figure(9.0, 6.0), figure(30.0, 20.0)];
        row("a wake-up".into(), &metric, &figures).expect("figures")
    }

    #[test]
    fn figures_are_compared_within_their_rounds() {
        let difference = row_of(Comparison::Difference);
        assert_eq!(difference.interval.map(|interval| interval.median), Some(3.0));
        let ratio = row_of(Comparison::Ratio);
        assert_eq!(ratio.interval, Some(Interval { median: 1.5, low: 1.5, high: 1.5 }));
        let mut table = Vec::new();
        super::table(&mut table, &[difference, ratio]).expect("a table");
        let table = String::from_utf8(table).expect("text");
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("a wake-up, p99 "), "{table}");
        assert!(
            lines[1].contains("9.00 (6.00..30.00)") && lines[1].contains("eventfd 6.00 (4.00..20.00)"),
            "{table}"
        );
        assert!(lines[1].contains("+3.00 (") && lines[2].contains("×1.50 (1.50..1.50)"), "{table}");
    }

    #[test]
    fn a_figure_without_reference_stands_alone() {
        let metric = Metric { name: "", unit: "ms", reference: None };
        let figures = [Figure { linecard: 2.0, reference: None }];
        let row = row("a way back".into(), &metric, &figures).expect("a figure");
        let json = serde_json::to_value(&row).expect("json");
        assert_eq!((&json["case"], &json["linecard"]["max"]), (&"a way back".into(), &2.0.into()));
        assert!(
            json["reference"].is_null() && json["interval"].is_null() && json["beside"].is_null(),
            "{json}"
        );
        assert!(super::row(String::new(), &metric, &[]).is_none());
    }
}
