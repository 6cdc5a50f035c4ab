//! `/ethdev/…`: ports.

use std::fmt::Write as _;

use linecard_pmd::offload::RxOffloads;
use linecard_pmd::{PortControl, PortStats};

use crate::command::Row;
use crate::state::{PortEntry, State};
use crate::value::Value;

pub(crate) const COMMANDS: &[Row] = &[
    ("/ethdev/list", "Returns list of available ethdev ports. Takes no parameters", list),
    ("/ethdev/stats", "Returns the common stats for a port. Parameters: int port_id", stats),
    (
        "/ethdev/xstats",
        "Returns the extended stats for a port. Parameters: int port_id[,hide_zero=true]",
        xstats,
    ),
    ("/ethdev/link_status", "Returns the link status for a port. Parameters: int port_id", link_status),
    ("/ethdev/info", "Returns the device info for a port. Parameters: int port_id", info),
    (
        "/ethdev/dump_priv",
        "Returns what the port negotiated, and its data paths. Parameters: int port_id",
        dump_priv,
    ),
];

/// The number of queues in `/ethdev/stats`, always the same (`RTE_ETHDEV_QUEUE_STAT_CNTRS`).
const QUEUES: u16 = 16;

fn list(state: &State, _: Option<&str>) -> Value {
    Value::list(state.ports.keys().copied())
}

/// The port with the number in the parameters, and the parameters behind it.
fn port<'a>(state: &'a State, given: Option<&'a str>) -> Option<(u16, &'a PortEntry, &'a str)> {
    let given = given?;
    let (number, rest) = given.split_once(',').unwrap_or((given, ""));
    let id = number.parse().ok()?;
    Some((id, state.ports.get(&id)?, rest))
}

/// The answer of a port's control side; null for a port that does not exist.
fn ask(state: &State, given: Option<&str>, of: impl FnOnce(Option<&dyn PortControl>) -> Value) -> Value {
    port(state, given).map_or(Value::Null, |(_, entry, _)| of(entry.control().as_deref()))
}

fn stats(state: &State, given: Option<&str>) -> Value {
    ask(state, given, |control| {
        let all = control.map_or(PortStats::default(), PortControl::stats);
        let queues: Vec<PortStats> = (0..QUEUES)
            .map(|queue| control.map_or(PortStats::default(), |control| control.queue_stats(queue)))
            .collect();
        let each = |of: fn(&PortStats) -> u64| Value::list(queues.iter().map(of));
        Value::object([
            ("ipackets", Value::from(all.ipackets)),
            ("opackets", all.opackets.into()),
            ("ibytes", all.ibytes.into()),
            ("obytes", all.obytes.into()),
            ("imissed", all.imissed.into()),
            ("ierrors", all.ierrors.into()),
            ("oerrors", all.oerrors.into()),
            ("rx_nombuf", all.rx_nombuf.into()),
            ("q_ipackets", each(|queue| queue.ipackets)),
            ("q_opackets", each(|queue| queue.opackets)),
            ("q_ibytes", each(|queue| queue.ibytes)),
            ("q_obytes", each(|queue| queue.obytes)),
            ("q_errors", each(|queue| queue.ierrors)),
        ])
    })
}

fn xstats(state: &State, given: Option<&str>) -> Value {
    let Some((_, entry, rest)) = port(state, given) else { return Value::Null };
    let all = rest.trim() != "hide_zero=true";
    let counters = entry.control().map_or(Vec::new(), |control| control.xstats());
    let shown = counters.into_iter().filter(|(_, value)| all || *value > 0);
    Value::object(shown.map(|(name, value)| (name, value.into())))
}

fn link_status(state: &State, given: Option<&str>) -> Value {
    ask(state, given, |control| {
        let Some(link) = control.map(PortControl::link).filter(|link| link.up) else {
            return Value::object([("status", "DOWN".into())]);
        };
        let duplex = if link.full_duplex { "full-duplex" } else { "half-duplex" };
        // RTE_ETH_SPEED_NUM_UNKNOWN
        let speed = link.speed_mbps.unwrap_or(u32::MAX);
        Value::object([("status", "UP".into()), ("speed", speed.into()), ("duplex", duplex.into())])
    })
}

fn info(state: &State, given: Option<&str>) -> Value {
    let Some((id, entry, _)) = port(state, given) else { return Value::Null };
    let control = entry.control();
    let control = control.as_deref();
    let started = control.is_some();
    let rx = entry.offloads.rx;
    let buffer =
        state.pools.first().map_or(0, |pool| u32::from(pool.headroom()) + u32::from(pool.data_room()));
    let queues = |count: u16| Value::list((0..count).map(|_| u64::from(started)));
    let mut all = vec![
        ("name", Value::from(entry.name.as_str())),
        // RTE_ETH_DEV_ATTACHED
        ("state", 1_u64.into()),
        ("nb_rx_queues", entry.rx_queues.into()),
        ("nb_tx_queues", entry.tx_queues.into()),
        ("port_id", id.into()),
    ];
    if let Some(control) = control {
        all.extend([
            ("mtu", Value::from(control.mtu())),
            ("rx_mbuf_size_min", buffer.into()),
            ("rx_mbuf_alloc_fail", control.stats().rx_nombuf.into()),
            ("mac_addr", address(control.mac()).into()),
            ("promiscuous", control.promiscuous().into()),
            ("scattered_rx", rx.contains(RxOffloads::SCATTER).into()),
            ("all_multicast", control.allmulticast().into()),
        ]);
    }
    all.extend([
        ("dev_started", Value::from(started)),
        ("lro", rx.contains(RxOffloads::TCP_LRO).into()),
        ("dev_configured", 1_u64.into()),
        ("rxq_state", queues(entry.rx_queues)),
        ("txq_state", queues(entry.tx_queues)),
        ("numa_node", 0_u64.into()),
        ("dev_flags", 0_u64.into()),
        ("rx_offloads", rx.bits().into()),
        ("tx_offloads", entry.offloads.tx.bits().into()),
        ("ethdev_rss_hf", 0_u64.into()),
    ]);
    Value::object(all)
}

/// In DPDK's format.
fn address(mac: [u8; 6]) -> String {
    let mut text = String::new();
    for (at, byte) in mac.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{byte:02X}", if at == 0 { "" } else { ":" });
    }
    text
}

fn dump_priv(state: &State, given: Option<&str>) -> Value {
    ask(state, given, |control| {
        let Some(control) = control else { return Value::Null };
        let parts = [("features", control.features()), ("paths", control.paths())];
        let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
        Value::object(parts.map(|(name, text)| (name, text.into())))
    })
}
