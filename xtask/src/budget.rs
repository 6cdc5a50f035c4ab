//! Counts instructions per packet of the fast paths with callgrind, and compares them with the committed
//! table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::Value;

/// The committed counts.
const TABLE: &str = "benches/budget.txt";
/// Packets of one trace (`benches/budget.rs`).
const PACKETS: f64 = 16384.0;
/// The tolerated rise of a count, as a share; also the fall from which on an update of the table is
/// suggested.
const SLACK: f64 = 0.02;
/// The counted functions of the trace, in a packet's order; the last replaces the backend's two when frames
/// are copied only once.
const STEPS: [&str; 5] = ["frontend_tx", "backend_rx", "backend_tx", "frontend_rx", "backend_direct"];
/// Names of paths as in `linecard bench loopback`, and the device arguments that select them.
const PATHS: [(&str, &str); 8] = [
    ("split-mergeable", "packed_vq=0,mrg_rxbuf=1,in_order=0"),
    ("split", "packed_vq=0,mrg_rxbuf=0,in_order=0"),
    ("split-inorder-mergeable", "packed_vq=0,mrg_rxbuf=1,in_order=1"),
    ("split-inorder", "packed_vq=0,mrg_rxbuf=0,in_order=1"),
    ("packed-mergeable", "packed_vq=1,mrg_rxbuf=1,in_order=0"),
    ("packed", "packed_vq=1,mrg_rxbuf=0,in_order=0"),
    ("packed-inorder-mergeable", "packed_vq=1,mrg_rxbuf=1,in_order=1"),
    ("packed-inorder", "packed_vq=1,mrg_rxbuf=0,in_order=1"),
];

/// Options of `cargo xtask budget`.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the table anew instead of comparing with it; say in the commit why the counts changed.
    #[arg(long)]
    update: bool,
}

type Counts = BTreeMap<String, [f64; STEPS.len()]>;

/// Counts every path, and compares the counts with the table or writes it.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let trace = build("budget", &[])?;
    let mut counts = Counts::new();
    for (name, arguments) in PATHS {
        let mut row = [0.0; STEPS.len()];
        for (count, step) in row.iter_mut().zip(STEPS) {
            *count = instructions(&trace, arguments, step)? / PACKETS;
        }
        counts.insert(name.to_owned(), row);
    }
    if options.update {
        return std::fs::write(TABLE, table(&counts)).map_err(|e| format!("{TABLE} cannot be written: {e}"));
    }
    let text = std::fs::read_to_string(TABLE)
        .map_err(|e| format!("{TABLE}: {e}; make it with `cargo xtask budget --update`"))?;
    print!("{}", table(&counts));
    compare(&parse(&text)?, &counts)
}

/// Builds the trace `name` like a benchmark, with the package in `more`; returns its path.
pub(crate) fn build(name: &str, more: &[&str]) -> Result<PathBuf, String> {
    let output = Command::new("cargo")
        .args(["bench", "--no-run", "--bench", name, "--message-format", "json-render-diagnostics"])
        .args(more)
        .output()
        .map_err(|e| format!("cargo could not be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("the trace does not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| format!("cargo named no executable for the benchmark {name}"))
}

/// Returns the instructions of one step over the whole trace.
fn instructions(trace: &Path, arguments: &str, step: &str) -> Result<f64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=*measured::{step}*"))
        .arg(trace)
        .arg(arguments)
        .output()
        .map_err(|e| format!("valgrind could not be started ({e}); apt-get install valgrind"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, number)| number.trim().parse::<f64>().ok())
        .filter(|number| output.status.success() && *number > 0.0);
    collected.ok_or_else(|| format!("callgrind counted nothing for {step} on {arguments}:\n{log}"))
}

fn table(counts: &Counts) -> String {
    let mut text = format!(
        "# instructions per packet of 64 bytes (direct: 300), burst 32; `cargo xtask budget`\n{:<26}",
        "# path"
    );
    STEPS.iter().for_each(|step| _ = write!(text, "{step:>15}"));
    text.push('\n');
    for (name, row) in counts {
        _ = write!(text, "{name:<26}");
        row.iter().for_each(|count| _ = write!(text, "{count:>15.2}"));
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Result<Counts, String> {
    let rows = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    rows.map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().to_owned();
        let counts: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        let row = counts
            .try_into()
            .map_err(|_| format!("{TABLE}: '{line}' is not a path and {} counts", STEPS.len()))?;
        Ok((name, row))
    })
    .collect()
}

/// Fails with one sentence for each count that rose; prints those that fell.
fn compare(allowed: &Counts, now: &Counts) -> Result<(), String> {
    let mut broken = Vec::new();
    for (name, row) in now {
        let Some(budget) = allowed.get(name) else {
            broken.push(format!("{name}: not in {TABLE}"));
            continue;
        };
        for ((count, budget), step) in row.iter().zip(budget).zip(STEPS) {
            if *count > budget * (1.0 + SLACK) {
                broken
                    .push(format!("{name} {step}: {count:.2} instructions per packet, {budget:.2} allowed"));
            } else if *count < budget * (1.0 - SLACK) {
                println!("{name} {step}: {count:.2} instead of {budget:.2}; `cargo xtask budget --update`");
            }
        }
    }
    if broken.is_empty() {
        println!("budget: every count is within {:.0} % of {TABLE}", SLACK * 100.0);
        return Ok(());
    }
    Err(broken.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_past_the_slack_is_named() {
        let row = |tx| Counts::from([("packed".to_owned(), [tx, 20.0, 30.0, 40.0, 50.0])]);
        let allowed = parse(&table(&row(100.0))).expect("its own table");
        assert_eq!(allowed, row(100.0));
        assert_eq!(compare(&allowed, &row(101.9)), Ok(()));
        assert_eq!(compare(&allowed, &row(50.0)), Ok(()));
        let broken = compare(&allowed, &row(102.1)).expect_err("above the slack");
        assert_eq!(broken, "packed frontend_tx: 102.10 instructions per packet, 100.00 allowed");
        assert!(compare(&Counts::new(), &row(1.0)).is_err(), "a path without a budget");
    }
}
