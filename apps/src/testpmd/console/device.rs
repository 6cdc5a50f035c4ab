//! Commands about devices, their addresses and their links.

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::Values;
use crate::output::{err, out};
use crate::testpmd::layout;
use crate::testpmd::session::Session;
use crate::testpmd::settings::Mac;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "show device info <text>",
        help: "Display a device by its name, or all.",
        run: show_device,
    },
    Command {
        pattern: "device detach <text>",
        help: "Detach a device by its name.",
        run: |session, values| match session.ports.named(values.word(0)) {
            Some(id) => super::ports::detach_port(session, id),
            None => no_device(session, values.word(0)),
        },
    },
    Command {
        pattern: "mac_addr set <port> <text>",
        help: "Set the address of a port, where its device lets it be set.",
        run: set_mac,
    },
    Command {
        pattern: "mac_addr (add|remove) <port> <text>",
        help: "Add or remove an address that a port receives besides its own, where it filters.",
        run: add_mac,
    },
    Command {
        pattern: "mcast_addr (add|remove) <port> <text>",
        help: "Join or leave a group of multicast frames; ports that receive all of them remember it.",
        run: multicast,
    },
    Command {
        pattern: "show port <port> mcast_macs",
        help: "Display the groups of a port.",
        run: |session, values| match session.ports.get(values.port(0)) {
            None => invalid_port(session, values.port(0)),
            Some(slot) => {
                let groups = &slot.soft.groups;
                let lines: String = groups.iter().map(|group| format!("  {group}\n")).collect();
                out!(session.out, "Number of Multicast MAC address added: {}\n{lines}", groups.len());
            }
        },
    },
    Command {
        pattern: "set (link-up|link-down) port <port>",
        help: "Set the link of a port up or down; links here follow their peer.",
        run: |session, values| {
            let way = if values.word(0) == "link-up" { "up" } else { "down" };
            let (id, known) = (values.port(1), session.ports.get(values.port(1)).is_some());
            let invalid = if known { String::new() } else { format!("Invalid port_id={id}\n") };
            err!(session.out, "{invalid}\nSet link {way} fail.\n");
            if known {
                err!(
                    session.out,
                    "not supported here: links that are set; instead: port stop {id}, port start {id}\n"
                );
            }
        },
    },
];

fn no_device(session: &mut Session, name: &str) {
    err!(
        session.out,
        "cannot parse identifier {name}: no port is of that device; `show device info all` names them\n"
    );
}

fn show_device(session: &mut Session, values: &Values) {
    let name = values.word(0);
    let mut text = String::new();
    for slot in session.ports.iter().filter(|slot| name == "all" || slot.name == name) {
        text += &layout::device_info(&slot.facts());
    }
    if text.is_empty() && name != "all" {
        return no_device(session, name);
    }
    out!(session.out, "{text}");
}

/// Returns the address in a command line, or prints what is wrong with it.
fn address(session: &mut Session, id: u16, text: &str, command: &str) -> Option<Mac> {
    if session.ports.get(id).is_none() {
        err!(session.out, "Invalid port_id={id}\n{command} error: (No such device)\n");
        return None;
    }
    let mac = Mac::parse(text);
    if mac.is_none() {
        err!(session.out, "Error: Invalid ethernet address: {text}\n");
    }
    mac
}

fn set_mac(session: &mut Session, values: &Values) {
    let id = values.port(0);
    let Some(mac) = address(session, id, values.word(1), "mac_addr_cmd") else { return };
    if let Some(Err(error)) = session.ports.get(id).map(|slot| slot.set_mac(mac)) {
        err!(session.out, "mac_addr_cmd error: ({error})\n");
    }
}

fn add_mac(session: &mut Session, values: &Values) {
    let (add, id) = (values.word(0) == "add", values.port(1));
    let Some(mac) = address(session, id, values.word(2), "mac_addr_cmd") else { return };
    let Some(slot) = session.ports.get(id) else { return };
    let Some(filter) = slot.rx_filter() else {
        let stopped = format!("port {id} is stopped; start it first");
        let problem = if slot.filters() { stopped.as_str() } else { "Operation not supported" };
        return err!(session.out, "mac_addr_cmd error: ({problem})\n");
    };
    let mut list = filter.rules().unicast.clone();
    let (own, place) = (mac == slot.mac(), list.iter().position(|known| *known == mac.0));
    let problem = match (add, place) {
        (true, None) if !own => {
            list.push(mac.0);
            filter.set_unicast(&list).err().map(|error| error.to_string())
        }
        (false, Some(place)) => {
            list.remove(place);
            filter.set_unicast(&list).err().map(|error| error.to_string())
        }
        // DPDK silently accepts an address that is already set, and keeps the port's own.
        (true, _) => None,
        (false, None) if own => Some("Address already in use".to_owned()),
        (false, None) => None,
    };
    if let Some(problem) = problem {
        err!(session.out, "mac_addr_cmd error: ({problem})\n");
    }
}

fn multicast(session: &mut Session, values: &Values) {
    let (add, id) = (values.word(0) == "add", values.port(1));
    let Some(group) = address(session, id, values.word(2), "mcast_addr_cmd") else { return };
    if group.0[0] & 1 == 0 {
        return err!(session.out, "Invalid multicast addr {group}\n");
    }
    let Some(slot) = session.ports.get_mut(id) else { return };
    let place = slot.soft.groups.iter().position(|known| *known == group);
    let joins = slot.allmulticast() || slot.filters();
    match (add, place) {
        (true, Some(_)) => err!(session.out, "multicast address already filtered by port\n"),
        (false, None) => err!(session.out, "multicast address not filtered by port {id}\n"),
        (false, Some(place)) => drop(slot.soft.groups.remove(place)),
        (true, None) if slot.soft.groups.len() >= MAX_GROUPS => {
            err!(session.out, "port {id} has {MAX_GROUPS} groups, the most possible; remove one first\n");
        }
        (true, None) if joins => slot.soft.groups.push(group),
        (true, None) => {
            return err!(session.out, "rte_eth_dev_set_mc_addr_list(port={id}, nb=1) failed. diag=-95\n");
        }
    }
    if let Err(error) = slot.join_groups() {
        err!(session.out, "mcast_addr_cmd error: ({error})\n");
    }
}

/// The most multicast groups of one port.
const MAX_GROUPS: usize = 256;
