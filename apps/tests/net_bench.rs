//! `linecard bench net` from outside: what it prints, and that it leaves nothing behind.

mod common;

use std::time::Duration;

use common::{Running, Scratch, linecard, processes, run, skip, two_cores};
use linecard_lab::Lab;

/// Two samples of a fresh program each, on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn both_directions_have_a_rate_and_a_missing_dpdk_is_null() {
    if !possible("both_directions_have_a_rate_and_a_missing_dpdk_is_null") {
        return;
    }
    let scratch = Scratch::new();
    let rows = measured(&["af_packet", "--size=64,1518", "--no-loop"], &scratch);
    let cells: Vec<_> = rows.iter().map(|row| (row["direction"].as_str(), row["size"].as_u64())).collect();
    let expected = [("rx", 64), ("rx", 1518), ("tx", 64), ("tx", 1518)];
    assert_eq!(cells, expected.map(|(direction, size)| (Some(direction), Some(size))));
    for row in &rows {
        assert_eq!((row["bench"].as_str(), row["driver"].as_str()), (Some("net"), Some("af_packet")));
        assert!(row["linecard"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        assert!(row["linecard"]["cpu_ns"].as_f64().is_some_and(|cpu| cpu > 0.0), "{row}");
        assert!(row["dpdk"].is_null() && row["ratio"].is_null() && row["kernel_loop"].is_null(), "{row}");
    }
    assert_eq!(scratch.entries(), Vec::<String>::new(), "nothing is left behind");
}

/// Whether a test that measures can run here.
fn possible(test: &str) -> bool {
    Lab::new(test).is_some() && two_cores(test)
}

/// Whether a test that measures all drivers can run here.
fn xdp(test: &str) -> bool {
    Lab::with_xdp(test).is_some()
}

/// The rows of a short run without DPDK, of whose programs none is left.
fn measured(what: &[&str], scratch: &Scratch) -> Vec<serde_json::Value> {
    // The program in C is built anew, in a folder of its own.
    let cache = Scratch::new();
    let mut command = linecard(&["bench", "net", "--runs=1", "--seconds=0.2", "--json", "--no-peer"]);
    if !what.iter().any(|word| ["--containers", "--tcp"].contains(word)) {
        // A port goes on where it was stopped.
        command.arg("--slices=3");
    }
    command.args(what).env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    command.env("XDG_CACHE_HOME", cache.path());
    let running = Running::start(&mut command);
    let prefix = format!("linecard-net-{}-", running.0.id());
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{what:?}: {said:?}");
    assert_eq!(processes(&prefix), 0, "every testpmd has ended");
    assert_eq!(processes(&cache.path().display().to_string()), 0, "every loop in C has ended");
    said.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
}

#[test]
fn a_loop_in_c_does_the_same_as_each_driver() {
    if !possible("a_loop_in_c_does_the_same_as_each_driver") {
        return;
    }
    if std::process::Command::new("cc").arg("--version").output().is_err() {
        return skip("a_loop_in_c_does_the_same_as_each_driver", "it needs a C compiler named cc");
    }
    let scratch = Scratch::new();
    if !xdp("a_loop_in_c_does_the_same_as_each_driver") {
        return;
    }
    let rows = measured(&["--size=64"], &scratch);
    assert_eq!(rows.len(), 6, "three drivers, both directions: {rows:?}");
    for row in &rows {
        assert!(row["kernel_loop"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        assert!(row["paired_ratio_kernel_loop"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{row}");
        assert!(row["note"].is_null(), "{row}");
    }
    assert_eq!(scratch.entries(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn without_a_compiler_the_loop_is_absent_and_said_so() {
    if !possible("without_a_compiler_the_loop_is_absent_and_said_so") {
        return;
    }
    let (scratch, cache) = (Scratch::new(), Scratch::new());
    let tools = Scratch::new();
    for tool in ["ip", "unshare", "sh", "cat"] {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|folder| format!("{folder}/{tool}"));
        let file = found.iter().find(|file| std::path::Path::new(file).exists()).expect("a tool of the lab");
        std::os::unix::fs::symlink(file, tools.path().join(tool)).expect("a link");
    }
    let mut command = linecard(&["bench", "net", "af_packet", "--direction=tx", "--size=64", "--runs=1"]);
    command.args(["--seconds=0.2", "--slices=1", "--no-peer"]).env("PATH", tools.path());
    command.env("TMPDIR", scratch.path()).env("XDG_CACHE_HOME", cache.path()).env_remove("XDG_RUNTIME_DIR");
    let said = Running::start(&mut command).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("no kernel loop: there is no C compiler named cc"), "{said:?}");
}

#[test]
fn round_trips_have_a_median_and_a_tail() {
    if !possible("round_trips_have_a_median_and_a_tail") {
        return;
    }
    let scratch = Scratch::new();
    if !xdp("round_trips_have_a_median_and_a_tail") {
        return;
    }
    let rows = measured(&["tap", "af_packet", "af_xdp", "--latency", "--no-loop"], &scratch);
    assert_eq!(rows.len(), 3, "{rows:?}");
    for row in &rows {
        assert_eq!((row["question"].as_str(), row["unit"].as_str()), (Some("latency"), Some("us")), "{row}");
        let (half, most) = (row["linecard"]["median"].as_f64(), row["linecard"]["p99"].as_f64());
        assert!(half.is_some_and(|half| half > 0.5) && most >= half, "{row}");
    }
}

#[test]
fn containers_pass_frames_through_the_switch_and_the_bridge() {
    if !possible("containers_pass_frames_through_the_switch_and_the_bridge") {
        return;
    }
    let scratch = Scratch::new();
    let rows = measured(&["--containers"], &scratch);
    let [row] = &rows[..] else { panic!("one row: {rows:?}") };
    assert_eq!((row["question"].as_str(), row["size"].as_u64()), (Some("containers"), Some(64)), "{row}");
    for side in ["linecard", "bridge"] {
        assert!(row[side]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
    }
    assert!(row["driver"].is_null() && row["note"].is_null(), "{row}");
    assert_eq!(scratch.entries(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn a_connection_goes_through_two_taps_and_a_socket() {
    if !possible("a_connection_goes_through_two_taps_and_a_socket") {
        return;
    }
    let scratch = Scratch::new();
    let rows = measured(&["--tcp"], &scratch);
    let [row] = &rows[..] else { panic!("one row: {rows:?}") };
    assert_eq!((row["question"].as_str(), row["unit"].as_str()), (Some("tcp"), Some("Gbit/s")), "{row}");
    for side in ["linecard", "veth"] {
        assert!(row[side]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, want) in [
        (vec!["bench", "net", "af_pocket"], "af_packet"),
        (vec!["bench", "net", "--size=20"], "20 is not in 64..=1518"),
        (vec!["bench", "net", "--cores=0,0"], "core 0 was named twice"),
        (vec!["bench", "net", "--seconds=0"], "give 0.1 to 60 seconds"),
        (vec!["bench", "net", "tap", "--tcp"], "cannot be used with '--tcp'"),
    ] {
        let said = run(&mut linecard(&arguments), b"");
        assert_ne!(said.code, Some(0), "{arguments:?}");
        assert!(said.err.contains(want), "{arguments:?}: {}", said.err);
    }
}
