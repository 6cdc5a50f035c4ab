//! `linecard switch ctl top`: the rates of every port.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linecard_switch::api::{Client, PortCounters, Stats};
use serde::Serialize;

use super::ctl::print;
use super::text;
use crate::error::Error;
use crate::output::Output;
use crate::screen::{Screen, Waited};
use crate::signals;

/// The number of lines above the ports.
const HEADING: usize = 2;

/// The rates of a port, per second.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) rx_packets: u64,
    pub(super) rx_bits: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bits: u64,
    pub(super) drops: u64,
    /// The most frequent cause of drops.
    pub(super) cause: Option<&'static str>,
}

impl Row {
    fn numbers(&self) -> [u64; 5] {
        [self.rx_packets, self.rx_bits, self.tx_packets, self.tx_bits, self.drops]
    }
}

/// Prints rates until `count` is reached, the output is closed, or a signal arrives. On a terminal it redraws
/// the screen each time.
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
    let stop = signals::stop_flag(&signals::TERMINATION)?;
    let before = client.stats()?;
    let Some(mut screen) = (!json).then(|| Screen::take(&stop, output)).flatten() else {
        return lines(client, output, json, (interval, count), (before, &stop));
    };
    let shown = watch(client, output, &mut screen, (interval, count), before);
    screen.leave(output);
    shown
}

/// Prints the rates of each interval below each other.
fn lines(
    client: &mut Client,
    output: &mut Output,
    json: bool,
    (interval, count): (Duration, Option<u64>),
    (mut before, stop): (Stats, &AtomicBool),
) -> Result<(), Error> {
    let (mut at, mut looks) = (Instant::now(), 0);
    while count.is_none_or(|count| looks < count) && nap(at + interval, stop) {
        let (now, elapsed) = (client.stats()?, at.elapsed());
        at = Instant::now();
        let rows = rows(&before, &now, elapsed);
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

/// Returns `false` if a signal asks to stop.
fn nap(until: Instant, stop: &AtomicBool) -> bool {
    const NAP: Duration = Duration::from_millis(50);
    while !stop.load(Ordering::Relaxed) {
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return true,
            left => std::thread::sleep(left.min(NAP)),
        }
    }
    false
}

/// Draws the rates of each interval at the same place.
fn watch(
    client: &mut Client,
    output: &mut Output,
    screen: &mut Screen,
    (interval, count): (Duration, Option<u64>),
    mut before: Stats,
) -> Result<(), Error> {
    let (mut at, mut looks) = (Instant::now(), 0);
    let mut shown: Vec<Row> = Vec::new();
    while count.is_none_or(|count| looks < count) && !output.failed() {
        match screen.wait(at + interval) {
            Waited::End => break,
            Waited::Redraw => {}
            Waited::Time => {
                let (now, elapsed) = (client.stats()?, at.elapsed());
                at = Instant::now();
                shown = rows(&before, &now, elapsed);
                before = now;
                looks += 1;
            }
        }
        let mut rows = shown.clone();
        screen.sort(&mut rows, Row::numbers);
        screen.draw(output, &text::top(&before, &rows), HEADING);
    }
    Ok(())
}

/// The rates between two samples, per second. A new port is counted from its start.
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
        let ports = ports.iter().map(port).collect();
        Stats { uptime_seconds: 1, workers: 1, addresses: 0, swept_ports: 0, ports }
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
