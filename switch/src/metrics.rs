//! Counters as OpenMetrics text, for Prometheus and compatible programs.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `linecard_switch_info` | `version` | 1 |
//! | `linecard_switch_uptime_seconds`, `_workers`, `_addresses` | | gauges |
//! | `linecard_switch_swept_ports_total` | | removed because their containers no longer exist |
//! | `linecard_switch_port_state` | `port`, `linecard_switch_port_state` | 1 for the current state, 0 for the others |
//! | `linecard_switch_port_addresses` | `port` | gauge |
//! | `linecard_switch_port_received_packets_total`, `_bytes_total` | `port` | from the peer |
//! | `linecard_switch_port_sent_packets_total`, `_bytes_total` | `port` | to the peer |
//! | `linecard_switch_port_sent_direct_packets_total` | `port` | those copied once, from the sender's memory |
//! | `linecard_switch_port_dropped_packets_total` | `port`, `cause` | every cause, also at 0 |
//!
//! Counters start at 0 when a port is attached, and when the switch starts.

use linecard_telemetry::openmetrics::Text;

use crate::api::{PortInfo, PortState, Stats};

const STATES: [(PortState, &str); 3] =
    [(PortState::Up, "up"), (PortState::Down, "down"), (PortState::Waiting, "waiting")];

/// Returns all counters of a switch as text; `version` is that of its program.
///
/// ```
/// use linecard_switch::{api::Stats, metrics};
/// let text = metrics::text(&Stats { uptime_seconds: 3, workers: 1, addresses: 0, swept_ports: 0, ports: Vec::new() }, "0.1.0");
/// assert!(text.contains("\nlinecard_switch_uptime_seconds 3\n") && text.ends_with("# EOF\n"));
/// ```
#[must_use]
pub fn text(stats: &Stats, version: &str) -> String {
    let mut text = Text::new("linecard_switch");
    text.family("info", "info", "The switch");
    text.line("info", &[("version", version)], 1);
    for (name, help, value) in [
        ("uptime_seconds", "Seconds since the switch started", stats.uptime_seconds),
        ("workers", "Threads that move packets", u64::from(stats.workers)),
        ("addresses", "Addresses that the switch knows", stats.addresses),
    ] {
        text.family(name, "gauge", help);
        text.line(name, &[], value);
    }
    text.family("swept_ports", "counter", "Ports that were removed because their containers are gone");
    text.line("swept_ports_total", &[], stats.swept_ports);
    let ports = &stats.ports;
    text.family("port_state", "stateset", "Whether frames can pass");
    for port in ports {
        for (state, name) in STATES {
            let labels = [("port", port.spec.key.as_str()), ("linecard_switch_port_state", name)];
            text.line("port_state", &labels, u64::from(port.state == state));
        }
    }
    text.family("port_addresses", "gauge", "Addresses known behind the port");
    for port in ports {
        text.line("port_addresses", &[("port", &port.spec.key)], port.addresses);
    }
    type Value = fn(&PortInfo) -> u64;
    for (name, help, value) in [
        ("port_received_packets", "Frames from the other end", (|port| port.counters.rx_packets) as Value),
        ("port_received_bytes", "Bytes of frames from the other end", |port| port.counters.rx_bytes),
        ("port_sent_packets", "Frames to the other end", |port| port.counters.tx_packets),
        ("port_sent_bytes", "Bytes of frames to the other end", |port| port.counters.tx_bytes),
        ("port_sent_direct_packets", "Frames to the other end that were copied once", |port| {
            port.counters.tx_direct
        }),
    ] {
        text.family(name, "counter", help);
        for port in ports {
            text.line(&format!("{name}_total"), &[("port", &port.spec.key)], value(port));
        }
    }
    text.family("port_dropped_packets", "counter", "Frames lost, by cause");
    for port in ports {
        for (cause, count) in port.counters.drops.causes() {
            let labels = [("port", port.spec.key.as_str()), ("cause", cause)];
            text.line("port_dropped_packets_total", &labels, count);
        }
    }
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Cause, PortCounters, PortKind, PortSpec};

    #[test]
    fn every_counter_of_every_port_is_there_once() {
        let mut counters =
            PortCounters { rx_packets: 7, tx_bytes: 9, tx_direct: 5, ..PortCounters::default() };
        counters.drops.add(Cause::TxFull, 3);
        let port = |key: &str| PortInfo {
            id: 1,
            state: PortState::Down,
            device: String::new(),
            addresses: 2,
            counters: counters.clone(),
            spec: PortSpec::new(key, PortKind::Tap { name: "t".into(), netns: None }),
        };
        let stats = Stats {
            uptime_seconds: 5,
            workers: 2,
            addresses: 4,
            swept_ports: 6,
            ports: vec![port("a"), port("b\"\\c")],
        };
        let text = text(&stats, "1.2.3");
        for line in [
            "linecard_switch_info{version=\"1.2.3\"} 1",
            "linecard_switch_swept_ports_total 6",
            "linecard_switch_port_received_packets_total{port=\"a\"} 7",
            "linecard_switch_port_sent_bytes_total{port=\"b\\\"\\\\c\"} 9",
            "linecard_switch_port_sent_direct_packets_total{port=\"a\"} 5",
            "linecard_switch_port_dropped_packets_total{port=\"a\",cause=\"tx_full\"} 3",
            "linecard_switch_port_state{port=\"a\",linecard_switch_port_state=\"down\"} 1",
            "linecard_switch_port_state{port=\"a\",linecard_switch_port_state=\"up\"} 0",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in {text}");
        }
        let drops = text
            .lines()
            .filter(|line| line.starts_with("linecard_switch_port_dropped_packets_total"))
            .count();
        assert_eq!(drops, 2 * Cause::ALL.len());
        // Each sample is of the family above it, and no line is there twice.
        let mut family = String::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => family = rest.split(' ').next().unwrap_or_default().to_owned(),
                None if line.starts_with("# HELP") => assert!(line.contains(&family), "{line}"),
                None => assert!(line.starts_with(&family), "{line} after {family}"),
            }
        }
        let mut lines: Vec<_> = text.lines().collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all);
    }
}
