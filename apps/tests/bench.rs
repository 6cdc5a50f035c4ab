//! `linecard bench ring`, `mempool`, `tables`, `burst` and `events` from outside: what they print, and that they leave nothing behind.

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Running, Scratch, linecard, skip, two_cores};
use linecard_lab::wait_until;
use rustix::process::Signal;

/// A peer may have to be built first, on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

fn bench(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = linecard(&["bench"]);
    command.args(arguments).env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    command
}

/// What DPDK keeps of its processes, of ours among them.
fn left_by(pid: u32) -> Vec<String> {
    let name = format!("linecard-bench-{pid}");
    let entries = std::fs::read_dir("/var/run/dpdk").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|entry| *entry == name).collect()
}

#[test]
fn contended_rings_are_measured_and_nothing_is_left() {
    if !two_cores("contended_rings_are_measured_and_nothing_is_left") {
        return;
    }
    let scratch = Scratch::new();
    let running = Running::start(&mut bench(&scratch, &["ring", "--json", "--runs=1", "--case=contended"]));
    let pid = running.0.id();
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 4 * 3, "{said:?}");
    for row in &rows {
        assert!(row["linecard"]["median"].as_f64().is_some_and(|cycles| cycles > 0.0), "{row}");
        // Without DPDK's headers there is no peer; the table says why.
        assert!(row["dpdk"].is_null() || row["dpdk"]["median"].as_f64().is_some_and(|c| c > 0.0), "{row}");
    }
    assert_eq!(left_by(pid), [""; 0]);
    assert_eq!(scratch.entries(), [""; 0], "the peer's folder is gone");
}

/// Every path on which DPDK's ends can be opened side by side in one process.
#[test]
fn bursts_are_measured_beside_dpdk_and_nothing_is_left() {
    let scratch = Scratch::new();
    let running =
        Running::start(&mut bench(&scratch, &["burst", "--json", "--runs=1", "--case=64 B burst-32 round"]));
    let pid = running.0.id();
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 6, "{said:?}");
    for row in &rows {
        assert!(row["linecard"]["median"].as_f64().is_some_and(|cycles| cycles > 0.0), "{row}");
        let dpdk = row["dpdk"]["median"].as_f64().is_some_and(|cycles| cycles > 0.0);
        assert!(dpdk || row["dpdk"].is_null(), "{row}");
    }
    if rows.iter().any(|row| row["dpdk"].is_null()) {
        let test = "bursts_are_measured_beside_dpdk_and_nothing_is_left";
        skip(test, "there is no DPDK to measure beside (apt-get install libdpdk-dev pkg-config gcc)");
    }
    assert_eq!(left_by(pid), [""; 0]);
    assert_eq!(scratch.entries(), [""; 0], "sockets and the peer's folder are gone");
}

/// Each case gives its figures, and those with a reference that of the reference.
#[test]
fn events_are_measured_beside_their_references_and_nothing_is_left() {
    if !two_cores("events_are_measured_beside_their_references_and_nothing_is_left") {
        return;
    }
    let scratch = Scratch::new();
    let said = Running::start(&mut bench(&scratch, &["events", "--json", "--runs=1"])).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for path in ["split-inorder", "packed-inorder"] {
        let of_path =
            |row: &&serde_json::Value| row["case"].as_str().is_some_and(|case| case.starts_with(path));
        let rows: Vec<_> = rows.iter().filter(of_path).collect();
        assert_eq!(rows.len(), 10, "{said:?}");
        for row in rows {
            let good =
                |figure: &serde_json::Value| figure["median"].as_f64().is_some_and(|value| value > 0.0);
            assert!(good(&row["linecard"]), "{row}");
            assert_eq!(good(&row["reference"]), !row["beside"].is_null(), "{row}");
        }
    }
    assert_eq!(scratch.entries(), [""; 0], "sockets are gone");
}

/// A peer that found something else than the crates would have ended instead of answering.
#[test]
fn tables_of_crates_find_what_dpdks_find() {
    let test = "tables_of_crates_find_what_dpdks_find";
    for (case, rows_of_it) in [("hash 4096", 4 * 2), ("lpm", 3 * 2)] {
        let scratch = Scratch::new();
        let running = Running::start(&mut bench(
            &scratch,
            &["tables", "--json", "--runs=1", &format!("--case={case}")],
        ));
        let pid = running.0.id();
        let said = running.end(PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        let rows: Vec<serde_json::Value> =
            said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(rows.len(), rows_of_it, "{said:?}");
        for row in &rows {
            assert!(row["linecard"]["median"].as_f64().is_some_and(|cycles| cycles > 0.0), "{row}");
            let dpdk = row["dpdk"]["median"].as_f64().is_some_and(|cycles| cycles > 0.0);
            assert!(dpdk || row["dpdk"].is_null(), "{row}");
        }
        if rows.iter().any(|row| row["dpdk"].is_null()) {
            skip(test, "there is no DPDK to measure beside (apt-get install libdpdk-dev pkg-config gcc)");
        }
        assert_eq!(left_by(pid), [""; 0]);
        assert_eq!(scratch.entries(), [""; 0], "the peer's folder is gone");
    }
}

#[test]
fn a_signal_ends_it_in_order() {
    let scratch = Scratch::new();
    let running = Running::start(&mut bench(&scratch, &["mempool", "--runs=10000", "--case=one core"]));
    let pid = running.0.id();
    wait_until("it takes the signal in order", || common::catches(pid, Signal::INT));
    running.signal(Signal::INT);
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("interrupted"), "{said:?}");
    assert_eq!(left_by(pid), [""; 0]);
    assert_eq!(common::processes(&format!("linecard-bench-{pid}")), 0);
    assert_eq!(scratch.entries(), [""; 0], "the peer's folder is gone");
}
