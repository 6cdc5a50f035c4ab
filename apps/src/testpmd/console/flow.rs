//! `flow …`: rules about received packets, in software.

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::Values;
use crate::output::{err, out};
use crate::testpmd::options::parse_number;
use crate::testpmd::session::Session;
use crate::testpmd::soft::flow;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "flow (create|validate) <port> <rest>",
        help: "Add a rule, or see whether it could be: [group N] [priority N] ingress pattern ITEM [FIELD is VALUE] / … / \
               end actions ACTION / … / end. Items: eth, vlan, ipv4, ipv6, udp, tcp. Actions: drop, queue index N, \
               rss queues N … end, mark id N, count, of_pop_vlan, of_push_vlan ethertype N, of_set_vlan_vid vlan_vid N, \
               of_set_vlan_pcp vlan_pcp N, passthru.",
        run: create,
    },
    Command { pattern: "flow list <port>", help: "List the rules of a port.", run: list },
    Command {
        pattern: "flow destroy <port> rule <rest>",
        help: "Remove rules by their numbers: N [rule N]….",
        run: destroy,
    },
    Command {
        pattern: "flow flush <port>",
        help: "Remove all rules of a port.",
        run: |session, values| {
            let id = values.port(0);
            let Some(slot) = session.ports.get_mut(id) else { return invalid_port(session, id) };
            slot.soft.flows.clear();
            session.apply_rules(id);
        },
    },
    Command {
        pattern: "flow query <port> <n> count",
        help: "Display the packets and bytes that a rule with action count matched.",
        run: |session, values| {
            let Some(slot) = session.ports.get(values.port(0)) else {
                return invalid_port(session, values.port(0));
            };
            match slot.soft.flows.query(values.number(1)) {
                Ok(text) => out!(session.out, "{text}"),
                Err(problem) => err!(session.out, "{problem}\n"),
            }
        },
    },
];

fn create(session: &mut Session, values: &Values) {
    let (keep, id) = (values.word(0) == "create", values.port(1));
    let Some(slot) = session.ports.get_mut(id) else { return invalid_port(session, id) };
    let queues = slot.config().rx_queues;
    let flow = flow::parse(&values.rest());
    match flow.and_then(|flow| flow.refusal(queues).map_or(Ok(flow), Err)) {
        Err(problem) => err!(session.out, "flow: {problem}\n"),
        Ok(_) if !keep => out!(session.out, "Flow rule validated\n"),
        Ok(flow) => {
            let number = slot.soft.flows.add(flow);
            session.apply_rules(id);
            out!(session.out, "Flow rule #{number} created\n");
        }
    }
}

fn list(session: &mut Session, values: &Values) {
    match session.ports.get(values.port(0)) {
        Some(slot) => out!(session.out, "{}", slot.soft.flows.list()),
        None => err!(session.out, "Invalid port {}\n", values.port(0)),
    }
}

fn destroy(session: &mut Session, values: &Values) {
    let id = values.port(0);
    let words = values.rest();
    // N, or N rule N rule N, as in DPDK.
    let numbers: Option<Vec<u32>> = words
        .iter()
        .enumerate()
        .filter(|(index, word)| index % 2 == 0 || **word != "rule")
        .map(|(_, word)| u32::try_from(parse_number(word)?).ok())
        .collect();
    let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
        return err!(
            session.out,
            "flow: {} is no number of a rule; `flow list {id}` has them\n",
            words.join(" ")
        );
    };
    let Some(slot) = session.ports.get_mut(id) else { return invalid_port(session, id) };
    let mut text = String::new();
    for number in numbers {
        // DPDK silently skips rules that do not exist.
        if slot.soft.flows.remove(number) {
            text += &format!("Flow rule #{number} destroyed\n");
        }
    }
    session.apply_rules(id);
    out!(session.out, "{text}");
}
