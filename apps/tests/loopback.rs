//! `linecard bench loopback` from outside: what it prints, and that it leaves nothing behind.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Running, Scratch, linecard, skip, two_cores};
use linecard_lab::wait_until;
use rustix::process::{Pid, Signal, kill_process};

/// Two programs per sample, several samples, a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

/// A short run that takes what the machine gives.
fn bench(scratch: &Scratch, more: &[&str]) -> Command {
    let mut command = linecard(&["bench", "loopback", "--runs=1", "--no-huge"]);
    command.args(["--max-lost=100", "--max-switches=1e9"]).args(more);
    command.env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    command
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
    if !two_cores("our_two_ends_have_a_rate_and_a_missing_dpdk_is_said") {
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
            // A row that the machine disturbs gets all rows of its group another round.
            assert!(row["state"].is_string() && row["runs"].as_u64() >= Some(1), "{row}");
        } else {
            assert!(row["mpps"].is_null() && row["ratio"].is_null(), "{row}");
            assert!(row["note"].as_str().is_some_and(|note| note.contains("PATH")), "{row}");
        }
    }
    assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
}

#[test]
fn both_sides_are_compared_when_dpdk_is_there() {
    if !two_cores("both_sides_are_compared_when_dpdk_is_there") {
        return;
    }
    if dpdk().is_none() {
        let test = "both_sides_are_compared_when_dpdk_is_there";
        return skip(test, "dpdk-testpmd is not installed (apt-get install dpdk)");
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
fn memif_is_measured_beside_ours() {
    let test = "memif_is_measured_beside_ours";
    if !two_cores(test) {
        return;
    }
    if dpdk().is_none() {
        return skip(test, "dpdk-testpmd is not installed (apt-get install dpdk)");
    }
    let scratch = Scratch::new();
    let more = ["--memif", "--seconds=0.2", "--json", "--path=packed-inorder", "--position=ours/ours"];
    let said = Running::start(&mut bench(&scratch, &more)).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows = rows(&said.out);
    let names: Vec<_> = rows.iter().map(|row| (row["position"].as_str(), row["path"].as_str())).collect();
    let expected =
        [("ours/ours", "packed-inorder"), ("memif", "copy"), ("memif", "zero-copy"), ("ceiling", "ceiling")];
    assert_eq!(names, expected.map(|(position, path)| (Some(position), Some(path))), "{said:?}");
    let rate =
        |row: &serde_json::Value| row["mpps"]["median"].as_f64().unwrap_or_else(|| panic!("{row}: {said:?}"));
    let better = rate(&rows[1]).max(rate(&rows[2]));
    let ratio = rows[0]["ratio_memif"]["median"].as_f64().unwrap_or_else(|| panic!("{said:?}"));
    assert!((ratio - rate(&rows[0]) / better).abs() < 0.01 * ratio, "{ratio} of {rows:?}");
    assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
}

#[test]
fn a_signal_ends_every_program() {
    if !two_cores("a_signal_ends_every_program") {
        return;
    }
    for (signal, how) in [(Signal::INT, "--apart"), (Signal::TERM, "--markdown")] {
        let scratch = Scratch::new();
        let more = ["--position=ours/ours", "--path=split", "--seconds=60", how];
        let running = Running::start(&mut bench(&scratch, &more));
        let pid = running.0.id();
        wait_until("two programs", || children(pid) == 2);
        running.signal(signal);
        let said = running.end(PATIENCE);
        // A minute of measuring would have ended with 0. What was measured till then is shown.
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("interrupted"), "{said:?}");
        assert_eq!(children(pid), 0);
        assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
    }
}

/// Programs of the run of process `pid`, by the names of their memory.
fn children(pid: u32) -> usize {
    common::processes(&format!("linecard-loop-{pid}-"))
}

/// Options of runs with our programs only, one sample per row.
fn alone(scratch: &Scratch, more: &[&str]) -> Command {
    let mut command = bench(scratch, &["--seconds=0.2", "--json", "--path=packed-inorder", "--any-state"]);
    command.args(more).env("PATH", scratch.path());
    command
}

fn of<'a>(rows: &'a [serde_json::Value], position: &str) -> &'a serde_json::Value {
    rows.iter().find(|row| row["position"] == position).unwrap_or(&serde_json::Value::Null)
}

#[test]
fn an_open_loop_accounts_for_every_packet() {
    if !two_cores("an_open_loop_accounts_for_every_packet") {
        return;
    }
    let scratch = Scratch::new();
    for size in ["64", "imix", "9000"] {
        let more = ["--open=max", "--position=ours/tester,tester/ours", "--size", size];
        let said = Running::start(&mut alone(&scratch, &more)).end(PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        let rows = rows(&said.out);
        for position in ["ours/tester", "tester/ours"] {
            let row = of(&rows, position);
            assert_eq!(row["kind"], "open-max", "{said:?}");
            // A sample that the machine took away has another round.
            assert!(row["runs"].as_u64() >= Some(1), "{said:?}");
            let (sent, lost) =
                (row["sent"].as_u64().expect("a count"), row["lost"].as_u64().expect("a count"));
            // How many go depends on who else wants the cores; that each is accounted for does not.
            assert!(sent > 0 && lost <= sent, "{row}");
            for wrong in ["duplicated", "reordered", "corrupted"] {
                assert_eq!(row[wrong], 0, "{wrong}: {row}");
            }
            if lost == sent {
                continue;
            }
            let percentiles = ["p50", "p90", "p99", "p999", "max"].map(|p| row["latency_us"][p].as_f64());
            assert!(
                percentiles.iter().all(|p| p.is_some_and(|p| p > 0.0)) && percentiles.is_sorted(),
                "{row}"
            );
        }
        assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
    }
}

#[test]
fn a_rate_without_loss_and_round_trips_are_found() {
    if !two_cores("a_rate_without_loss_and_round_trips_are_found") {
        return;
    }
    let scratch = Scratch::new();
    let said = Running::start(&mut alone(&scratch, &["--zero-loss", "--position=ours/tester"])).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let json = rows(&said.out);
    let (none, some) = (&json[0]["mpps"]["median"], &json[0]["figures"]["pdr"]["median"]);
    // Where other tests take the cores, any rate may lose something.
    assert!(none.as_f64().is_some_and(|rate| rate >= 0.0) && some.as_f64() >= none.as_f64(), "{said:?}");
    let said = Running::start(&mut alone(&scratch, &["--latency", "--position=ours/ours"])).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let json = rows(&said.out);
    for figure in ["p50", "p99", "low_p50", "low_p99"] {
        assert!(json[0]["figures"][figure]["median"].as_f64().is_some_and(|us| us > 0.0), "{said:?}");
    }
    assert!(json[0]["mpps"].is_null());
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn samples_are_kept_and_a_run_goes_on_from_them() {
    if !two_cores("samples_are_kept_and_a_run_goes_on_from_them") {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("samples.jsonl");
    let more = ["--position=ours/ours", "--resume", &file];
    let said = Running::start(&mut alone(&scratch, &more)).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(of(&rows(&said.out), "ours/ours")["runs"], 1);
    let kept = std::fs::read_to_string(&file).expect("samples");
    let mut again = alone(&scratch, &more);
    let said = Running::start(&mut again).end(PATIENCE);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "nothing is left to do");
    assert_eq!(std::fs::read_to_string(&file).expect("samples"), kept);
    let said =
        Running::start(&mut linecard(&["bench", "loopback", "--report", &file, "--json"])).end(PATIENCE);
    let reported = rows(&said.out);
    assert_eq!((said.code, reported.len()), (Some(0), 2), "a pair and the ceiling: {said:?}");
    assert!(of(&reported, "ours/ours")["mpps"]["median"].is_f64(), "{said:?}");
    let said = Running::start(alone(&scratch, &more).arg("--seconds=0.3")).end(PATIENCE);
    assert!(matches!(said.code, Some(1 | 2)), "another window does not compare: {said:?}");
    assert_eq!(scratch.entries(), ["samples.jsonl"]);
}

#[test]
fn an_end_that_dies_is_a_failed_sample() {
    if !two_cores("an_end_that_dies_is_a_failed_sample") {
        return;
    }
    let scratch = Scratch::new();
    let more = ["--position=ours/ours", "--path=split", "--seconds=60", "--apart"];
    let running = Running::start(&mut bench(&scratch, &more));
    let pid = running.0.id();
    let name = format!("linecard-loop-{pid}-f");
    wait_until("a frontend", || children(pid) == 2);
    let first = common::pids(&name);
    for &end in &first {
        kill_process(Pid::from_raw(end).expect("not 0"), Signal::KILL).expect("it runs");
    }
    wait_until("another try", || {
        let now = common::pids(&name);
        !now.is_empty() && now != first
    });
    running.signal(Signal::INT);
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("failed: the frontend"), "{said:?}");
    assert_eq!(children(pid), 0);
    assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
}

#[test]
fn an_end_that_dies_in_its_turn_leaves_the_other_rows_alone() {
    if !two_cores("an_end_that_dies_in_its_turn_leaves_the_other_rows_alone") {
        return;
    }
    let scratch = Scratch::new();
    let more = ["--position=ours/ours", "--path=split,split-mergeable", "--seconds=1", "--json"];
    let mut command = bench(&scratch, &more);
    let running = Running::start(command.env("PATH", scratch.path()));
    let first = format!("linecard-loop-{}-f1", running.0.id());
    wait_until("both pairs", || children(running.0.id()) == 4);
    for end in common::pids(&first) {
        kill_process(Pid::from_raw(end).expect("not 0"), Signal::KILL).expect("it runs");
    }
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("failed: the frontend"), "{said:?}");
    for row in rows(&said.out) {
        // A round later, the first has a figure as well.
        assert!(row["mpps"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        assert_eq!(row["state"], "turns", "{row}");
    }
    assert_eq!(scratch.entries(), [""; 0], "sockets and folders are gone");
}

#[test]
fn one_core_is_enough_for_starting_and_said_to_be_too_few_for_rates() {
    let scratch = Scratch::new();
    let mut command = alone(&scratch, &["--cores=0", "--position=ours/ours"]);
    let said = Running::start(&mut command).end(PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("two cores") && said.err.contains("--startup"), "{said:?}");
    assert!(
        of(&rows(&said.out), "ours/ours")["note"].as_str().is_some_and(|note| note.contains("two cores"))
    );
    let mut command = alone(&scratch, &["--cores=0", "--startup", "--position=ours/tester,tester/ours"]);
    let said = Running::start(&mut command).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    for row in rows(&said.out) {
        for figure in ["exec_ms", "connect_ms", "memory_mb"] {
            assert!(
                row["figures"][figure]["median"].as_f64().is_some_and(|value| value > 0.0),
                "{figure}: {row}"
            );
        }
    }
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn a_position_that_a_kind_of_sample_lacks_is_refused() {
    let scratch = Scratch::new();
    let said = Running::start(&mut alone(&scratch, &["--open=1", "--position=ours/ours"])).end(PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("choose from ours/tester"), "{said:?}");
}

#[test]
fn wrong_options_are_refused_with_what_is_possible() {
    for (option, remedy) in [
        ("--size=10", "60 to 65535 bytes"),
        ("--ring=16", "32 to 32768"),
        ("--open=0", "or max"),
        ("--report=/nonexistent/samples", "name another file"),
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
