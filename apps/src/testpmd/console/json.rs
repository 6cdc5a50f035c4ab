//! `show … json`: the answer of a `show` command as one line of JSON. Members have the names of DPDK's
//! telemetry where it has the same value.

use linecard::pmd::{Link, Offloads, PortStats, QueueId};
use serde_json::{Value, json};

use super::grammar::{self, Match, Target, Values};
use crate::output::out;
use crate::testpmd::layout::ForwardTotals;
use crate::testpmd::ports::PortRecord;
use crate::testpmd::session::Session;
use crate::testpmd::soft::rss::RETA_SIZE;

/// Returns a command's answer as JSON, or an error message.
type Answer = fn(&mut Session, &Values) -> Result<Value, String>;

/// The `show` commands with a JSON answer, by pattern.
const ANSWERS: &[(&str, Answer)] = &[
    ("show port (info|summary|stats|xstats) <port|all>", ports),
    ("show config (rxtx|cores|fwd|rxpkts|txpkts|txtimes|rxoffs|rxhdrs)", config),
    ("show fwd stats all", |session, _| Ok(forward_stats(session))),
    ("show pool", |session, _| Ok(pool(session))),
    ("show port <port> macs", |session, values| Ok(strings(slot(session, values, 0)?.macs()))),
    ("show port <port> gso", gso),
    ("show port <port> (rx_offload|tx_offload) (capabilities|configuration)", offloads),
    ("show (rxq|txq) info <port> <n>", queue),
    ("show port <port> (rxq|txq) <n> desc used count", used_descriptors),
    ("show device info <text>", devices),
    ("show port <port> mcast_macs", |session, values| Ok(strings(&slot(session, values, 0)?.soft.groups))),
    ("show port <port> rss-hash", |session, values| rss(session, values, false)),
    ("show port <port> rss-hash key", |session, values| rss(session, values, true)),
    ("show port <port> rss reta <n> <text>", reta),
    ("show capture", |session, _| Ok(captures(session))),
];

/// Returns the command without its last word if that is `json`.
fn asked(line: &str) -> Option<&str> {
    let line = line.split('#').next().unwrap_or_default().trim();
    line.strip_suffix("json").filter(|rest| rest.ends_with([' ', '\t']))
}

/// Answers `line` if it ends with `json` and is a known command; false otherwise.
pub(super) fn answer(session: &mut Session, line: &str) -> bool {
    let Some(command) = asked(line) else { return false };
    let Match::Found(answer, values) = grammar::find(ANSWERS.iter().copied(), command) else { return false };
    let value = answer(session, &values).unwrap_or_else(|problem| json!({ "error": problem }));
    out!(session.out, "{value}\n");
    true
}

/// Returns the port that is value `index` of the command.
fn slot<'a>(session: &'a Session, values: &Values, index: usize) -> Result<&'a PortRecord, String> {
    let id = values.port(index);
    session.ports.get(id).ok_or_else(|| format!("Invalid port {id}"))
}

fn strings<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn ports(session: &mut Session, values: &Values) -> Result<Value, String> {
    let ids = match values.target(1) {
        Target::All => session.ports.ids(),
        Target::Port(id) if session.ports.get(id).is_some() => vec![id],
        Target::Port(id) => return Err(format!("Invalid port {id}")),
    };
    let hide_zero = session.settings.hide_zero_xstats;
    let of = |id: u16| {
        let slot = session.ports.get(id)?;
        Some(match values.word(0) {
            "info" => info(slot),
            "summary" => summary(slot),
            "stats" => with_port(id, stats(&slot.stats())),
            _ => {
                let shown = slot.xstats().into_iter().filter(|(_, value)| !hide_zero || *value > 0);
                let all: serde_json::Map<String, Value> =
                    shown.map(|(name, value)| (name, value.into())).collect();
                json!({ "port_id": id, "xstats": all })
            }
        })
    };
    Ok(ids.into_iter().filter_map(of).collect())
}

fn with_port(id: u16, mut value: Value) -> Value {
    value["port_id"] = id.into();
    value
}

fn stats(stats: &PortStats) -> Value {
    let PortStats { ipackets, opackets, ibytes, obytes, imissed, ierrors, oerrors, rx_nombuf, .. } = stats;
    json!({
        "ipackets": ipackets, "opackets": opackets, "ibytes": ibytes, "obytes": obytes, "imissed": imissed,
        "ierrors": ierrors, "oerrors": oerrors, "rx_nombuf": rx_nombuf,
    })
}

fn link(link: &Link) -> Value {
    let duplex = if link.full_duplex { "full-duplex" } else { "half-duplex" };
    json!({ "status": if link.up { "UP" } else { "DOWN" }, "speed": link.speed_mbps, "duplex": duplex })
}

fn summary(slot: &PortRecord) -> Value {
    let facts = slot.facts();
    json!({
        "port_id": facts.id, "mac_addr": facts.mac.to_string(), "name": facts.name, "driver": facts.driver,
        "link": link(&facts.link),
    })
}

fn info(slot: &PortRecord) -> Value {
    let (facts, mut value) = (slot.facts(), summary(slot));
    let more = json!({
        "devargs": facts.devargs,
        "dev_started": slot.started(),
        "mtu": facts.mtu,
        "promiscuous": facts.promiscuous,
        "all_multicast": facts.allmulticast,
        "max_mac_addrs": facts.max_macs,
        "nb_rx_queues": facts.queues.0,
        "nb_tx_queues": facts.queues.1,
        "max_rx_queues": facts.max_queues.0,
        "max_tx_queues": facts.max_queues.1,
        "min_descriptors": facts.depth.0,
        "max_descriptors": facts.depth.1,
        "max_rx_pktlen": facts.max_frame,
        "max_lro_pkt_size": facts.max_lro,
        "vlan_offload": {
            "strip": facts.vlan.strip, "filter": facts.vlan.filter, "qinq_strip": facts.vlan.qinq_strip,
        },
        "rss_types": facts.rss,
        "features": facts.features,
        "paths": facts.paths,
    });
    if let (Some(all), Some(more)) = (value.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    value
}

fn config(session: &mut Session, values: &Values) -> Result<Value, String> {
    let settings = &session.settings;
    Ok(match values.word(0) {
        "cores" => json!(session.configured_lcores()),
        "rxpkts" => json!({ "segments": settings.rx_segments }),
        "txpkts" => json!({ "segments": settings.tx_segments }),
        // No command sets one of these.
        "txtimes" => json!({ "inter_burst": 0, "intra_burst": 0 }),
        "rxoffs" => json!({ "offsets": [] }),
        "rxhdrs" => json!({ "segments": [] }),
        "fwd" => {
            let stream = |lcore: u32, stream: &crate::testpmd::topology::Stream| {
                json!({
                    "lcore": lcore, "rx_port": stream.rx_port, "rx_queue": stream.rx_queue, "tx_port": stream.tx_port,
                    "tx_queue": stream.tx_queue, "peer": settings.peer(stream.tx_port).to_string(),
                })
            };
            let shares = session.shares();
            let streams =
                shares.iter().flat_map(|share| share.streams.iter().map(|one| stream(share.lcore, one)));
            json!({ "mode": settings.mode.name(), "retry": settings.retry.enabled, "streams": streams.collect::<Value>() })
        }
        _ => {
            let port = |slot: &PortRecord| {
                let config = slot.config();
                json!({
                    "port_id": slot.id, "nb_rx_queues": config.rx_queues, "nb_tx_queues": config.tx_queues,
                    "rx_descriptors": slot.depth(QueueId::Receive(0)), "tx_descriptors": slot.depth(QueueId::Transmit(0)),
                    "rx_offloads": config.offloads.rx.bits(), "tx_offloads": config.offloads.tx.bits(),
                })
            };
            let ports = session.forwarding_ports();
            let ports = ports.iter().filter_map(|id| session.ports.get(*id)).map(port);
            json!({
                "mode": settings.mode.name(), "burst": settings.burst, "lcores": session.forwarding_lcores(),
                "ports": ports.collect::<Value>(),
            })
        }
    })
}

fn forward_stats(session: &mut Session) -> Value {
    let one = |(id, totals): &(u16, ForwardTotals)| {
        let mut value = with_port(*id, stats(&totals.stats));
        value["tx_dropped"] = totals.tx_dropped.into();
        if let Some((ip, l4)) = totals.bad_checksums {
            value["bad_ipcsum"] = ip.into();
            value["bad_l4csum"] = l4.into();
        }
        value
    };
    let (_, totals) = session.forward_totals();
    let mut all =
        json!({ "running": session.forwarding(), "ports": totals.iter().map(one).collect::<Value>() });
    if let Some(latency) = &session.live.latency {
        let named = latency.named().into_iter().map(|(name, ns)| (name.to_owned(), Value::from(ns)));
        all["latency"] = named.collect();
    }
    all
}

fn pool(session: &Session) -> Value {
    let stats = session.pool.stats();
    json!({
        "name": session.pool.name(), "size": stats.total, "free": stats.free, "cached": stats.cached,
        "in_use": stats.in_use,
    })
}

fn gso(session: &mut Session, values: &Values) -> Result<Value, String> {
    let on = slot(session, values, 0)?.gso;
    Ok(json!({ "enabled": on, "max_packet_size": on.then_some(session.settings.gso_size) }))
}

fn offloads(session: &mut Session, values: &Values) -> Result<Value, String> {
    let slot = slot(session, values, 0)?;
    let capabilities = values.word(2) == "capabilities";
    let Offloads { rx, tx } = if capabilities { slot.offered() } else { slot.config().offloads };
    let text = if values.word(1) == "rx_offload" { rx.to_string() } else { tx.to_string() };
    Ok(strings(text.split_whitespace()))
}

fn used_descriptors(session: &mut Session, values: &Values) -> Result<Value, String> {
    let (receive, number) = (values.word(1) == "rxq", values.number(2));
    let slot = slot(session, values, 0)?;
    let queue = queue_of(slot, receive, number)?;
    let control = slot.control().ok_or_else(|| format!("Please start port {} first", slot.id))?;
    let used = control.used_descriptors(queue).map_err(|error| error.to_string())?;
    Ok(json!({ "port_id": slot.id, "queue_id": number, "used_descriptors": used }))
}

/// Returns a queue of a port, or an error if the port does not have it.
fn queue_of(slot: &PortRecord, receive: bool, number: u32) -> Result<QueueId, String> {
    let config = slot.config();
    let queues = if receive { config.rx_queues } else { config.tx_queues };
    if number >= queues.into() {
        let side = if receive { "RX" } else { "TX" };
        return Err(format!("Invalid {side} queue {number} (must be < {queues})"));
    }
    // Smaller than the number of queues, which is a `u16`.
    let index = u16::try_from(number).unwrap_or(u16::MAX);
    Ok(if receive { QueueId::Receive(index) } else { QueueId::Transmit(index) })
}

fn queue(session: &mut Session, values: &Values) -> Result<Value, String> {
    let (receive, number) = (values.word(0) == "rxq", values.number(2));
    let slot = slot(session, values, 1)?;
    let queue = queue_of(slot, receive, number)?;
    let state = if slot.queue_started(queue) { "started" } else { "stopped" };
    let mut value = json!({
        "port_id": slot.id, "queue_id": number, "state": state, "descriptors": slot.depth(queue),
        "deferred_start": slot.config().deferred.contains(&queue),
    });
    if receive {
        value["mempool"] = session.pool.name().into();
        value["buffer_size"] = session.options.data_room().into();
    }
    Ok(value)
}

fn devices(session: &mut Session, values: &Values) -> Result<Value, String> {
    let name = values.word(0);
    let found: Vec<Value> =
        session.ports.iter().filter(|slot| name == "all" || slot.name == name).map(summary).collect();
    if found.is_empty() && name != "all" {
        return Err(format!("no port is of device {name}"));
    }
    Ok(found.into())
}

fn rss(session: &mut Session, values: &Values, with_key: bool) -> Result<Value, String> {
    let rss = slot(session, values, 0)?.soft.rss.as_ref().filter(|rss| rss.types.any());
    let Some(rss) = rss else { return Ok(json!({ "enabled": false })) };
    let mut value = json!({ "enabled": true, "types": rss.types.names() });
    if with_key {
        value["key"] = rss.key.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    }
    Ok(value)
}

/// Returns all entries up to the given size; the masks are ignored.
fn reta(session: &mut Session, values: &Values) -> Result<Value, String> {
    let size = values.number(1) as usize;
    if size == 0 || size > RETA_SIZE {
        return Err(format!("Invalid redirection table size: {size} (1-{RETA_SIZE})"));
    }
    let rss = slot(session, values, 0)?.soft.rss.as_ref();
    Ok(rss.map_or(Value::Null, |rss| rss.reta.iter().take(size).copied().collect()))
}

fn captures(session: &Session) -> Value {
    let one = |(port, recording): (&u16, &crate::testpmd::recording::Recording)| {
        json!({
            "port_id": port, "path": recording.path.display().to_string(), "packets": recording.written(),
            "ended": recording.ended(),
        })
    };
    let socket = session.server.as_ref().map(|server| server.path().display().to_string());
    json!({ "files": session.recordings.iter().map(one).collect::<Value>(), "socket": socket })
}

#[cfg(test)]
mod tests {
    use super::super::commands;
    use super::*;

    #[test]
    fn every_show_command_has_an_answer() {
        let mut shown: Vec<&str> = commands::all()
            .map(|command| command.pattern)
            .filter(|pattern| pattern.starts_with("show"))
            .collect();
        let mut answered: Vec<&str> = ANSWERS.iter().map(|(pattern, _)| *pattern).collect();
        shown.sort_unstable();
        answered.sort_unstable();
        assert_eq!(shown, answered);
    }

    #[test]
    fn json_is_asked_for_by_the_last_word() {
        assert_eq!(asked("show port info 0 json"), Some("show port info 0 "));
        assert_eq!(asked(" show pool\tjson # now"), Some("show pool\t"));
        for line in ["show pool", "json", "show pooljson", "show pool json x", ""] {
            assert_eq!(asked(line), None, "{line}");
        }
    }
}
