//! The result as a table for people or as JSON lines.

use std::io::{self, BufWriter, Write};

use super::cell::Subject;
use super::result::Row;
use super::statistics::Interval;
use crate::bench::Error;
use crate::bench::stats::Summary;

/// One JSON object per row.
pub(crate) fn json(rows: &[Row]) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    for row in rows {
        serde_json::to_writer(&mut out, row).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

/// What the columns are.
pub(crate) const HEADS: [&str; 8] = [
    "position",
    "path",
    "Mpps (min..max)",
    "over dpdk/dpdk",
    "over its best path",
    "of ceiling",
    "runs",
    "rejected",
];

/// The cells of a row, as wide as they are.
pub(crate) fn cells(row: &Row) -> [String; 8] {
    let interval = |interval: Option<Interval>| {
        interval.map_or_else(String::new, |i| format!("{:.2} ({:.2}..{:.2})", i.median, i.low, i.high))
    };
    let rate = |mpps: Summary| format!("{:.2} ({:.2}..{:.2})", mpps.median, mpps.min, mpps.max);
    let ceiling = row.subject == Subject::Ceiling;
    [
        row.position.to_owned(),
        if ceiling { String::new() } else { row.path.to_owned() },
        row.mpps.map_or_else(|| "none".to_owned(), rate),
        interval(row.ratio),
        interval(row.ratio_best),
        row.ceiling.filter(|_| !ceiling).map_or_else(String::new, |share| format!("{:.0} %", share * 100.0)),
        row.runs.to_string(),
        row.rejected.to_string(),
    ]
}

/// Rows with the same load, in order.
pub(crate) fn by_load(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| a.load == b.load)
}

/// What a group of rows has in common.
pub(crate) fn load_title(row: &Row) -> String {
    let unit = if row.size == "imix" { "" } else { " bytes" };
    format!("{}{unit}, ring {}, burst {}", row.size, row.ring, row.burst)
}

/// The table, below the lines of `setting`.
pub(crate) fn table(rows: &[Row], setting: &[String]) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    write_table(&mut out, rows, setting)?;
    Ok(out.flush()?)
}

fn write_table(out: &mut impl Write, rows: &[Row], setting: &[String]) -> io::Result<()> {
    for line in setting {
        writeln!(out, "{line}")?;
    }
    for group in by_load(rows) {
        let lines: Vec<[String; 8]> =
            std::iter::once(HEADS.map(str::to_owned)).chain(group.iter().map(cells)).collect();
        let width = |at: usize| lines.iter().map(|line| line[at].len()).max().unwrap_or(0);
        writeln!(out, "\n{}", group.first().map_or_else(String::new, load_title))?;
        for line in &lines {
            let text: Vec<String> =
                line.iter()
                    .enumerate()
                    .map(|(at, cell)| {
                        if at < 2 {
                            format!("{cell:<0$}", width(at))
                        } else {
                            format!("{cell:>0$}", width(at))
                        }
                    })
                    .collect();
            writeln!(out, "{}", text.join("  ").trim_end())?;
        }
    }
    for (row, note) in rows.iter().filter_map(|row| Some((row, row.note.as_ref()?))) {
        writeln!(out, "no samples of {} {}: {note}", row.position, row.path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::loopback::cell::{Load, Position, Size};
    use crate::bench::loopback::path::Path;
    use crate::bench::loopback::{markdown, result};

    fn rows() -> Vec<Row> {
        let mut rows = result::rows(&result::tests::outcome());
        let load = Load { size: Size::Imix, ring: 256, burst: 1 };
        rows.push(result::absent(Position::DpdkOurs, Path::Split, load, "no dpdk-testpmd"));
        rows
    }

    #[test]
    fn the_table_has_a_part_per_load_and_says_what_is_missing() {
        let mut text = Vec::new();
        write_table(&mut text, &rows(), &["the setting".into()]).expect("memory is writable");
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(text.starts_with("the setting\n\n64 bytes, ring 1024, burst 32\n"), "{text}");
        assert!(text.contains("\nimix, ring 256, burst 1\n"), "{text}");
        assert!(text.contains("40.00 (40.00..40.00)") && text.contains("50 %"), "{text}");
        assert!(text.ends_with("no samples of dpdk/ours split: no dpdk-testpmd\n"), "{text}");
    }

    #[test]
    fn markdown_tables_are_rectangular() {
        let text =
            markdown::text(&rows(), &["the setting".into()], "linecard bench", &[Some("a.svg".into())]);
        let table: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(table.len(), 2 * 2 + rows().len());
        assert!(table.iter().all(|line| line.matches('|').count() == HEADS.len() + 1), "{text}");
        assert!(text.contains("![Rates at 64 bytes, ring 1024, burst 32](a.svg)"), "{text}");
    }
}
