//! The rates between two samples, per second.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::client::Client;
use super::sample::{Pool, Port, Sample};

/// The rates of a program, per second; one line of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) pid: u32,
    pub(super) version: String,
    /// The time between the two samples.
    pub(super) seconds: f64,
    pub(super) ports: Vec<PortRates>,
    pub(super) lcores: Vec<Busy>,
    pub(super) pools: Vec<Pool>,
}

/// Packets and bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rates {
    pub(super) rx_packets: u64,
    pub(super) rx_bits: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bits: u64,
}

/// The rates of a port.
#[derive(Debug, Serialize)]
pub(super) struct PortRates {
    pub(super) port: u16,
    pub(super) device: String,
    pub(super) up: bool,
    #[serde(flatten)]
    pub(super) rates: Rates,
    /// Packets lost per second, from DPDK's totals and from the application.
    pub(super) lost: u64,
    pub(super) queues: BTreeMap<u16, Rates>,
    /// Other events that the driver counts, and the application's drops: mostly causes of losses.
    pub(super) events: Vec<Event>,
}

impl PortRates {
    /// The values by which ports are sorted.
    pub(super) fn numbers(&self) -> [u64; 5] {
        let Rates { rx_packets, rx_bits, tx_packets, tx_bits } = self.rates;
        [rx_packets, rx_bits, tx_packets, tx_bits, self.lost]
    }
}

/// An event on a queue.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    pub(super) direction: &'static str,
    pub(super) queue: u16,
    pub(super) name: String,
    /// Events per second.
    pub(super) rate: u64,
    /// Events since the counters started.
    pub(super) total: u64,
}

/// The load of an lcore.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Busy {
    pub(super) lcore: u64,
    pub(super) percent: u64,
}

/// The extended statistics that hold DPDK's totals of losses.
const LOSSES: [&str; 4] = ["rx_missed_errors", "rx_errors", "tx_errors", "rx_mbuf_allocation_errors"];

impl Report {
    pub(super) fn between(client: &Client, before: &Sample, now: &Sample, elapsed: Duration) -> Self {
        let rate = Rate(elapsed);
        let row = |(id, port): (&u16, &Port)| {
            let old = before.ports.get(id).filter(|old| old.name == port.name);
            let mut row = rate.port(*id, old, port);
            rate.drops(&mut row, before, now);
            row
        };
        let busy = |(lcore, (busy, total)): (&u64, &(u64, u64))| {
            let (old_busy, old_total) = before.lcores.get(lcore).copied().unwrap_or_default();
            // Forwarding was started again, and counts from zero.
            let since = |now: u64, old: u64| if total < &old_total { now } else { now.saturating_sub(old) };
            let percent =
                u128::from(since(*busy, old_busy)) * 100 / u128::from(since(*total, old_total).max(1));
            Busy { lcore: *lcore, percent: u64::try_from(percent.min(100)).unwrap_or(100) }
        };
        Self {
            pid: client.pid,
            version: client.version.clone(),
            seconds: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            ports: now.ports.iter().map(row).collect(),
            lcores: now.lcores.iter().map(busy).collect(),
            pools: now.pools.clone(),
        }
    }
}

/// Converts counters to rates.
struct Rate(Duration);

impl Rate {
    /// A counter that decreased was reset.
    fn of(&self, now: u64, before: u64) -> u64 {
        let more = if now < before { now } else { now - before };
        let amount = u128::from(more) * 1_000_000 / self.0.as_micros().max(1);
        u64::try_from(amount).unwrap_or(u64::MAX)
    }

    fn port(&self, id: u16, old: Option<&Port>, port: &Port) -> PortRates {
        let before = |name: &str| old.and_then(|old| old.counters.get(name)).copied().unwrap_or(0);
        let rate = |name: &str| port.counters.get(name).map_or(0, |now| self.of(*now, before(name)));
        let mut row = PortRates {
            port: id,
            device: port.name.clone(),
            up: port.up,
            rates: Rates {
                rx_packets: rate("rx_good_packets"),
                rx_bits: rate("rx_good_bytes").saturating_mul(8),
                tx_packets: rate("tx_good_packets"),
                tx_bits: rate("tx_good_bytes").saturating_mul(8),
            },
            lost: LOSSES.iter().map(|name| rate(name)).sum(),
            queues: BTreeMap::new(),
            events: Vec::new(),
        };
        for (name, total) in &port.counters {
            let Some((direction, queue, kind)) = queue_counter(name) else { continue };
            let rates = row.queues.entry(queue).or_default();
            match (direction, kind) {
                ("rx", "packets") => rates.rx_packets = rate(name),
                ("rx", "bytes") => rates.rx_bits = rate(name).saturating_mul(8),
                ("tx", "packets") => rates.tx_packets = rate(name),
                ("tx", "bytes") => rates.tx_bits = rate(name).saturating_mul(8),
                // A queue's errors are the sum of several events.
                (_, "bursts" | "errors") => {}
                _ if *total > 0 => {
                    let name = kind.to_owned();
                    row.events.push(Event {
                        direction,
                        queue,
                        rate: rate(&format!("{direction}_q{queue}_{name}")),
                        name,
                        total: *total,
                    });
                }
                _ => {}
            }
        }
        row
    }

    /// Adds the packets that the application dropped on the way to this port.
    fn drops(&self, row: &mut PortRates, before: &Sample, now: &Sample) {
        for ((port, queue, cause), total) in
            now.drops.iter().filter(|((port, ..), total)| *port == row.port && **total > 0)
        {
            let old = before.drops.get(&(*port, *queue, cause.clone())).copied().unwrap_or(0);
            let rate = self.of(*total, old);
            row.lost = row.lost.saturating_add(rate);
            row.events.push(Event {
                direction: "tx",
                queue: *queue,
                name: cause.clone(),
                rate,
                total: *total,
            });
        }
    }
}

/// Splits a name such as `rx_q0_packets`.
fn queue_counter(name: &str) -> Option<(&'static str, u16, &str)> {
    let (direction, rest) = ["rx", "tx"]
        .into_iter()
        .find_map(|direction| Some((direction, name.strip_prefix(direction)?.strip_prefix("_q")?)))?;
    let (queue, kind) = rest.split_once('_')?;
    Some((direction, queue.parse().ok()?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(counters: &[(&str, u64)]) -> Port {
        let counters = counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Port { name: "net_null0".into(), up: true, counters }
    }

    #[test]
    fn rates_are_of_a_second_and_nothing_counts_backwards() {
        let before =
            port(&[("rx_good_packets", 100), ("tx_errors", 2), ("rx_q0_packets", 90), ("tx_q1_too_long", 4)]);
        let now = port(&[
            ("rx_good_packets", 300),
            ("rx_good_bytes", 64),
            ("tx_errors", 6),
            ("rx_q0_packets", 50),
            ("rx_q1_packets", 2),
            ("tx_q1_too_long", 8),
            ("tx_q1_never", 0),
            ("rx_qx_odd", 1),
            ("rx_q70000_odd", 1),
        ]);
        let row = Rate(Duration::from_secs(2)).port(3, Some(&before), &now);
        assert_eq!((row.rates.rx_packets, row.rates.rx_bits, row.lost), (100, 256, 2));
        assert_eq!((row.queues[&0].rx_packets, row.queues[&1].rx_packets), (25, 1));
        let event = Event { direction: "tx", queue: 1, name: "too_long".into(), rate: 2, total: 8 };
        assert_eq!(row.events, [event]);
    }
}
