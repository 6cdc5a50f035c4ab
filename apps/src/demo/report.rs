//! The reports of the ends to the coordinator, and the coordinator's summary for the user.

use serde::{Deserialize, Serialize};

/// One line of an end's output, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The progress so far.
    Progress(Progress),
    /// The complete report, sent once.
    Final(Box<EndReport>),
}

/// The progress of an end.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Good frames received.
    pub(super) received: u64,
    /// Median and 99th percentile of its round trips so far, in nanoseconds.
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    /// No request of this end is outstanding.
    pub(super) drained: bool,
}

/// The results of one end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct EndReport {
    /// Requests sent.
    pub(super) sent: u64,
    /// Requests of the peer that were sent back.
    pub(super) echoed: u64,
    /// Distinct requests of the peer that arrived.
    pub(super) requests: u64,
    /// Distinct echoes of this end's requests that arrived.
    pub(super) echoes: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    /// Frames that differ from what was sent.
    pub(super) corrupted: u64,
    /// When the first good frame arrived, in nanoseconds of the system's monotonic clock.
    pub(super) first_ns: Option<u64>,
    /// From the first to the last good frame, in nanoseconds.
    pub(super) active_ns: u64,
    /// Round trips: pairs of nanoseconds and count.
    pub(super) round_trips: Vec<(u64, u64)>,
    /// The kind of pages of packet memory.
    pub(super) memory: String,
    pub(super) memory_why: String,
    /// The negotiated data paths.
    pub(super) paths: String,
}

/// The combined results of both ends.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Good frames received in both directions, without duplicates.
    pub(super) packets: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) corrupted: u64,
    /// Million packets per second in each direction.
    pub(super) mpps: f64,
    /// Round trips in microseconds.
    pub(super) latency_us: Latency,
    /// From exec of the demo to the first good frame.
    pub(super) first_packet_ms: f64,
    pub(super) memory: String,
    pub(super) memory_why: String,
    /// Backend, then frontend; empty if the kernel chose the cores.
    pub(super) cores: Vec<u32>,
    pub(super) cores_why: String,
    pub(super) seconds: f64,
    pub(super) data_path: String,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// The conditions of a run.
pub(super) struct Circumstances {
    /// When the demo was started, on the system's monotonic clock.
    pub(super) exec_ns: u64,
    pub(super) cores: Vec<u32>,
    pub(super) cores_why: String,
}

impl Summary {
    /// Combines the reports of both ends.
    pub(super) fn of(backend: &EndReport, frontend: &EndReport, circumstances: Circumstances) -> Self {
        let ends = [backend, frontend];
        let sum = |f: fn(&EndReport) -> u64| ends.iter().map(|end| f(end)).sum::<u64>();
        let packets = sum(|e| e.requests) + sum(|e| e.echoes);
        let expected = sum(|e| e.sent) + sum(|e| e.echoed);
        let active = ends.iter().map(|e| e.active_ns).max().unwrap_or(0);
        let first = ends.iter().filter_map(|e| e.first_ns).min();
        let rate = if active == 0 { 0.0 } else { packets as f64 * 1e3 / 2.0 / active as f64 };
        Self {
            packets,
            lost: expected.saturating_sub(packets),
            duplicated: sum(|e| e.duplicated),
            reordered: sum(|e| e.reordered),
            corrupted: sum(|e| e.corrupted),
            // Precise to one packet a second, so that very low rates are not rounded to zero.
            mpps: (rate * 1e6).round() / 1e6,
            latency_us: latency(ends),
            first_packet_ms: first
                .map_or(0.0, |at| round(at.saturating_sub(circumstances.exec_ns) as f64 / 1e6)),
            memory: frontend.memory.clone(),
            memory_why: frontend.memory_why.clone(),
            cores: circumstances.cores,
            cores_why: circumstances.cores_why,
            seconds: round(active as f64 / 1e9),
            data_path: frontend.paths.clone(),
        }
    }

    /// Whether packets were received, and every packet arrived once and unchanged.
    pub(super) fn good(&self) -> bool {
        self.packets > 0 && self.lost == 0 && self.duplicated == 0 && self.corrupted == 0
    }
}

/// Rounds to three decimals; further ones are not significant.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn latency(ends: [&EndReport; 2]) -> Latency {
    let mut all: Vec<(u64, u64)> = ends.iter().flat_map(|end| end.round_trips.iter().copied()).collect();
    all.sort_unstable();
    let total: u64 = all.iter().map(|(_, count)| count).sum();
    let at = |share: f64| {
        let rank = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut before = 0;
        let found = all.iter().find(|(_, count)| {
            before += count;
            before >= rank
        });
        found.map_or(0.0, |(value, _)| round(*value as f64 / 1e3))
    };
    Latency { p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(sent: u64, peer_sent: u64) -> EndReport {
        EndReport {
            sent,
            echoed: peer_sent,
            requests: peer_sent,
            echoes: sent,
            first_ns: Some(5_000_000 + sent),
            active_ns: 1_000_000_000,
            round_trips: vec![(1_000, 98), (9_000, 2)],
            ..EndReport::default()
        }
    }

    fn circumstances() -> Circumstances {
        Circumstances { exec_ns: 4_000_000, cores: vec![0, 1], cores_why: "only two".into() }
    }

    #[test]
    fn a_clean_run_adds_up() {
        let summary = Summary::of(&end(3_000_000, 1_000_000), &end(1_000_000, 3_000_000), circumstances());
        assert!(summary.good());
        assert_eq!((summary.packets, summary.lost), (8_000_000, 0));
        assert_eq!(summary.mpps, 4.0);
        assert_eq!((summary.latency_us.p50, summary.latency_us.p99, summary.latency_us.max), (1.0, 9.0, 9.0));
        assert_eq!(summary.first_packet_ms, 2.0);
    }

    #[test]
    fn what_is_missing_is_lost() {
        let mut frontend = end(10, 20);
        frontend.echoes = 7;
        frontend.requests = 18;
        let summary = Summary::of(&end(20, 10), &frontend, circumstances());
        assert_eq!(summary.lost, 5);
        assert!(!summary.good());
    }

    #[test]
    fn nothing_at_all_is_not_good() {
        let summary = Summary::of(&EndReport::default(), &EndReport::default(), circumstances());
        assert!(!summary.good());
        assert_eq!((summary.mpps, summary.latency_us.p99), (0.0, 0.0));
    }

    #[test]
    fn the_json_line_has_what_was_promised() {
        let summary = Summary::of(&end(1, 1), &end(1, 1), circumstances());
        let json: serde_json::Value = serde_json::to_value(&summary).unwrap();
        for key in
            ["packets", "lost", "duplicated", "corrupted", "mpps", "first_packet_ms", "memory", "cores"]
        {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(json["latency_us"]["p50"].is_number() && json["latency_us"]["p99"].is_number());
    }
}
