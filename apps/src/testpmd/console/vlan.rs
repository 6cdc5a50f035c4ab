//! Commands for VLAN tags: stripping and filtering on receive, insertion on transmit.

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::Values;
use crate::output::err;
use crate::testpmd::options::parse_number;
use crate::testpmd::ports::PortRecord;
use crate::testpmd::session::Session;
use crate::testpmd::soft::vlan::{MAX_VLAN, RxVlan, TxTags};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "vlan set (strip|filter|qinq_strip) (on|off) <port>",
        help: "Take the VLAN tag (or both) out of received packets, or drop those of VLANs that rx_vlan did not add.",
        run: |session, values| {
            let (what, on) = (values.word(0).to_owned(), values.word(1) == "on");
            change(session, values.port(2), |vlan| match what.as_str() {
                "strip" => (vlan.strip, vlan.strip_queues) = (on, Default::default()),
                "filter" => vlan.filter = on,
                _ => vlan.qinq_strip = on,
            });
        },
    },
    Command {
        pattern: "vlan set extend off <port>",
        help: "Turn VLAN extend off (it is never on: double tags are untouched unless qinq_strip is on).",
        run: |session, values| change(session, values.port(0), |_| ()),
    },
    Command {
        pattern: "vlan set stripq (on|off) <text>",
        help: "Take the VLAN tag out of what one queue receives: port,queue.",
        run: strip_queue,
    },
    Command {
        pattern: "rx_vlan (add|rm) <text> <port>",
        help: "Let packets of one VLAN, or of all VLANs, through the filter (add), or stop doing so (rm).",
        run: filter,
    },
    Command {
        pattern: "tx_vlan set <port> <n>",
        help: "Put a VLAN tag into every packet that leaves a port, from the next start on.",
        run: |session, values| set_tags(session, values.port(0), &[values.number(1)]),
    },
    Command {
        pattern: "tx_vlan set <port> <n> <n>",
        help: "Put two VLAN tags into every packet that leaves a port: the inner and the outer one.",
        run: |session, values| set_tags(session, values.port(0), &[values.number(1), values.number(2)]),
    },
    Command {
        pattern: "tx_vlan reset <port>",
        help: "Put no VLAN tag into packets any more.",
        run: |session, values| {
            if let Some(slot) = stopped(session, values.port(0)) {
                slot.soft.tags = None;
            }
        },
    },
];

/// Changes the handling of received tags, effective immediately.
pub(super) fn change(session: &mut Session, id: u16, change: impl FnOnce(&mut RxVlan)) {
    let Some(slot) = session.ports.get_mut(id) else { return invalid_port(session, id) };
    change(&mut slot.soft.vlan);
    session.apply_rules(id);
}

fn strip_queue(session: &mut Session, values: &Values) {
    let (on, text) = (values.word(0) == "on", values.word(1));
    let pair = text.split_once(',').and_then(|(port, queue)| {
        let number = |text| u16::try_from(parse_number(text)?).ok();
        Some((number(port)?, number(queue)?))
    });
    let Some((id, queue)) = pair else {
        return err!(session.out, "stripq {text} is no port and queue; write them as 0,1\n");
    };
    let queues = session.ports.get(id).map(|slot| slot.config().rx_queues);
    match queues {
        Some(queues) if queue >= queues => err!(session.out, "{}", no_queue("RX", queue.into(), queues)),
        _ => change(session, id, |vlan| {
            vlan.strip_queues.insert(queue, on);
        }),
    }
}

/// Returns DPDK's message about a queue that a port does not have.
pub(super) fn no_queue(side: &str, queue: u32, queues: u16) -> String {
    let count = if side == "RX" { "nb_rxq" } else { "nb_txq" };
    format!("Invalid {side} queue {queue} (must be < {count}={queues})\n")
}

fn filter(session: &mut Session, values: &Values) {
    let (add, text, id) = (values.word(0) == "add", values.word(1), values.port(2));
    let vlans = match text {
        "all" => 0..=MAX_VLAN,
        _ => match parse_number(text).map(u16::try_from) {
            Some(Ok(vlan)) if vlan <= MAX_VLAN => vlan..=vlan,
            Some(_) => return err!(session.out, "Invalid vlan_id {text} (must be < 4096)\n"),
            None => return err!(session.out, "VLAN {text} is no number; write one from 0 to 4095, or all\n"),
        },
    };
    let Some(slot) = session.ports.get(id) else { return err!(session.out, "Invalid port {id}\n") };
    if !slot.soft.vlan.filter {
        let (vlan, on) = (vlans.start(), u8::from(add));
        return err!(
            session.out,
            "Port {id}: VLAN-filtering disabled\nrte_eth_dev_vlan_filter(port_pi={id}, vlan_id={vlan}, on={on}) \
             failed diag=-38\n"
        );
    }
    change(session, id, |vlan| vlans.for_each(|each| vlan.allowed.set(each, add)));
}

/// Returns the port if it exists and is stopped; prints an error otherwise.
pub(super) fn stopped(session: &mut Session, id: u16) -> Option<&mut PortRecord> {
    match session.ports.get(id).map(PortRecord::started) {
        None => invalid_port(session, id),
        Some(true) => err!(session.out, "Please stop port {id} first\n"),
        Some(false) => return session.ports.get_mut(id),
    }
    None
}

fn set_tags(session: &mut Session, id: u16, tags: &[u32]) {
    if stopped(session, id).is_none() {
        return;
    }
    let mut fitting = Vec::new();
    for tag in tags {
        match u16::try_from(*tag).ok().filter(|tag| *tag <= MAX_VLAN) {
            Some(tag) => fitting.push(tag),
            None => return err!(session.out, "Invalid vlan_id {tag} (must be < 4096)\n"),
        }
    }
    if let (Some(slot), Some(&inner)) = (session.ports.get_mut(id), fitting.first()) {
        slot.soft.tags = Some(TxTags { outer: fitting.get(1).copied(), inner });
    }
}
