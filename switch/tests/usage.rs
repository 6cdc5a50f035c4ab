//! How busy workers are, as Prometheus and `linecard top` are told.

#[allow(dead_code, reason = "other tests look at more of it")]
mod common;

use std::time::{Duration, Instant};

use common::{Bed, frame};
use linecard_eal::{Eal, EalArgs};
use linecard_switch::TelemetryFeed;
use linecard_telemetry::Telemetry;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// Busy cycles, and all cycles, of each worker.
fn cycles(telemetry: &Telemetry) -> Vec<(u64, u64)> {
    let text = telemetry.open_metrics();
    let all = |name: &str| -> Vec<u64> {
        let begin = format!("linecard_lcore_{name}_total{{lcore=");
        let lines = text.lines().filter(|line| line.starts_with(&begin));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    };
    all("busy_cycles").into_iter().zip(all("cycles")).collect()
}

/// Looks again until `done` says so of a look and the one before; each look is checked.
fn until(what: &str, telemetry: &Telemetry, mut done: impl FnMut(&[(u64, u64)], &[(u64, u64)]) -> bool) {
    let (start, mut before) = (Instant::now(), cycles(telemetry));
    loop {
        std::thread::sleep(Duration::from_millis(2));
        let now = cycles(telemetry);
        assert_eq!(now.len(), 2, "{now:?}");
        for ((busy, all), (old_busy, old_all)) in now.iter().zip(&before) {
            assert!(busy >= old_busy && all > old_all && busy <= all, "{before:?}, then {now:?}");
        }
        if done(&before, &now) {
            return;
        }
        before = now;
        assert!(start.elapsed() < PATIENCE, "{what}: {before:?}");
    }
}

#[test]
fn cycles_of_turns_with_frames_are_busy_ones() {
    let mut bed = Bed::new(2, &[json!({}), json!({})]);
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"]).expect("arguments").0).expect("a machine");
    let telemetry = Telemetry::new(&eal);
    TelemetryFeed::new(telemetry.clone()).look(&bed.switch);

    let idle = |before: &[(u64, u64)], now: &[(u64, u64)]| before.iter().zip(now).all(|(a, b)| a.0 == b.0);
    until("workers without frames are idle", &telemetry, idle);
    let begin = cycles(&telemetry);
    until("workers that forward are busy", &telemetry, |_, now| {
        bed.send(0, &[frame(1, 2, &[7; 80])]);
        bed.send(1, &[frame(2, 1, &[7; 80])]);
        bed.settle();
        // Each of the two ports is polled by another worker.
        begin.iter().zip(now).all(|(old, new)| new.0 > old.0)
    });
    until("workers without frames are idle again", &telemetry, idle);
}
