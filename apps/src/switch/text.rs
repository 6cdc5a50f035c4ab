//! Answers of a switch as tables for people.

use std::fmt::Write as _;

use super::top::Row;
use linecard_switch::api::{
    Cause, FdbEntry, PortInfo, PortKind, PortState, QueueMove, Stats, Trace, TraceVerdict, Vlan, WorkerInfo,
};

fn state(state: PortState) -> &'static str {
    match state {
        PortState::Up => "up",
        PortState::Down => "down",
        PortState::Waiting => "waiting",
    }
}

fn kind(kind: &PortKind) -> String {
    match kind {
        PortKind::VhostUser { path, client, .. } => {
            format!("vhost-user {} ({})", path.display(), if *client { "connects" } else { "listens" })
        }
        PortKind::VhostUserFd { origin: Some(origin) } => {
            format!("vhost-user @{} in {}", origin.name, origin.netns.display())
        }
        PortKind::VhostUserFd { origin: None } => "vhost-user, passed socket".into(),
        PortKind::Tap { name, netns: None } => format!("tap {name}"),
        PortKind::Tap { name, netns: Some(netns) } => format!("tap {name} in {}", netns.display()),
        PortKind::Vxlan { vni, remotes, .. } => {
            let remotes: Vec<String> = remotes.iter().map(ToString::to_string).collect();
            format!(
                "vxlan {vni} with {}",
                if remotes.is_empty() { "anybody".into() } else { remotes.join(", ") }
            )
        }
        PortKind::Vdev { device } => device.clone(),
    }
}

fn vlan(vlan: Option<&Vlan>) -> String {
    match vlan {
        None => "-".into(),
        Some(Vlan::Access(vlan)) => vlan.to_string(),
        Some(Vlan::Trunk(trunk)) => {
            let vlans: Vec<String> = trunk.vlans.iter().map(u16::to_string).collect();
            let native = trunk.native.map_or(String::new(), |vlan| format!(" native {vlan}"));
            format!("trunk {}{native}", vlans.join(","))
        }
    }
}

/// Formats rows in columns of minimal width.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|name| name.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heading: Vec<String> = heading.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The text of `ports`.
pub(crate) fn ports(ports: &[PortInfo]) -> String {
    let rows: Vec<_> = ports
        .iter()
        .map(|port| {
            vec![
                port.spec.key.clone(),
                state(port.state).into(),
                kind(&port.spec.kind),
                port.spec.mac.map_or("-".into(), |mac| mac.to_string().to_lowercase()),
                vlan(port.spec.vlan.as_ref()),
                port.addresses.to_string(),
            ]
        })
        .collect();
    table(&["KEY", "STATE", "PORT", "MAC", "VLAN", "ADDRESSES"], &rows)
}

/// The text of `show`.
pub(crate) fn port(port: &PortInfo) -> String {
    let spec = &port.spec;
    let mut text = String::new();
    let ips: Vec<String> = spec.ips.iter().map(ToString::to_string).collect();
    for (name, value) in [
        ("key", spec.key.clone()),
        ("state", state(port.state).into()),
        ("port", kind(&spec.kind)),
        ("device", port.device.clone()),
        ("mac", spec.mac.map_or("any".into(), |mac| mac.to_string().to_lowercase())),
        ("ips", if ips.is_empty() { "any".into() } else { ips.join(" ") }),
        ("vlan", vlan(spec.vlan.as_ref())),
        ("mtu", spec.mtu.to_string()),
        ("addresses", port.addresses.to_string()),
        ("received", format!("{} packets, {} bytes", port.counters.rx_packets, port.counters.rx_bytes)),
        ("sent", format!("{} packets, {} bytes", port.counters.tx_packets, port.counters.tx_bytes)),
        ("direct", format!("{} of these packets, copied once", port.counters.tx_direct)),
    ] {
        let _ = writeln!(text, "{name:<10} {value}");
    }
    if let Some(share) = &spec.shares {
        let _ = writeln!(text, "shares     {} of port {}", share.ports, share.with);
    }
    let lost = port.counters.drops.causes().filter(|(_, count)| *count > 0);
    for (name, count) in lost {
        let meaning =
            Cause::ALL.iter().find(|cause| cause.name() == name).map_or("", |cause| cause.meaning());
        let _ = writeln!(text, "lost       {count} {name}: {meaning}");
    }
    text
}

/// The text of `fdb`.
pub(crate) fn fdb(entries: &[FdbEntry]) -> String {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                entry.mac.to_string().to_lowercase(),
                if entry.vlan == 0 { "-".into() } else { entry.vlan.to_string() },
                entry.port.clone(),
                if entry.fixed { "fixed".into() } else { format!("{} s", entry.age_seconds) },
            ]
        })
        .collect();
    table(&["MAC", "VLAN", "PORT", "AGE"], &rows)
}

/// The text of `stats`.
pub(crate) fn stats(stats: &Stats) -> String {
    let rows: Vec<_> = stats
        .ports
        .iter()
        .map(|port| {
            let counters = &port.counters;
            let lost: Vec<String> = counters
                .drops
                .causes()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("{count} {name}"))
                .collect();
            vec![
                port.spec.key.clone(),
                counters.rx_packets.to_string(),
                counters.tx_packets.to_string(),
                if lost.is_empty() { "0".into() } else { lost.join(", ") },
            ]
        })
        .collect();
    format!(
        "up {} s, {} workers, {} addresses\n{}",
        stats.uptime_seconds,
        stats.workers,
        stats.addresses,
        table(&["KEY", "RECEIVED", "SENT", "LOST"], &rows)
    )
}

/// The text of `workers`.
pub(crate) fn workers(workers: &[WorkerInfo]) -> String {
    let rows: Vec<_> = workers
        .iter()
        .flat_map(|worker| {
            let cores: Vec<String> = worker.cores.iter().map(u32::to_string).collect();
            let row = move |port: &str, queue: String, packets: String| {
                vec![worker.id.to_string(), cores.join(","), port.to_owned(), queue, packets]
            };
            let mut rows: Vec<_> = worker
                .queues
                .iter()
                .map(|queue| row(&queue.port, queue.queue.to_string(), queue.rx_packets.to_string()))
                .collect();
            if rows.is_empty() {
                rows.push(row("-", "-".into(), "-".into()));
            }
            rows
        })
        .collect();
    table(&["WORKER", "CORES", "PORT", "QUEUE", "RECEIVED"], &rows)
}

/// The text of `rebalance`.
pub(crate) fn moves(moves: &[QueueMove]) -> String {
    if moves.is_empty() {
        return "every queue stays where it is\n".into();
    }
    let line =
        |asked: &QueueMove| format!("queue {} of {} is worker {}'s\n", asked.queue, asked.port, asked.worker);
    moves.iter().map(line).collect()
}

/// The text of `top`.
pub(crate) fn top(stats: &Stats, rows: &[Row]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let cause = row.cause.map_or(String::new(), |cause| format!(" {cause}"));
            vec![
                row.key.clone(),
                short(row.rx_packets),
                short(row.rx_bits),
                short(row.tx_packets),
                short(row.tx_bits),
                format!("{}{cause}", short(row.drops)),
            ]
        })
        .collect();
    format!(
        "up {} s, {} ports, {} addresses; a second\n{}",
        stats.uptime_seconds,
        stats.ports.len(),
        stats.addresses,
        table(&["KEY", "RX PKT", "RX BIT", "TX PKT", "TX BIT", "LOST"], &cells)
    )
}

/// Formats a number with three digits and a decimal prefix.
fn short(number: u64) -> String {
    let mut rest = number as f64;
    for prefix in ["", "k", "M", "G", "T"] {
        if rest < 999.5 {
            let digits = if prefix.is_empty() || rest >= 99.95 { 0 } else { 1 };
            return format!("{rest:.digits$}{prefix}");
        }
        rest /= 1000.0;
    }
    format!("{rest:.0}P")
}

/// The text of `trace`.
pub(crate) fn trace(trace: &Trace) -> String {
    let mut text = String::new();
    for step in &trace.steps {
        let _ = writeln!(text, "{step}");
    }
    let ports: Vec<&str> =
        trace.ports.iter().filter(|port| port.cause.is_none()).map(|port| port.port.as_str()).collect();
    let verdict = match trace.verdict {
        TraceVerdict::Drop => "dropped".into(),
        TraceVerdict::Answer => "answered".into(),
        _ if ports.is_empty() => "reaches nobody".into(),
        TraceVerdict::Forward | TraceVerdict::Flood => format!("reaches {}", ports.join(", ")),
    };
    let _ = writeln!(text, "{verdict}");
    text
}
