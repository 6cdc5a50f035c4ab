//! `linecard bench net` from outside: what it prints, and that it leaves nothing behind.

mod common;

use std::time::Duration;

use common::{Running, Scratch, linecard, processes, run};
use linecard_pmd::netdev::lab::Lab;

/// Two samples of a fresh program each, on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn both_directions_have_a_rate_and_a_missing_dpdk_is_null() {
    if Lab::new("both_directions_have_a_rate_and_a_missing_dpdk_is_null").is_none() {
        return;
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return linecard_pmd::netdev::lab::skip("bench net", "it needs two cores, there is one");
    }
    let scratch = Scratch::new();
    let arguments = ["bench", "net", "af_packet", "--runs=1", "--seconds=0.2", "--size=64,1518", "--json"];
    let mut command = linecard(&arguments);
    command.arg("--no-peer").env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    let said = Running::start(&mut command).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect();
    let cells: Vec<_> = rows.iter().map(|row| (row["direction"].as_str(), row["size"].as_u64())).collect();
    let expected = [("rx", 64), ("rx", 1518), ("tx", 64), ("tx", 1518)];
    assert_eq!(cells, expected.map(|(direction, size)| (Some(direction), Some(size))), "{said:?}");
    for row in &rows {
        assert_eq!((row["bench"].as_str(), row["driver"].as_str()), (Some("net"), Some("af_packet")));
        assert!(row["linecard"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        assert!(row["linecard"]["cpu_ns"].as_f64().is_some_and(|cpu| cpu > 0.0), "{row}");
        assert!(row["dpdk"].is_null() && row["ratio"].is_null(), "{row}");
    }
    assert_eq!(processes("lcnear"), 0, "every testpmd has ended");
    assert_eq!(scratch.entries(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, want) in [
        (vec!["bench", "net", "af_pocket"], "af_packet"),
        (vec!["bench", "net", "--size=20"], "20 is not in 64..=1518"),
        (vec!["bench", "net", "--cores=0,0"], "core 0 was named twice"),
        (vec!["bench", "net", "--seconds=0"], "give 0.1 to 60 seconds"),
    ] {
        let said = run(&mut linecard(&arguments), b"");
        assert_ne!(said.code, Some(0), "{arguments:?}");
        assert!(said.err.contains(want), "{arguments:?}: {}", said.err);
    }
}
