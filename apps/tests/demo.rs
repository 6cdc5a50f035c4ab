//! `linecard demo`, `doctor` and the small commands.

mod common;

use std::time::Duration;

use common::{PATIENCE, Running, Scratch, linecard, pids, processes, run, used};
use linecard_lab::wait_until;
use rustix::process::Signal;
use serde_json::Value;

fn demo(scratch: &Scratch, arguments: &[&str]) -> std::process::Command {
    let mut command = linecard(&["demo"]);
    command.args(arguments).env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    command
}

/// Waits until each end of the demo in this place has used a core for so long: they are at it.
fn ends_work(scratch: &Scratch, time: Duration) {
    let name = scratch.path().to_str().unwrap();
    wait_until("both ends at work", || {
        let busy = |pid: &i32| used(pid.unsigned_abs()) >= time;
        pids("demo-end")
            .iter()
            .filter(|pid| command_line(**pid).contains(name))
            .filter(|pid| busy(pid))
            .count()
            >= 2
    });
}

fn command_line(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

fn good(line: &str) -> Value {
    assert_eq!(line.lines().count(), 1, "{line}");
    let json: Value = serde_json::from_str(line).unwrap();
    for key in ["lost", "duplicated", "corrupted"] {
        assert_eq!(json[key], 0, "{line}");
    }
    assert!(json["packets"].as_u64().unwrap() > 0, "{line}");
    assert!(json["mpps"].as_f64().unwrap() > 0.0, "{line}");
    assert!(json["first_packet_ms"].as_f64().unwrap() > 0.0, "{line}");
    let (p50, p99) = (&json["latency_us"]["p50"], &json["latency_us"]["p99"]);
    assert!(p50.as_f64().unwrap() > 0.0 && p99.as_f64() >= p50.as_f64(), "{line}");
    assert!(json["memory"].as_str().is_some_and(|memory| !memory.is_empty()), "{line}");
    assert!(json["cores"].is_array(), "{line}");
    json
}

#[test]
fn packets_flow_and_nothing_is_left_behind() {
    let scratch = Scratch::new();
    let said = run(&mut demo(&scratch, &["--seconds=1", "--json"]), b"");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    good(&said.out);
    assert_eq!(scratch.entries(), [""; 0]);
    assert_eq!(processes(scratch.path().to_str().unwrap()), 0);
}

#[test]
fn the_plain_report_ends_with_commands() {
    let scratch = Scratch::new();
    let said = run(&mut demo(&scratch, &["--seconds=1"]), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in
        ["Mpps each way", "0 lost, 0 duplicated, 0 reordered, 0 corrupted", "linecard testpmd", "memory: "]
    {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(!said.out.contains('\x1b') && !said.out.contains('\r'), "no terminal, no control characters");
}

#[test]
fn one_core_is_enough() {
    let scratch = Scratch::new();
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_linecard"), "demo", "--seconds=1", "--json"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped()).env("TMPDIR", scratch.path());
    let said = Running::start(&mut command).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(good(&said.out)["cores"].as_array().map(Vec::len), Some(0));
}

#[test]
fn an_interrupt_ends_it_early_with_a_report() {
    let scratch = Scratch::new();
    let running = Running::start(&mut demo(&scratch, &["--seconds=60", "--json"]));
    ends_work(&scratch, Duration::from_secs(1));
    running.signal(Signal::INT);
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    good(&said.out);
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn the_ends_follow_a_killed_demo() {
    let scratch = Scratch::new();
    let name = scratch.path().to_str().unwrap().to_owned();
    let mut running = Running::start(&mut demo(&scratch, &["--seconds=60"]));
    wait_until("both ends", || processes(&name) >= 2);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    wait_until("the end of both ends", || processes(&name) == 0);
    wait_until("an empty place", || scratch.entries().is_empty());
}

#[test]
fn a_killed_benchmark_leaves_nothing() {
    let scratch = Scratch::new();
    let mut command = linecard(&["bench", "burst"]);
    let mut running = Running::start(command.env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR"));
    wait_until("its folder", || !scratch.entries().is_empty());
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    wait_until("an empty place", || scratch.entries().is_empty());
}

/// What is waited for beside the traffic has an end, and the status says that there is no result.
#[test]
fn an_end_that_does_not_run_any_more_is_not_waited_for_for_ever() {
    let scratch = Scratch::new();
    let name = scratch.path().to_str().unwrap().to_owned();
    // Long enough for both ends to begin on a busy machine.
    let running = Running::start(&mut demo(&scratch, &["--seconds=20"]));
    ends_work(&scratch, Duration::from_millis(500));
    stop_end(&name, "backend");
    let said = running.end(2 * PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("waiting for the last echoes, up to "), "{said:?}");
    // It has the rest of 20 s + 30 s, less what passed before the first packet: at most 30 s.
    let waited = waited(&said.err, "the last echoes of the backend");
    assert!((1..=30).contains(&waited), "{said:?}");
    assert_eq!(processes(&name), 0);
    assert_eq!(scratch.entries(), [""; 0]);
}

/// The seconds within which `what` did not come, by the error.
fn waited(errors: &str, what: &str) -> u32 {
    let rest = errors.split_once(&format!("error: {what} did not come within ")).map(|(_, rest)| rest);
    let number = rest.and_then(|rest| rest.split_once(" s after the traffic")).map(|(number, _)| number);
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{errors}"))
}

/// An interruption begins the wait for the end of the demo, however much of the requested time was left.
#[test]
fn an_interrupted_demo_does_not_wait_for_the_time_that_was_left() {
    let scratch = Scratch::new();
    let name = scratch.path().to_str().unwrap().to_owned();
    let running = Running::start(&mut demo(&scratch, &["--seconds=3600"]));
    ends_work(&scratch, Duration::from_millis(500));
    stop_end(&name, "backend");
    running.signal(Signal::INT);
    let said = running.end(2 * PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("waiting for the last echoes, up to "), "{said:?}");
    assert_eq!(waited(&said.err, "the last echoes of the backend"), 30, "{said:?}");
    assert_eq!(processes(&name), 0);
    assert_eq!(scratch.entries(), [""; 0]);
}

/// Stops an end of the demo with this place in its command line.
fn stop_end(place: &str, role: &str) -> rustix::process::Pid {
    let end = pids("demo-end").into_iter().find(|pid| {
        let line = command_line(*pid);
        line.contains(place) && line.contains(role)
    });
    let end = rustix::process::Pid::from_raw(end.expect("an end")).unwrap();
    rustix::process::kill_process(end, Signal::STOP).unwrap();
    end
}

#[test]
fn an_end_that_dies_is_reported() {
    let scratch = Scratch::new();
    let name = scratch.path().to_str().unwrap().to_owned();
    let running = Running::start(&mut demo(&scratch, &["--seconds=60"]));
    ends_work(&scratch, Duration::from_millis(200));
    let frontend = stop_end(&name, "frontend");
    rustix::process::kill_process(frontend, Signal::KILL).unwrap();
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("error: the frontend ended early"), "{said:?}");
    assert_eq!(processes(&name), 0);
    assert_eq!(scratch.entries(), [""; 0]);
}

/// An end that gets no processor for longer than any request may take loses none.
#[test]
fn an_end_that_does_not_run_for_long_is_waited_for() {
    let scratch = Scratch::new();
    let name = scratch.path().to_str().unwrap().to_owned();
    let running = Running::start(&mut demo(&scratch, &["--seconds=20", "--json"]));
    ends_work(&scratch, Duration::from_millis(500));
    let backend = stop_end(&name, "backend");
    std::thread::sleep(Duration::from_secs(23));
    rustix::process::kill_process(backend, Signal::CONT).unwrap();
    let said = running.end(PATIENCE);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    good(&said.out);
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn the_doctor_reports() {
    let said = run(&mut linecard(&["doctor", "--json"]), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["ready"], true);
    let checks = json["checks"].as_array().unwrap();
    for name in
        ["cores", "tsc", "hugepages-2M", "memlock", "memfd", "tun", "vhost-net", "userfaultfd", "dev-shm"]
    {
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}"));
        assert!(["ok", "degraded", "missing"].contains(&check["status"].as_str().unwrap()), "{check}");
        assert_eq!(check["status"] == "ok", check.get("fix").is_none(), "{check}");
    }
    let table = run(&mut linecard(&["doctor"]), b"");
    assert!(table.out.contains("packets can flow here"), "{table:?}");
}

#[test]
fn the_command_explains_itself() {
    let help = run(&mut linecard(&["--help"]), b"");
    for name in ["testpmd", "demo", "doctor", "bench", "completions", "man"] {
        assert!(help.out.contains(&format!("\n  {name} ")), "{name}: {}", help.out);
    }
    assert!(!help.out.contains("demo-end"));
    assert!(run(&mut linecard(&["--version"]), b"").out.starts_with("linecard "));
    let testpmd = run(&mut linecard(&["testpmd", "--help"]), b"");
    for part in ["--vdev", "--forward-mode", "net_vhost", "net_virtio_user"] {
        assert!(testpmd.out.contains(part), "{part}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&mut linecard(&["completions", shell]), b"").out.contains("linecard"), "{shell}");
    }
    assert!(run(&mut linecard(&["man"]), b"").out.contains(".TH linecard 1"));
    assert!(run(&mut linecard(&["man", "bench", "ring"]), b"").out.contains(".TH linecard-bench-ring 1"));
}
