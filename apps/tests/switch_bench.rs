//! `linecard bench switch` from outside: what it prints, and that it leaves nothing behind.

mod common;

use std::time::Duration;

use common::{Running, Scratch, linecard, processes, run, two_cores};

/// Some samples of fresh programs each, on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

/// The command whose files lie in `scratch`.
fn bench(what: &[&str], scratch: &Scratch) -> std::process::Command {
    let mut command = linecard(&["bench", "switch", "--json", "--size=64"]);
    command.args(what).env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    command
}

#[test]
fn each_switch_has_a_rate_and_what_is_missing_says_so() {
    if !two_cores("each_switch_has_a_rate_and_what_is_missing_says_so") {
        return;
    }
    let scratch = Scratch::new();
    let tools = Scratch::new();
    let kinds = ["linecard", "linecard-loaded", "linecard-io", "dpdk-io", "ovs", "memif"];
    let mut command = bench(&["--runs=1", "--seconds=0.2", "--ports=5", "--addresses=100"], &scratch);
    let running = Running::start(command.args(kinds).env("PATH", tools.path()));
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect();
    let names: Vec<_> = rows.iter().filter_map(|row| row["switch"].as_str()).collect();
    assert_eq!(names, kinds);
    for row in &rows[..3] {
        assert_eq!((row["bench"].as_str(), row["size"].as_u64()), (Some("switch"), Some(64)), "{row}");
        assert!(row["mpps"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        assert_eq!(row["linecard_ratio"].is_null(), row["switch"] == "linecard", "{row}");
        assert!(row["note"].is_null(), "{row}");
    }
    for row in &rows[3..] {
        let note = row["note"].as_str().unwrap_or_default();
        assert!(row["mpps"].is_null() && note.ends_with("is not installed"), "{row}");
    }
    assert_eq!(scratch.entries(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn an_interrupt_ends_all_programs() {
    if !two_cores("an_interrupt_ends_all_programs") {
        return;
    }
    let scratch = Scratch::new();
    let mut command = bench(&["linecard", "--runs=1000", "--seconds=60"], &scratch);
    let running = Running::start(&mut command);
    let place = scratch.path().display().to_string();
    linecard_lab::wait_until("the tester", || processes(&format!("net_virtio_user1,path={place}")) > 0);
    running.signal(rustix::process::Signal::INT);
    let said = running.end(PATIENCE);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("interrupted"), "{said:?}");
    assert_eq!(processes(&place), 0, "every program has ended");
    assert_eq!(scratch.entries(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, want) in [
        (vec!["bridge"], "linecard-loaded"),
        (vec!["--size=59"], "59 is not in 60..=1518"),
        (vec!["--cores=0,0"], "core 0 was named twice"),
        (vec!["--seconds=0"], "give 0.2 to 60 seconds"),
        (vec!["--ports=2"], "2 is not in 3..=1024"),
    ] {
        let said = run(linecard(&["bench", "switch"]).args(&arguments), b"");
        assert_ne!(said.code, Some(0), "{arguments:?}");
        assert!(said.err.contains(want), "{arguments:?}: {}", said.err);
    }
}
