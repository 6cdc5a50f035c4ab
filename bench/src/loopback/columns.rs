//! The columns of the table for each kind of sample.

use super::cell::Subject;
use super::kind::{Kind, Metric};
use super::result::Row;
use crate::bootstrap::Interval;
use crate::stats::Summary;

/// A column: its heading, and a function that returns its cell in a row.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    pub(crate) cell: Box<dyn Fn(&Row) -> String>,
}

fn column(head: &'static str, cell: impl Fn(&Row) -> String + 'static) -> Column {
    Column { head, cell: Box::new(cell) }
}

/// A figure with its range.
fn spread(head: &'static str, metric: Metric) -> Column {
    column(head, move |row| summary(row.figure(metric), if row.runs == 0 { "none" } else { "" }))
}

/// The median of a figure.
fn middle(head: &'static str, metric: Metric) -> Column {
    column(head, move |row| row.figure(metric).map_or_else(String::new, |s| format!("{:.2}", s.median)))
}

/// A count, summed over all samples.
fn count(head: &'static str, metric: Metric) -> Column {
    column(head, move |row| row.counts.get(&metric).map_or_else(String::new, u64::to_string))
}

/// A ratio to DPDK's figure.
fn over(head: &'static str, metric: Metric) -> Column {
    column(head, move |row| {
        let ratio = if metric == row.kind.main() { row.ratio } else { row.ratios.get(&metric).copied() };
        interval(ratio)
    })
}

/// A share of time, in percent.
fn busy(head: &'static str, metric: Metric) -> Column {
    column(head, move |row| row.figure(metric).map_or_else(String::new, |s| percent(s.median)))
}

fn summary(summary: Option<Summary>, none: &str) -> String {
    summary.map_or_else(|| none.to_owned(), |s| format!("{:.2} ({:.2}..{:.2})", s.median, s.min, s.max))
}

fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |i| format!("{:.2} ({:.2}..{:.2})", i.median, i.low, i.high))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Returns the columns of a kind, position and path first, samples last; `memif` adds the ratio to memif.
pub(crate) fn of(kind: Kind, memif: bool) -> Vec<Column> {
    let mut columns = vec![column("position", |row| row.position.to_owned()), column("path", path)];
    columns.extend(figures(kind));
    if memif {
        columns.push(column("over memif", |row| interval(row.ratio_memif)));
    }
    columns.push(column("runs", |row| row.runs.to_string()));
    columns.push(column("rejected", |row| row.rejected.to_string()));
    columns
}

fn path(row: &Row) -> String {
    if row.cell.subject == Subject::Ceiling { String::new() } else { row.path.to_owned() }
}

fn figures(kind: Kind) -> Vec<Column> {
    let best = || column("over its best path", |row| interval(row.ratio_best));
    match kind {
        Kind::Closed => vec![
            spread("Mpps (min..max)", Metric::Mpps),
            over("over dpdk/dpdk", Metric::Mpps),
            best(),
            column("of ceiling", |row| {
                let share = row.ceiling.filter(|_| row.cell.subject != Subject::Ceiling);
                share.map_or_else(String::new, percent)
            }),
        ],
        Kind::Open(_) => vec![
            middle("offered Mpps", Metric::OfferedMpps),
            spread("Mpps back (min..max)", Metric::Mpps),
            over("over dpdk", Metric::Mpps),
            count("sent", Metric::Sent),
            count("lost", Metric::Lost),
            count("duplicated", Metric::Duplicated),
            count("reordered", Metric::Reordered),
            count("corrupted", Metric::Corrupted),
            middle("p50 µs", Metric::P50),
            middle("p90 µs", Metric::P90),
            middle("p99 µs", Metric::P99),
            middle("p99.9 µs", Metric::P999),
            middle("max µs", Metric::Max),
        ],
        Kind::ZeroLoss => vec![
            spread("no loss, Mpps (min..max)", Metric::Mpps),
            over("over dpdk", Metric::Mpps),
            best(),
            spread("0.5 % loss, Mpps (min..max)", Metric::Pdr),
            over("over dpdk", Metric::Pdr),
            middle("offered at most", Metric::OfferedMpps),
        ],
        Kind::Latency => vec![
            spread("p50 µs (min..max)", Metric::P50),
            over("over dpdk/dpdk", Metric::P50),
            spread("p99 µs (min..max)", Metric::P99),
            over("over dpdk/dpdk", Metric::P99),
            middle("p99.9 µs", Metric::P999),
            middle("max µs", Metric::Max),
            middle("low load p50", Metric::LowP50),
            over("over dpdk/dpdk", Metric::LowP50),
            middle("low load p99", Metric::LowP99),
            over("over dpdk/dpdk", Metric::LowP99),
        ],
        Kind::Spare => vec![
            spread("Mpps (min..max)", Metric::Mpps),
            spread("spare cycles per packet (min..max)", Metric::Work),
            busy("backend busy", Metric::BusyBackend),
            busy("frontend busy", Metric::BusyFrontend),
        ],
        Kind::Startup => vec![
            spread("exec to first packet, ms (min..max)", Metric::ExecMs),
            over("over dpdk", Metric::ExecMs),
            spread("connection to first packet, ms (min..max)", Metric::ConnectMs),
            over("over dpdk", Metric::ConnectMs),
            middle("memory MB", Metric::MemoryMb),
            over("over dpdk", Metric::MemoryMb),
            middle("of it hugepages", Metric::HugeMb),
            middle("of it shared", Metric::ShmemMb),
        ],
    }
}
