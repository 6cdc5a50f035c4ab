//! `linecard bench loopback` from outside: what it prints, and that it leaves nothing behind.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Running, Scratch, linecard};
use rustix::process::Signal;

/// Two programs per sample, several samples, a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

/// A short run that takes what the machine gives.
fn bench(scratch: &Scratch, more: &[&str]) -> Command {
    let mut command = linecard(&["bench", "loopback", "--runs=1", "--no-huge"]);
    command.args(["--max-lost=100", "--max-switches=1e9"]).args(more);
    command.env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    command
}

fn one_core() -> bool {
    let one = std::thread::available_parallelism().map_or(1, usize::from) < 2;
    if one {
        eprintln!("SKIPPED: a loop needs two cores, there is one");
    }
    one
}

fn dpdk() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("dpdk-testpmd")).find(|file| file.is_file())
}

fn rows(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
}

#[test]
fn our_two_ends_have_a_rate_and_a_missing_dpdk_is_said() {
    if one_core() {
        return;
    }
    let scratch = Scratch::new();
    let mut command =
        bench(&scratch, &["--seconds=0.2", "--json", "--path=packed-inorder", "--size=64,imix"]);
    let said = Running::start(command.env("PATH", scratch.path())).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows = rows(&said.out);
    // A ceiling and four positions for each of two sizes.
    assert_eq!(rows.len(), 10, "{said:?}");
    for row in &rows {
        assert_eq!(row["bench"], "loopback");
        if matches!(row["position"].as_str(), Some("ours/ours" | "ceiling")) {
            assert!(row["mpps"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
            assert!(row["state"].is_string() && row["runs"] == 1, "{row}");
        } else {
            assert!(row["mpps"].is_null() && row["ratio"].is_null(), "{row}");
            assert!(row["note"].as_str().is_some_and(|note| note.contains("PATH")), "{row}");
        }
    }
    assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
}

#[test]
fn both_sides_are_compared_when_dpdk_is_there() {
    if one_core() {
        return;
    }
    if dpdk().is_none() {
        eprintln!("SKIPPED: dpdk-testpmd is not on PATH");
        return;
    }
    let scratch = Scratch::new();
    let charts = scratch.file("charts");
    let more = ["--seconds=0.2", "--markdown", "--path=split-mergeable", "--svg", &charts];
    let said = Running::start(&mut bench(&scratch, &more)).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    for position in ["ours/ours", "dpdk/dpdk", "ours/dpdk", "dpdk/ours"] {
        let line =
            said.out.lines().find(|line| line.starts_with(&format!("| {position} | split-mergeable | ")));
        assert!(
            line.is_some_and(|line| line.contains("..") && !line.contains("| none |")),
            "{position}: {said:?}"
        );
    }
    let chart = Path::new(&charts).join("loopback-64-ring1024-burst32.svg");
    let svg = std::fs::read_to_string(chart).expect("a chart");
    assert!(svg.starts_with("<svg") && svg.contains("DPDK / our frontend"), "{svg}");
    assert_eq!(scratch.entries(), ["charts"], "sockets and folders are gone");
}

#[test]
fn a_signal_ends_every_program() {
    if one_core() {
        return;
    }
    for signal in [Signal::INT, Signal::TERM] {
        let scratch = Scratch::new();
        let more = ["--position=ours/ours", "--path=split", "--seconds=60"];
        let running = Running::start(&mut bench(&scratch, &more));
        let pid = running.0.id();
        common::eventually("two programs", || children(pid) == 2);
        let start = Instant::now();
        running.signal(signal);
        let said = running.end(PATIENCE);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("interrupted"), "{said:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(children(pid), 0);
        assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
    }
}

/// Programs of the run of process `pid`, by the names of their memory.
fn children(pid: u32) -> usize {
    common::processes(&format!("linecard-loop-{pid}-"))
}

#[test]
fn wrong_options_are_refused_with_what_is_possible() {
    for (option, remedy) in [
        ("--size=10", "60 to 9600 bytes"),
        ("--path=triangle", "--path"),
        ("--position=us/them", "--position"),
        ("--cores=0,0", "named twice"),
        ("--seconds=0", "0.1 to 3600 seconds"),
    ] {
        let said = Running::start(&mut linecard(&["bench", "loopback", option])).end(PATIENCE);
        assert!(matches!(said.code, Some(1 | 2)) && said.out.is_empty(), "{option}: {said:?}");
        assert!(said.err.starts_with("error: ") && said.err.contains(remedy), "{option}: {said:?}");
    }
}
