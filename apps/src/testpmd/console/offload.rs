//! Commands about checksums and segmentation.

use linecard::pmd::offload::{RxOffloads, TxOffloads};

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::Values;
use super::vlan::{self, stopped};
use crate::output::{err, out};
use crate::testpmd::session::Session;
use crate::testpmd::soft::SoftPort;
use crate::testpmd::soft::vlan::RxVlan;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "csum set (ip|udp|tcp|sctp|outer-ip|outer-udp) (hw|sw) <port>",
        help: "Let the port (hw) or the csum mode (sw) compute a checksum when packets are sent.",
        run: set_checksum,
    },
    Command {
        pattern: "csum show <port>",
        help: "Show who computes which checksum.",
        run: |session, values| show_checksums(session, values.port(0)),
    },
    Command {
        pattern: "csum parse-tunnel (on|off) <port>",
        help: "Have the csum mode compute the inner checksums of tunnelled packets (VXLAN, GRE, IP in IP) too.",
        run: |session, values| {
            let id = values.port(1);
            match session.ports.get_mut(id) {
                Some(slot) => slot.checksums.parse_tunnel = values.word(0) == "on",
                None => return invalid_port(session, id),
            }
            show_checksums(session, id);
        },
    },
    Command {
        pattern: "csum mac-swap (on|off) <port>",
        help: "Have the csum mode write the addresses of the transmit port and its peer, or leave them.",
        run: |session, values| match session.ports.get_mut(values.port(1)) {
            Some(slot) => slot.checksums.rewrite = values.word(0) == "on",
            None => invalid_port(session, values.port(1)),
        },
    },
    Command {
        pattern: "tso set <n> <port>",
        help: "Have the port cut TCP packets of the csum mode into segments of so many bytes; 0 is off.",
        run: set_tso,
    },
    Command {
        pattern: "tso show <port>",
        help: "Show the segment size.",
        run: |session, values| show_tso(session, values.port(0)),
    },
    Command {
        pattern: "set port <port> gso (on|off)",
        help: "Have the csum mode cut TCP packets that are too long before they leave a port.",
        run: set_gso,
    },
    Command {
        pattern: "set gso segsz <n>",
        help: "Set the length of the packets that are cut so, headers included.",
        run: set_gso_size,
    },
    Command {
        pattern: "show port <port> gso",
        help: "Show whether packets are cut, and how long they may be.",
        run: |session, values| match session.ports.get(values.port(0)).map(|slot| slot.gso) {
            None => err!(session.out, "invalid port id {}\n", values.port(0)),
            Some(false) => out!(session.out, "GSO is not enabled on Port {}\n", values.port(0)),
            Some(true) => out!(
                session.out,
                "Max GSO'd packet size: {}B\nSupported GSO types: TCP/IPv4, TCP/IPv6\n",
                session.settings.gso_size
            ),
        },
    },
    Command {
        pattern: "port config <port> tx_offload <text> (on|off)",
        help: "Ask for a transmit offload (udp_cksum, tcp_tso, …) at the port's next start.",
        run: |session, values| configure(session, values, true),
    },
    Command {
        pattern: "port config <port> rx_offload <text> (on|off)",
        help: "Ask for a receive offload (tcp_cksum, tcp_lro, rss_hash, …) at the port's next start; at once where the device can switch it.",
        run: |session, values| configure(session, values, false),
    },
    Command {
        pattern: "show port <port> (rx_offload|tx_offload) (capabilities|configuration)",
        help: "Show the offloads that a port has, or those it is asked for.",
        run: show_offloads,
    },
];

fn set_checksum(session: &mut Session, values: &Values) {
    let (hardware, id) = (values.word(1) == "hw", values.port(2));
    let (name, offload) = match values.word(0) {
        "ip" => ("IP", TxOffloads::IPV4_CKSUM),
        "udp" => ("UDP", TxOffloads::UDP_CKSUM),
        "tcp" => ("TCP", TxOffloads::TCP_CKSUM),
        // No port supports these.
        "sctp" => ("SCTP", TxOffloads::empty()),
        "outer-ip" => ("Outer IP", TxOffloads::empty()),
        _ => ("Outer UDP", TxOffloads::empty()),
    };
    let Some(slot) = stopped(session, id) else { return };
    if hardware && (offload.is_empty() || !slot.offered().tx.contains(offload)) {
        err!(session.out, "{name} checksum offload is not supported by port {id}\n");
    } else {
        slot.reshape(|config| config.offloads.tx = with(config.offloads.tx, offload, hardware));
    }
    show_checksums(session, id);
}

fn with(set: TxOffloads, offload: TxOffloads, on: bool) -> TxOffloads {
    if on { set.union(offload) } else { set.difference(offload) }
}

fn show_checksums(session: &mut Session, id: u16) {
    let Some(slot) = session.ports.get(id) else { return invalid_port(session, id) };
    let (tx, tunnel) = (slot.config().offloads.tx, slot.checksums.parse_tunnel);
    out!(session.out, "Parse tunnel is {}\n", if tunnel { "on" } else { "off" });
    let all = [
        ("IP", TxOffloads::IPV4_CKSUM),
        ("UDP", TxOffloads::UDP_CKSUM),
        ("TCP", TxOffloads::TCP_CKSUM),
        ("SCTP", TxOffloads::empty()),
        ("Outer-Ip", TxOffloads::empty()),
        ("Outer-Udp", TxOffloads::empty()),
    ];
    for (name, offload) in all {
        let by = if tx.intersects(offload) { "hw" } else { "sw" };
        out!(session.out, "{name} checksum offload is {by}\n");
    }
}

fn set_tso(session: &mut Session, values: &Values) {
    let id = values.port(1);
    let Ok(size) = u16::try_from(values.number(0)) else { return err!(session.out, "Bad arguments\n") };
    let Some(slot) = stopped(session, id) else { return };
    if size > 0 && !slot.offered().tx.contains(TxOffloads::TCP_TSO) {
        return err!(session.out, "Error: TSO is not supported by port {id}\n");
    }
    slot.checksums.segment = size;
    slot.reshape(|config| config.offloads.tx = with(config.offloads.tx, TxOffloads::TCP_TSO, size > 0));
    show_tso(session, id);
}

fn show_tso(session: &mut Session, id: u16) {
    match session.ports.get(id).map(|slot| slot.checksums.segment) {
        None => invalid_port(session, id),
        Some(0) => out!(session.out, "TSO for non-tunneled packets is disabled\n"),
        Some(size) => out!(session.out, "TSO segment size for non-tunneled packets is {size}\n"),
    }
}

fn configure(session: &mut Session, values: &Values, transmit: bool) {
    let (id, name, on) = (values.port(0), values.word(1).to_owned(), values.word(2) == "on");
    if !transmit
        && session.ports.get(id).is_some_and(|slot| slot.started())
        && switched(session, id, &name, on)
    {
        return;
    }
    let Some(slot) = stopped(session, id) else { return };
    let offered = slot.offered();
    if let Some(change) = vlan_offload(&name, transmit) {
        return vlan::change(session, id, |vlan| change(vlan, on));
    }
    if transmit {
        match TxOffloads::named(&name).filter(|offload| offered.tx.contains(*offload)) {
            Some(offload) => slot.reshape(|c| c.offloads.tx = with(c.offloads.tx, offload, on)),
            None => err!(session.out, "port {id} has no transmit offload {name}, only: {}\n", offered.tx),
        }
        return;
    }
    match RxOffloads::named(&name).filter(|offload| offered.rx.contains(*offload)) {
        Some(offload) => slot.reshape(|config| {
            let rx = config.offloads.rx;
            config.offloads.rx = if on { rx.union(offload) } else { rx.difference(offload) };
        }),
        None => err!(session.out, "port {id} has no receive offload {name}, only: {}\n", offered.rx),
    }
}

/// Switches a receive offload of a started port, if its device can; returns whether it did.
fn switched(session: &mut Session, id: u16, name: &str, on: bool) -> bool {
    let (Some(offload), Some(slot)) = (RxOffloads::named(name), session.ports.get_mut(id)) else {
        return false;
    };
    slot.switch_rx_offload(offload, on)
}

/// Returns how to change an offload that is done in software for every port; `None` for other offloads.
pub(super) fn vlan_offload(name: &str, transmit: bool) -> Option<fn(&mut RxVlan, bool)> {
    match (transmit, name) {
        (false, "vlan_strip") => Some(|vlan, on| vlan.strip = on),
        (false, "vlan_filter") => Some(|vlan, on| vlan.filter = on),
        (false, "qinq_strip") => Some(|vlan, on| vlan.qinq_strip = on),
        // Tags are inserted wherever `tx_vlan set` specifies some.
        (true, "vlan_insert" | "qinq_insert") => Some(|_, _| ()),
        _ => None,
    }
}

fn set_gso(session: &mut Session, values: &Values) {
    let (id, on) = (values.port(0), values.word(1) == "on");
    if session.ports.get(id).is_none() {
        return err!(session.out, "invalid port id {id}\n");
    }
    if session.forwarding() {
        let act = if on { "enabling" } else { "disabling" };
        return err!(session.out, "before {act} GSO, please stop forwarding first\n");
    }
    if let Some(slot) = session.ports.get_mut(id) {
        slot.gso = on;
    }
}

/// Ethernet and IPv4 headers and one byte, the minimum in DPDK.
const MIN_GSO_SIZE: u16 = 35;

fn set_gso_size(session: &mut Session, values: &Values) {
    if session.forwarding() {
        return err!(session.out, "Before setting GSO segsz, please first stop forwarding\n");
    }
    match u16::try_from(values.number(0)) {
        Ok(size) if size >= MIN_GSO_SIZE => session.settings.gso_size = size,
        Ok(_) => {
            err!(session.out, "gso_size should be larger than {MIN_GSO_SIZE}. Please input a legal value\n")
        }
        Err(_) => err!(session.out, "Bad arguments\n"),
    }
}

/// The names of the offloads done in software, which every port has: all of them, or those that are on.
fn software(soft: &SoftPort, receive: bool, all: bool) -> String {
    let (vlan, tags) = (&soft.vlan, soft.tags);
    let named: &[(bool, &str)] = match receive {
        true => &[(vlan.strip, "VLAN_STRIP"), (vlan.qinq_strip, "QINQ_STRIP"), (vlan.filter, "VLAN_FILTER")],
        false => {
            &[(tags.is_some(), "VLAN_INSERT"), (tags.is_some_and(|tags| tags.outer.is_some()), "QINQ_INSERT")]
        }
    };
    let names: Vec<_> = named.iter().filter(|(on, _)| *on || all).map(|(_, name)| *name).collect();
    names.join(" ")
}

fn show_offloads(session: &mut Session, values: &Values) {
    let (id, receive, capable) =
        (values.port(0), values.word(1) == "rx_offload", values.word(2) == "capabilities");
    let Some(slot) = session.ports.get(id) else { return invalid_port(session, id) };
    let set = if capable { slot.offered() } else { slot.config().offloads };
    let (side, names) = if receive { ("Rx", set.rx.to_string()) } else { ("Tx", set.tx.to_string()) };
    let mut names = [software(&slot.soft, receive, capable), names].join(" ").trim().to_owned();
    if !names.is_empty() {
        names.insert(0, ' ');
    }
    if capable {
        let text =
            format!("{side} Offloading Capabilities of port {id} :\n  Per Queue :\n  Per Port  :{names}\n\n");
        return out!(session.out, "{text}");
    }
    let config = slot.config();
    let queues = if receive { config.rx_queues } else { config.tx_queues };
    let mut text = format!("{side} Offloading Configuration of port {id} :\n  Port :{names}\n");
    for queue in 0..queues {
        text += &format!("  Queue[{queue:2}] :{names}\n");
    }
    out!(session.out, "{text}\n");
}
