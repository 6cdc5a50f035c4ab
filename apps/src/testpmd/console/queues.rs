//! Commands about single queues.

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::Values;
use super::offload::vlan_offload;
use super::single;
use super::vlan::{self, no_queue, stopped};
use crate::output::{err, out};
use crate::testpmd::session::Session;
use linecard::pmd::QueueId;
use linecard::pmd::offload::{RxOffloads, TxOffloads};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "show (rxq|txq) info <port> <n>",
        help: "Display how a queue is set up.",
        run: show_info,
    },
    Command {
        pattern: "port config <port> (rxq|txq) <n> ring_size <n>",
        help: "Set the descriptors of a port's only queue at its next start; of several with port config all.",
        run: set_ring_size,
    },
    Command {
        pattern: "port <port> (rxq|txq) <n> (rx_offload|tx_offload) <text> (on|off)",
        help: "Ask for an offload of one queue: vlan_strip; others are the same for all queues of a port.",
        run: set_offload,
    },
    Command {
        pattern: "port <port> (rxq|txq) <n> (start|stop)",
        help: "Start or stop one queue of a started port; the others go on.",
        run: single::turn,
    },
    Command {
        pattern: "port <port> (rxq|txq) <n> deferred_start (on|off)",
        help: "Have a queue start with its port (off), or later by port P rxq N start (on).",
        run: single::defer,
    },
    Command {
        pattern: "show port <port> (rxq|txq) <n> desc used count",
        help: "Display how many descriptors of a queue are used: packets that wait, or are not sent yet.",
        run: single::count,
    },
];

/// Returns the number of a queue if the port has it; prints an error otherwise.
pub(super) fn queue(session: &mut Session, id: u16, receive: bool, queue: u32) -> Option<u16> {
    let Some(slot) = session.ports.get(id) else {
        invalid_port(session, id);
        return None;
    };
    let (side, queues) =
        if receive { ("RX", slot.config().rx_queues) } else { ("TX", slot.config().tx_queues) };
    match u16::try_from(queue) {
        Ok(known) if known < queues => Some(known),
        _ => {
            err!(session.out, "{}", no_queue(side, queue, queues));
            None
        }
    }
}

fn show_info(session: &mut Session, values: &Values) {
    let (receive, id) = (values.word(0) == "rxq", values.port(1));
    let Some(queue) = queue(session, id, receive, values.number(2)) else { return };
    let Some(slot) = session.ports.get(id) else { return };
    let queue_id = if receive { QueueId::Receive(queue) } else { QueueId::Transmit(queue) };
    let state = if slot.queue_started(queue_id) { "started" } else { "stopped" };
    let deferred = if slot.config().deferred.contains(&queue_id) { "on" } else { "off" };
    let depth = slot.depth(queue_id);
    let stars = "*********************";
    let side = if receive { "RX" } else { "TX" };
    let mut text = format!("\n{stars} Infos for port {id:<2}, {side} queue {queue:<2} {stars}");
    if receive {
        text += &format!("\nMempool: {}", session.pool.name());
    }
    text +=
        &format!("\n{side} prefetch threshold: 0\n{side} host threshold: 0\n{side} writeback threshold: 0");
    if receive {
        let size = session.options.data_room();
        text += &format!(
            "\nRX free threshold: 0\nRX drop packets: on\nRX deferred start: {deferred}\nRX scattered packets: on\n\
             Rx queue state: {state}\nRX buffer size: {size}\nNumber of RXDs: {depth}"
        );
    } else {
        text += &format!(
            "\nTX RS threshold: 0\nTX free threshold: 0\nTX deferred start: {deferred}\nTx queue state: {state}\n\
             Number of TXDs: {depth}"
        );
    }
    out!(session.out, "{text}\n\n");
}

fn set_ring_size(session: &mut Session, values: &Values) {
    let (id, receive) = (values.port(0), values.word(1) == "rxq");
    if queue(session, id, receive, values.number(2)).is_none() {
        return;
    }
    let Some(slot) = stopped(session, id) else { return };
    let queues = if receive { slot.config().rx_queues } else { slot.config().tx_queues };
    let what = if receive { "rxd" } else { "txd" };
    if queues > 1 {
        return err!(
            session.out,
            "not supported here: rings of different sizes on one port; instead: port config all {what} N\n"
        );
    }
    let asked = values.number(3);
    match (super::ports::refusal(slot, what, asked), u16::try_from(asked)) {
        (None, Ok(size)) => slot.reshape(|config| {
            *if receive { &mut config.rx_depth } else { &mut config.tx_depth } = size;
        }),
        (problem, _) => err!(session.out, "{}\n", problem.unwrap_or_else(|| "Bad arguments".into())),
    }
}

fn set_offload(session: &mut Session, values: &Values) {
    let (id, receive, name, on) =
        (values.port(0), values.word(1) == "rxq", values.word(4).to_owned(), values.word(5) == "on");
    if receive != (values.word(3) == "rx_offload") {
        let side = values.word(1);
        return err!(
            session.out,
            "{side} has no {}; write rxq … rx_offload or txq … tx_offload\n",
            values.word(3)
        );
    }
    let Some(queue) = queue(session, id, receive, values.number(2)) else { return };
    if session.ports.get(id).is_some_and(crate::testpmd::ports::PortRecord::started) {
        return err!(session.out, "Error: Can't config offload when Port {id} is not stopped\n");
    }
    if receive && name == "vlan_strip" {
        return vlan::change(session, id, |vlan| {
            vlan.strip_queues.insert(queue, on);
        });
    }
    if !receive && vlan_offload(&name, true).is_some() {
        return;
    }
    let Some(slot) = session.ports.get(id) else { return };
    let (now, side) = (slot.config().offloads, if receive { "rx" } else { "tx" });
    let has = match receive {
        true => RxOffloads::named(&name).map(|offload| now.rx.contains(offload)),
        false => TxOffloads::named(&name).map(|offload| now.tx.contains(offload)),
    };
    match has {
        Some(has) if has == on => {}
        Some(_) => err!(
            session.out,
            "not supported here: {name} for one queue; instead: port config {id} {side}_offload {name} {}\n",
            values.word(5)
        ),
        None => {
            err!(session.out, "port {id} has no offload {name}; show port {id} {side}_offload capabilities\n")
        }
    }
}
