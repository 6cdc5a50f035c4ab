//! The result as Markdown, for `docs/performance.md`.

use std::fmt::Write as _;

use super::report::{HEADS, by_load, cells, load_title};
use super::result::Row;

/// The whole result; `setting` becomes a list, `charts` are files beside the text.
pub(crate) fn text(rows: &[Row], setting: &[String], command: &str, charts: &[Option<String>]) -> String {
    let mut text = format!("```sh\n{command}\n```\n\n");
    for line in setting {
        let _ = writeln!(text, "- {line}");
    }
    for (at, group) in by_load(rows).enumerate() {
        let title = group.first().map_or_else(String::new, load_title);
        let _ = writeln!(text, "\n### {title}\n");
        if let Some(Some(chart)) = charts.get(at) {
            let _ = writeln!(text, "![Rates at {title}]({chart})\n");
        }
        let _ = writeln!(text, "| {} |", HEADS.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---:|".repeat(HEADS.len() - 2));
        for row in group {
            let _ = writeln!(text, "| {} |", cells(row).join(" | "));
        }
    }
    let notes: Vec<_> = rows.iter().filter_map(|row| Some((row, row.note.as_ref()?))).collect();
    if !notes.is_empty() {
        text.push('\n');
    }
    for (row, note) in notes {
        let _ = writeln!(text, "- No samples of {} {}: {note}", row.position, row.path);
    }
    text
}
