//! Commands about checksums and segmentation.

use linecard::pmd::offload::{RxOffloads, TxOffloads};

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::Values;
use crate::output::{err, out};
use crate::testpmd::ports::Slot;
use crate::testpmd::session::Session;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "csum set (ip|udp|tcp) (hw|sw) <port>",
        help: "Let the port (hw) or the csum mode (sw) compute a checksum when packets are sent.",
        run: set_checksum,
    },
    Command {
        pattern: "csum show <port>",
        help: "Show who computes which checksum.",
        run: |session, values| show_checksums(session, values.port(0)),
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
        pattern: "port config <port> tx_offload <text> (on|off)",
        help: "Ask for a transmit offload (udp_cksum, tcp_tso, …) at the port's next start.",
        run: |session, values| configure(session, values, true),
    },
    Command {
        pattern: "port config <port> rx_offload <text> (on|off)",
        help: "Ask for a receive offload (tcp_cksum, tcp_lro, …) at the port's next start.",
        run: |session, values| configure(session, values, false),
    },
];

/// The port, if it exists and is stopped; says what is wrong if not.
fn stopped(session: &mut Session, id: u16) -> Option<&mut Slot> {
    match session.ports.get(id).map(Slot::started) {
        None => invalid_port(session, id),
        Some(true) => err!(session.out, "Please stop port {id} first\n"),
        Some(false) => return session.ports.get_mut(id),
    }
    None
}

fn set_checksum(session: &mut Session, values: &Values) {
    let (what, hardware, id) = (values.word(0).to_owned(), values.word(1) == "hw", values.port(2));
    let offload = match what.as_str() {
        "ip" => TxOffloads::IPV4_CKSUM,
        "udp" => TxOffloads::UDP_CKSUM,
        _ => TxOffloads::TCP_CKSUM,
    };
    let Some(slot) = stopped(session, id) else { return };
    if hardware && !slot.offered().tx.contains(offload) {
        let what = what.to_uppercase();
        return err!(session.out, "{what} checksum offload is not supported by port {id}\n");
    }
    slot.reshape(|config| config.offloads.tx = with(config.offloads.tx, offload, hardware));
    show_checksums(session, id);
}

fn with(set: TxOffloads, offload: TxOffloads, on: bool) -> TxOffloads {
    if on { set.union(offload) } else { set.without(offload) }
}

fn show_checksums(session: &mut Session, id: u16) {
    let Some(tx) = session.ports.get(id).map(|slot| slot.config().offloads.tx) else {
        return invalid_port(session, id);
    };
    let all =
        [("IP", TxOffloads::IPV4_CKSUM), ("UDP", TxOffloads::UDP_CKSUM), ("TCP", TxOffloads::TCP_CKSUM)];
    for (name, offload) in all {
        let by = if tx.contains(offload) { "hw" } else { "sw" };
        out!(session.out, "{name} checksum offload is {by}\n");
    }
}

fn set_tso(session: &mut Session, values: &Values) {
    let id = values.port(1);
    let Ok(size) = u16::try_from(values.number(0)) else { return err!(session.out, "Bad arguments\n") };
    let Some(slot) = stopped(session, id) else { return };
    if size > 0 && !slot.offered().tx.contains(TxOffloads::TCP_TSO) {
        return err!(session.out, "TSO is not supported by port {id}\n");
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
    let Some(slot) = stopped(session, id) else { return };
    let offered = slot.offered();
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
            config.offloads.rx = if on { rx.union(offload) } else { rx.without(offload) };
        }),
        None => err!(session.out, "port {id} has no receive offload {name}, only: {}\n", offered.rx),
    }
}
