//! All counters of a program at one moment.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::client::Client;
use crate::error::Error;

/// The counters of a port.
pub(super) struct Port {
    pub(super) name: String,
    pub(super) up: bool,
    /// By the names of DPDK's extended statistics.
    pub(super) counters: BTreeMap<String, u64>,
}

/// The fill level of a pool.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) size: u64,
    /// DPDK's programs do not report this field and those below.
    pub(super) free: Option<u64>,
    pub(super) cached: Option<u64>,
    pub(super) in_use: Option<u64>,
    pub(super) get_fail: Option<u64>,
}

/// The key of packets that an application dropped before a transmit queue took them: port, queue, cause.
pub(super) type DropKey = (u16, u16, String);

/// All counters.
pub(super) struct Sample {
    pub(super) ports: BTreeMap<u16, Port>,
    pub(super) pools: Vec<Pool>,
    /// The busy cycles and all cycles of each lcore, if counted.
    pub(super) lcores: BTreeMap<u64, (u64, u64)>,
    pub(super) drops: BTreeMap<DropKey, u64>,
}

impl Sample {
    /// Requests all counters.
    pub(super) fn take(client: &mut Client) -> Result<Self, Error> {
        let mut ports = BTreeMap::new();
        for id in numbers(&client.ask("/ethdev/list")?) {
            let Ok(id) = u16::try_from(id) else { continue };
            let info = client.ask(&format!("/ethdev/info,{id}"))?;
            let link = client.ask(&format!("/ethdev/link_status,{id}"))?;
            let counters = client.ask(&format!("/ethdev/xstats,{id}"))?;
            let counters = counters.as_object().into_iter().flatten();
            let port = Port {
                name: text(&info["name"]),
                up: link["status"] == "UP",
                counters: counters
                    .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
                    .collect(),
            };
            ports.insert(id, port);
        }
        let mut pools = Vec::new();
        for name in client.ask("/mempool/list")?.as_array().into_iter().flatten().map(text) {
            let info = client.ask(&format!("/mempool/info,{name}"))?;
            let number = |member: &str| info[member].as_u64();
            pools.push(Pool {
                size: number("size").unwrap_or(0),
                free: number("free"),
                cached: number("cached"),
                in_use: number("in_use"),
                get_fail: number("get_fail"),
                name,
            });
        }
        let usage = client.ask("/eal/lcore/usage")?;
        let column = |name: &str| numbers(&usage[name]);
        let cycles = column("busy_cycles").into_iter().zip(column("total_cycles"));
        let lcores = column("lcore_ids").into_iter().zip(cycles).collect();
        let drops = client.ask("/linecard/drops")?;
        let drops = drops.as_array().into_iter().flatten().filter_map(dropped).collect();
        Ok(Self { ports, pools, lcores, drops })
    }
}

fn dropped(value: &Value) -> Option<(DropKey, u64)> {
    let number = |name: &str| value[name].as_u64().and_then(|number| u16::try_from(number).ok());
    Some(((number("port")?, number("queue")?, text(&value["cause"])), value["packets"].as_u64()?))
}

fn text(value: &Value) -> String {
    // The text comes from another program and goes to a terminal.
    value.as_str().unwrap_or("?").chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}
