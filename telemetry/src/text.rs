//! A program's counters as OpenMetrics text.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `linecard_info` | `version` | 1 |
//! | `linecard_port_up` | `port`, `device` | 1 while its link is up |
//! | `linecard_port_received_packets_total`, `…_bytes_total`, `linecard_port_sent_…` | `port`, `device` | |
//! | `linecard_port_lost_packets_total` | `port`, `device`, `total` | `imissed`, `ierrors`, `oerrors`, `rx_nombuf`, as in DPDK |
//! | `linecard_queue_packets_total`, `_bytes_total`, `_bursts_total` | `port`, `device`, `direction`, `queue` | |
//! | `linecard_queue_events_total` | and `event` | other counters of a driver, including every cause of a loss |
//! | `linecard_application_dropped_packets_total` | `port`, `queue`, `cause` | dropped before the transmit queue |
//! | `linecard_pool_packets` | `pool`, `state` | `free`, `cached`, `in_use` |
//! | `linecard_pool_gets_total`, `_puts_total`, `_get_failures_total` | `pool` | |
//! | `linecard_memory_bytes` | `state` | `held`, `used` |
//! | `linecard_lcore_cycles_total`, `linecard_lcore_busy_cycles_total` | `lcore` | if the program counts them |
//!
//! Counters restart from zero when a port starts and when its statistics are reset.

use linecard_pmd::PortStats;

use crate::openmetrics::Text;
use crate::state::State;

/// A started port and its counters, read once.
struct Port {
    id: String,
    name: String,
    up: bool,
    stats: PortStats,
    queues: Vec<Counted>,
}

/// A counter of a queue.
struct Counted {
    direction: &'static str,
    queue: String,
    name: String,
    value: u64,
}

/// All counters of a program.
pub(crate) fn of(state: &State) -> String {
    let mut text = Text::new("linecard");
    text.family("info", "info", "The program");
    text.line("info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let ports: Vec<Port> = state
        .ports
        .iter()
        .filter_map(|(id, entry)| {
            let control = entry.control()?;
            Some(Port {
                id: id.to_string(),
                name: entry.name.clone(),
                up: control.link().up,
                stats: control.stats(),
                queues: control.xstats().into_iter().filter_map(counted).collect(),
            })
        })
        .collect();
    of_ports(&mut text, &ports);
    of_queues(&mut text, &ports);
    text.family("application_dropped_packets", "counter", "Packets that the application dropped, by cause");
    for drops in state.drops() {
        let (port, queue) = (drops.port.to_string(), drops.queue.to_string());
        let labels = [("port", port.as_str()), ("queue", &queue), ("cause", drops.cause)];
        text.line("application_dropped_packets_total", &labels, drops.packets);
    }
    of_pools(&mut text, state);
    of_machine(&mut text, state);
    text.finish()
}

/// Splits an extended statistic such as `rx_q0_packets`; `None` for one of the whole port.
fn counted((name, value): (String, u64)) -> Option<Counted> {
    let (direction, rest) = ["rx", "tx"]
        .into_iter()
        .find_map(|direction| Some((direction, name.strip_prefix(direction)?.strip_prefix("_q")?)))?;
    let (queue, name) = rest.split_once('_')?;
    queue.parse::<u16>().ok()?;
    Some(Counted { direction, queue: queue.into(), name: name.into(), value })
}

fn of_ports(text: &mut Text, ports: &[Port]) {
    text.family("port_up", "gauge", "Whether frames can pass");
    for port in ports {
        text.line("port_up", &[("port", &port.id), ("device", &port.name)], port.up.into());
    }
    type Value = fn(&PortStats) -> u64;
    for (name, help, value) in [
        ("port_received_packets", "Packets received", (|stats| stats.ipackets) as Value),
        ("port_received_bytes", "Bytes received", |stats| stats.ibytes),
        ("port_sent_packets", "Packets sent", |stats| stats.opackets),
        ("port_sent_bytes", "Bytes sent", |stats| stats.obytes),
    ] {
        text.family(name, "counter", help);
        for port in ports {
            let labels = [("port", port.id.as_str()), ("device", port.name.as_str())];
            text.line(&format!("{name}_total"), &labels, value(&port.stats));
        }
    }
    text.family("port_lost_packets", "counter", "Packets lost, by DPDK's totals");
    for port in ports {
        let PortStats { imissed, ierrors, oerrors, rx_nombuf, .. } = port.stats;
        for (total, count) in
            [("imissed", imissed), ("ierrors", ierrors), ("oerrors", oerrors), ("rx_nombuf", rx_nombuf)]
        {
            let labels = [("port", port.id.as_str()), ("device", &port.name), ("total", total)];
            text.line("port_lost_packets_total", &labels, count);
        }
    }
}

fn of_queues(text: &mut Text, ports: &[Port]) {
    for (family, of, help) in [
        ("queue_packets", "packets", "Packets that a queue moved"),
        ("queue_bytes", "bytes", "Bytes that a queue moved"),
        ("queue_bursts", "bursts", "Bursts that were not empty"),
    ] {
        text.family(family, "counter", help);
        for (port, queue) in queues(ports).filter(|(_, queue)| queue.name == of) {
            text.line(&format!("{family}_total"), &labels(port, queue), queue.value);
        }
    }
    text.family("queue_events", "counter", "What a driver counts besides, every cause of a loss among it");
    // The errors of a queue are the sum of several of its events.
    let moved = ["packets", "bytes", "bursts", "errors"];
    for (port, queue) in queues(ports).filter(|(_, queue)| !moved.contains(&queue.name.as_str())) {
        let mut labels = labels(port, queue).to_vec();
        labels.push(("event", &queue.name));
        text.line("queue_events_total", &labels, queue.value);
    }
}

fn queues(ports: &[Port]) -> impl Iterator<Item = (&Port, &Counted)> {
    ports.iter().flat_map(|port| port.queues.iter().map(move |queue| (port, queue)))
}

fn labels<'a>(port: &'a Port, queue: &'a Counted) -> [(&'static str, &'a str); 4] {
    [("port", &port.id), ("device", &port.name), ("direction", queue.direction), ("queue", &queue.queue)]
}

fn of_pools(text: &mut Text, state: &State) {
    let pools: Vec<_> = state.pools.iter().map(|pool| (pool.name(), pool.stats())).collect();
    text.family("pool_packets", "gauge", "Packets of a pool, by where they are");
    for (name, stats) in &pools {
        for (place, count) in [("free", stats.free), ("cached", stats.cached), ("in_use", stats.in_use)] {
            text.line("pool_packets", &[("pool", name), ("state", place)], count as u64);
        }
    }
    for (family, help, value) in [
        ("pool_gets", "Packets taken", (|stats| stats.gets) as fn(&linecard_mempool::PoolStats) -> u64),
        ("pool_puts", "Packets returned", |stats| stats.puts),
        ("pool_get_failures", "Requests that got nothing because too few were left", |stats| stats.get_fail),
    ] {
        text.family(family, "counter", help);
        for (name, stats) in &pools {
            text.line(&format!("{family}_total"), &[("pool", name)], value(stats));
        }
    }
}

fn of_machine(text: &mut Text, state: &State) {
    let usage = state.memory.usage();
    text.family("memory_bytes", "gauge", "Memory of packets and rings");
    text.line("memory_bytes", &[("state", "held")], usage.total() as u64);
    text.line("memory_bytes", &[("state", "used")], usage.zones as u64);
    let usages = state.usages();
    for (family, help, busy) in [
        ("lcore_cycles", "Cycles since an lcore began to poll", false),
        ("lcore_busy_cycles", "Cycles of rounds that moved packets", true),
    ] {
        text.family(family, "counter", help);
        for usage in &usages {
            let value = if busy { usage.busy_cycles } else { usage.total_cycles };
            text.line(&format!("{family}_total"), &[("lcore", &usage.lcore.to_string())], value);
        }
    }
}
