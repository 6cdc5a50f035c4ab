//! The result as a table or as JSON lines.

use std::io::{self, BufWriter, Write};

use super::columns;
use super::result::Row;
use crate::Error;

/// Prints one JSON object per row.
pub(crate) fn json(rows: &[Row]) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    for row in rows {
        serde_json::to_writer(&mut out, row).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

/// Groups rows by kind and load, in order.
pub(crate) fn by_group(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| (a.cell.kind, a.cell.load) == (b.cell.kind, b.cell.load))
}

/// Returns the title of a group of rows.
pub(crate) fn title(row: &Row) -> String {
    let unit = if row.size == "imix" { "" } else { " bytes" };
    let kind = row.kind.title();
    let kind = kind.get(..1).map_or(String::new(), str::to_uppercase) + kind.get(1..).unwrap_or_default();
    format!("{kind}: {}{unit}, ring {}, burst {}", row.size, row.ring, row.burst)
}

/// Returns the headings and cells of a group.
pub(crate) fn lines(group: &[Row]) -> Vec<Vec<String>> {
    let Some(first) = group.first() else { return Vec::new() };
    let columns = columns::of(first.kind, group.iter().any(|row| row.ratio_memif.is_some()));
    let heads = columns.iter().map(|column| column.head.to_owned()).collect();
    let cells = group.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect());
    std::iter::once(heads).chain(cells).collect()
}

/// Returns notes about rows without samples, with each reason once per kind.
pub(crate) fn notes(rows: &[Row]) -> Vec<String> {
    let mut notes: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let Some(note) = &row.note else { continue };
        let reason = format!("{}: {note}", row.kind.title());
        let place = format!("{} {} (size {})", row.position, row.path, row.size);
        match notes.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, places)) => places.push(place),
            None => notes.push((reason, vec![place])),
        }
    }
    notes
        .into_iter()
        .map(|(reason, places)| {
            let more = places.len().saturating_sub(1);
            let first = places.first().map_or("", String::as_str);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("no samples of {first}{more}; {reason}")
        })
        .collect()
}

/// Prints the table below the lines of `setting`.
pub(crate) fn table(rows: &[Row], setting: &[String]) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    write_table(&mut out, rows, setting)?;
    Ok(out.flush()?)
}

fn write_table(out: &mut impl Write, rows: &[Row], setting: &[String]) -> io::Result<()> {
    for line in setting {
        writeln!(out, "{line}")?;
    }
    for group in by_group(rows) {
        let lines = lines(group);
        let wide = |text: &String| text.chars().count();
        let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(wide).max().unwrap_or(0);
        writeln!(out, "\n{}", group.first().map_or_else(String::new, title))?;
        for line in &lines {
            let cells = line.iter().enumerate().map(|(at, cell)| {
                let width = width(at);
                if at < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
    }
    notes(rows).iter().try_for_each(|note| writeln!(out, "{note}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::cell::{Cell, Load, Position, Size, Subject};
    use crate::loopback::kind::{Kind, Offer};
    use crate::loopback::path::Path;
    use crate::loopback::{markdown, result};

    fn rows() -> Vec<Row> {
        let mut rows = result::rows(&result::tests::outcome());
        let load = Load { size: Size::Imix, ring: 256, burst: 1 };
        for path in [Path::Split, Path::Packed] {
            let cell = Cell { kind: Kind::Closed, subject: Subject::Pair(Position::DpdkOurs, path), load };
            rows.push(result::absent(cell, "no dpdk-testpmd"));
        }
        rows.extend(result::rows(&result::tests::round_trips()));
        rows
    }

    #[test]
    fn the_table_has_a_part_per_load_and_says_what_is_missing() {
        let mut text = Vec::new();
        write_table(&mut text, &rows(), &["the setting".into()]).expect("memory is writable");
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(text.starts_with("the setting\n\nClosed loop: 64 bytes, ring 1024, burst 32\n"), "{text}");
        assert!(text.contains("\nClosed loop: imix, ring 256, burst 1\n"), "{text}");
        assert!(text.contains("40.00 (40.00..40.00)") && text.contains("50 %"), "{text}");
        assert!(text.contains("Round trip of one packet") && text.contains("0.50 (0.50..0.50)"), "{text}");
        let end = "no samples of dpdk/ours split (size imix) and 1 more; closed loop: no dpdk-testpmd\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn markdown_tables_are_rectangular() {
        let charts = [Some("a.svg".into())];
        let text = markdown::text(&rows(), &["the setting".into()], "linecard bench", &charts);
        let mut lines = text.lines().filter(|line| line.starts_with('|')).peekable();
        let mut tables = 0;
        while let Some(head) = lines.next() {
            tables += 1;
            let columns = head.matches('|').count();
            while let Some(line) = lines.next_if(|line| !line.starts_with("| position")) {
                assert_eq!(line.matches('|').count(), columns, "{text}");
            }
        }
        assert_eq!(tables, 3, "{text}");
        assert!(text.contains("![Closed loop: 64 bytes, ring 1024, burst 32](a.svg)"), "{text}");
    }

    #[test]
    fn every_kind_has_columns_of_its_own() {
        for kind in
            [Kind::Closed, Kind::Open(Offer::Max), Kind::ZeroLoss, Kind::Latency, Kind::Spare, Kind::Startup]
        {
            let columns = columns::of(kind, false);
            assert_eq!((columns[0].head, columns[1].head), ("position", "path"));
            assert!(columns.len() >= 8, "{kind}");
            assert_eq!(columns::of(kind, true).len(), columns.len() + 1);
        }
    }
}
