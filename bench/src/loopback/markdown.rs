//! The result as Markdown, for `docs/guide/performance.md`.

use std::fmt::Write as _;

use super::report::{by_group, lines, notes, title};
use super::result::Row;

/// Returns the whole result; `setting` becomes a list, `charts` are the names of files beside the text.
pub(crate) fn text(rows: &[Row], setting: &[String], command: &str, charts: &[Option<String>]) -> String {
    let mut text = format!("```sh\n{command}\n```\n\n");
    for line in setting {
        let _ = writeln!(text, "- {line}");
    }
    for (at, group) in by_group(rows).enumerate() {
        let title = group.first().map_or_else(String::new, title);
        let _ = writeln!(text, "\n### {title}\n");
        if let Some(Some(chart)) = charts.get(at) {
            let _ = writeln!(text, "![{title}]({chart})\n");
        }
        for (at, line) in lines(group).iter().enumerate() {
            let _ = writeln!(text, "| {} |", line.join(" | "));
            if at == 0 {
                let _ = writeln!(text, "|---|---|{}", "---:|".repeat(line.len().saturating_sub(2)));
            }
        }
    }
    let notes = notes(rows);
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}
