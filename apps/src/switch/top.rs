//! `linecard switch ctl top`: what every port does, a second's worth at a time.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use linecard_switch::api::{Client, PortCounters, Stats};
use serde::Serialize;

use super::ctl::print;
use super::text;
use crate::error::Error;
use crate::output::{Output, out};

/// Moves to the upper left corner, and forgets what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What a port did in a second.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) rx_packets: u64,
    pub(super) rx_bits: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bits: u64,
    pub(super) drops: u64,
    /// The most frequent cause.
    pub(super) cause: Option<&'static str>,
}

/// Prints until it was done `count` times, or nobody reads it any more.
///
/// # Errors
/// The switch does not answer.
pub(super) fn run(
    client: &mut Client,
    output: &mut Output,
    json: bool,
    interval: Duration,
    count: Option<u64>,
) -> Result<(), Error> {
    let (mut before, mut at) = (client.stats()?, Instant::now());
    let mut looks = 0;
    while count.is_none_or(|count| looks < count) {
        std::thread::sleep(interval);
        let (now, elapsed) = (client.stats()?, at.elapsed());
        at = Instant::now();
        let rows = rows(&before, &now, elapsed);
        if !json && std::io::stdout().is_terminal() {
            out!(output, "{CLEAR}");
        }
        print(output, json, &rows, || text::top(&now, &rows));
        output.flush();
        if output.failed() {
            break;
        }
        before = now;
        looks += 1;
    }
    Ok(())
}

/// What happened between two looks, a second's worth. A port that came meanwhile counts from its beginning.
fn rows(before: &Stats, now: &Stats, elapsed: Duration) -> Vec<Row> {
    let known: BTreeMap<_, _> =
        before.ports.iter().map(|port| ((&port.spec.key, port.id), &port.counters)).collect();
    let nothing = PortCounters::default();
    let rate = |later: u64, earlier: u64| {
        let milliseconds = elapsed.as_millis().max(1);
        let amount = u128::from(later.saturating_sub(earlier)) * 1000 / milliseconds;
        u64::try_from(amount).unwrap_or(u64::MAX)
    };
    let row = |port: &linecard_switch::api::PortInfo| {
        let (new, old) = (&port.counters, known.get(&(&port.spec.key, port.id)).copied().unwrap_or(&nothing));
        let lost = new.drops.causes().zip(old.drops.causes());
        let lost = lost.map(|((name, later), (_, earlier))| (later.saturating_sub(earlier), name));
        Row {
            key: port.spec.key.clone(),
            rx_packets: rate(new.rx_packets, old.rx_packets),
            rx_bits: rate(new.rx_bytes, old.rx_bytes).saturating_mul(8),
            tx_packets: rate(new.tx_packets, old.tx_packets),
            tx_bits: rate(new.tx_bytes, old.tx_bytes).saturating_mul(8),
            drops: rate(new.drops.total(), old.drops.total()),
            cause: lost.max().filter(|(count, _)| *count > 0).map(|(_, name)| name),
        }
    };
    now.ports.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use linecard_switch::api::{PortInfo, PortKind, PortSpec, PortState};

    use super::*;

    fn stats(ports: &[(&str, u64, u64)]) -> Stats {
        let port = |(key, rx_packets, tx_full): &(&str, u64, u64)| {
            let mut counters =
                PortCounters { rx_packets: *rx_packets, rx_bytes: rx_packets * 64, ..Default::default() };
            counters.drops.tx_full = *tx_full;
            let spec = PortSpec::new(*key, PortKind::Tap { name: (*key).into(), netns: None });
            PortInfo { id: 0, state: PortState::Up, device: String::new(), addresses: 0, counters, spec }
        };
        Stats { uptime_seconds: 1, workers: 1, addresses: 0, ports: ports.iter().map(port).collect() }
    }

    #[test]
    fn rates_are_of_a_second_and_no_port_counts_backwards() {
        let rows = rows(
            &stats(&[("a", 100, 0), ("b", 500, 9)]),
            &stats(&[("a", 300, 4), ("b", 0, 0), ("c", 2, 0)]),
            Duration::from_secs(2),
        );
        let seen: Vec<_> =
            rows.iter().map(|row| (row.rx_packets, row.rx_bits, row.drops, row.cause)).collect();
        assert_eq!(seen, [(100, 51_200, 2, Some("tx_full")), (0, 0, 0, None), (1, 512, 0, None)]);
    }
}
