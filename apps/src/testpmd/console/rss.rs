//! Commands for receive-side scaling, done in software on ports with several receive queues.

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::Values;
use crate::output::{err, out};
use crate::testpmd::options::parse_number;
use crate::testpmd::session::Session;
use crate::testpmd::soft::rss::{KEY_LEN, RETA_SIZE, Rss, RssTypes};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "port config all rss <text>",
        help: "Spread flows over the receive queues of every port by their addresses (ip), those and ports (tcp, udp), all or none; or one type of flow by DPDK's number: 2, 4, 5 (IPv4, TCP, UDP), 8, 10 or 11 (IPv6).",
        run: set_types,
    },
    Command {
        pattern: "port config <port> rss reta <text>",
        help: "Set entries of the redirection table: (hash_index,queue_id)[,(…)].",
        run: set_reta,
    },
    Command {
        pattern: "port config <port> rss-hash-key <text> <text>",
        help: "Set the hash key: a type of flow, for DPDK's sake, and 80 hexadecimal digits.",
        run: set_key,
    },
    Command {
        pattern: "show port <port> rss-hash",
        help: "Display which flows are hashed.",
        run: |session, values| show_hash(session, values, false),
    },
    Command {
        pattern: "show port <port> rss-hash key",
        help: "Display which flows are hashed, and the key.",
        run: |session, values| show_hash(session, values, true),
    },
    Command {
        pattern: "show port <port> rss reta <n> <text>",
        help: "Display entries of the redirection table: its size (128), and masks of 64 entries each: (0xff,0x0).",
        run: show_reta,
    },
];

/// Types of flow that DPDK can hash and this program cannot.
const FOREIGN: &[&str] = &[
    "ether",
    "port",
    "sctp",
    "vxlan",
    "geneve",
    "nvgre",
    "vxlan-gpe",
    "vlan",
    "ah",
    "l2tpv3",
    "esp",
    "pfcp",
    "gtpu",
    "ecpri",
    "mpls",
    "l2tpv2",
    "ppp",
    "l3-src-only",
    "l3-dst-only",
    "l4-src-only",
    "l4-dst-only",
    "level-default",
    "level-outer",
    "level-inner",
];

/// Returns the types that a name or number of `port config all rss` selects, or the error message.
fn types(name: &str) -> Result<RssTypes, String> {
    if let Some(types) = RssTypes::named(name) {
        return Ok(types);
    }
    match parse_number(name) {
        None if FOREIGN.contains(&name) => {
            Err(format!("not supported here: RSS of {name}; instead: all, ip, tcp, udp or none"))
        }
        None => Err(format!("Unknown parameter {name}; write all, default, ip, tcp, udp or none")),
        Some(flow @ 1..64) => RssTypes::numbered(flow).ok_or_else(|| {
            format!("not supported here: RSS of flow type {flow}; instead: 2, 4, 5, 8, 10, 11 or all")
        }),
        Some(_) => Err("flowtype_id should be greater than 0 and less than 64.".into()),
    }
}

fn set_types(session: &mut Session, values: &Values) {
    let types = match types(values.word(0)) {
        Ok(types) => types,
        Err(answer) => return err!(session.out, "{answer}\n"),
    };
    // All or none: if one port refuses, no port changes.
    let single: Vec<u16> =
        session.ports.iter().filter(|slot| slot.config().rx_queues < 2).map(|slot| slot.id).collect();
    for id in &single {
        err!(
            session.out,
            "Multi-queue RSS mode isn't enabled.\nConfiguration of RSS hash at ethernet port {id} failed with error \
             (95): Operation not supported.\n"
        );
    }
    if !single.is_empty() {
        return;
    }
    for id in session.ports.ids() {
        change(session, id, |rss| rss.types = types);
    }
}

/// Changes how a port distributes flows, effective immediately.
fn change(session: &mut Session, id: u16, change: impl FnOnce(&mut Rss)) {
    let Some(slot) = session.ports.get_mut(id) else { return };
    let queues = slot.config().rx_queues;
    change(slot.soft.rss.get_or_insert_with(|| Rss::new(queues)));
    session.apply_rules(id);
}

/// Returns the number of receive queues of a port with several; prints an error and `then` otherwise.
fn queues(session: &mut Session, id: u16, then: &str) -> Option<u16> {
    match session.ports.get(id).map(|slot| slot.config().rx_queues) {
        None => invalid_port(session, id),
        Some(0 | 1) => err!(session.out, "Multi-queue RSS mode isn't enabled.\n{then}"),
        Some(queues) => return Some(queues),
    }
    None
}

fn set_reta(session: &mut Session, values: &Values) {
    let id = values.port(0);
    let failed = "Bad redirection table parameter, return code = ";
    let Some(queues) = queues(session, id, &format!("{failed}-95\n")) else { return };
    let Some(entries) = pairs(values.word(1)) else {
        let text = values.word(1);
        return err!(session.out, "{failed}-22: {text} is not written as (hash_index,queue_id)[,(…)]\n");
    };
    if let Some((entry, _)) = entries.iter().find(|(entry, _)| *entry >= RETA_SIZE as u32) {
        return err!(session.out, "Invalid RETA hash index={entry}; it must be below {RETA_SIZE}\n");
    }
    if let Some((_, queue)) = entries.iter().find(|(_, queue)| *queue >= queues.into()) {
        return err!(
            session.out,
            "{failed}-22: queue {queue} exceeds the maximum rxq index {}\n",
            queues - 1
        );
    }
    change(session, id, |rss| {
        entries.iter().for_each(|(entry, queue)| rss.reta[*entry as usize] = *queue as u16);
    });
}

/// Parses the pairs of `(0,1),(2,3)`.
fn pairs(text: &str) -> Option<Vec<(u32, u32)>> {
    let number = |text: &str| u32::try_from(parse_number(text)?).ok();
    let inside = text.strip_prefix('(')?.strip_suffix(')')?;
    let pair = |pair: &str| {
        let (entry, queue) = pair.split_once(',')?;
        Some((number(entry)?, number(queue)?))
    };
    inside.split("),(").map(pair).collect()
}

/// The types of flow that `rss-hash-key` of DPDK 22.11 takes. A port has one key for all of them.
const KEY_TYPES: &[&str] = &[
    "ipv4",
    "ipv4-frag",
    "ipv4-tcp",
    "ipv4-udp",
    "ipv4-sctp",
    "ipv4-other",
    "ipv6",
    "ipv6-frag",
    "ipv6-tcp",
    "ipv6-udp",
    "ipv6-sctp",
    "ipv6-other",
    "l2-payload",
    "ipv6-ex",
    "ipv6-tcp-ex",
    "ipv6-udp-ex",
    "l3-src-only",
    "l3-dst-only",
    "l4-src-only",
    "l4-dst-only",
    "l2-src-only",
    "l2-dst-only",
    "s-vlan",
    "c-vlan",
    "l2tpv3",
    "esp",
    "ah",
    "pfcp",
    "pppoe",
    "gtpu",
    "ecpri",
    "mpls",
    "l2tpv2",
];

fn set_key(session: &mut Session, values: &Values) {
    let (id, kind, digits) = (values.port(0), values.word(1), values.word(2));
    if !KEY_TYPES.contains(&kind) {
        let known = KEY_TYPES.join(", ");
        return err!(session.out, "rss-hash-key {kind} invalid - must be a type of flow: {known}\n");
    }
    let mut key = [0; KEY_LEN];
    if digits.len() != 2 * KEY_LEN || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let len = digits.len();
        let want = 2 * KEY_LEN;
        return err!(
            session.out,
            "key length: {len} invalid - key must be a string of {want} hexa-decimal numbers\n"
        );
    }
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    if queues(session, id, "").is_some() {
        change(session, id, |rss| rss.set_key(key));
    }
}

fn show_hash(session: &mut Session, values: &Values, with_key: bool) {
    let Some(slot) = session.ports.get(values.port(0)) else { return invalid_port(session, values.port(0)) };
    let Some(rss) = slot.soft.rss.as_ref().filter(|rss| rss.types.any()) else {
        return out!(session.out, "RSS disabled\n");
    };
    let mut text = String::from("RSS functions:\n");
    for (index, name) in rss.types.names().into_iter().enumerate() {
        // As many names as fit into DPDK's lines of 80 characters.
        text += if index == 6 { "\n  " } else { "  " };
        text += name;
    }
    text += "\n";
    if with_key {
        let digits: String = rss.key.iter().map(|byte| format!("{byte:02X}")).collect();
        text += &format!("RSS key:\n{digits}\n");
    }
    out!(session.out, "{text}");
}

fn show_reta(session: &mut Session, values: &Values) {
    let (id, size, text) = (values.port(0), values.number(1) as usize, values.word(2));
    if size == 0 || size > RETA_SIZE {
        return err!(session.out, "Invalid redirection table size: {size} (1-{RETA_SIZE})\n");
    }
    let masks = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let masks: Option<Vec<u64>> = masks.and_then(|masks| masks.split(',').map(parse_number).collect());
    let Some(masks) = masks.filter(|masks| masks.len() == size.div_ceil(64)) else {
        let count = size.div_ceil(64);
        return err!(
            session.out,
            "{text} is not {count} masks of 64 entries each, such as (0xff) or (0xff,0x1)\n"
        );
    };
    if queues(session, id, "Failed to get RSS RETA info, return code = -95\n").is_none() {
        return;
    }
    let Some(rss) = session.ports.get(id).and_then(|slot| slot.soft.rss.as_ref()) else {
        return out!(session.out, "RSS disabled\n");
    };
    let chosen = (0..size).filter(|entry| masks[entry / 64] >> (entry % 64) & 1 == 1);
    let lines: String = chosen
        .map(|entry| format!("RSS RETA configuration: hash index={entry}, queue={}\n", rss.reta[entry]))
        .collect();
    out!(session.out, "{lines}");
}
