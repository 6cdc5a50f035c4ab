//! Commands that start, stop, configure, add and remove ports.

use super::commands::Command;
use super::display::invalid_port;
use super::grammar::{Target, Values};
use crate::output::{err, out};
use crate::testpmd::ports::{ETHER_OVERHEAD, PortRecord};
use crate::testpmd::session::Session;
use crate::testpmd::settings::{DEFAULT_BURST, MAX_BURST};
use linecard::pmd::QueueId;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "port (start|stop|close|reset) <port|all>",
        help: "Start, stop, close or restart a port, or all.",
        run: port_state,
    },
    Command {
        pattern: "port attach <text>",
        help: "Attach a virtual device: its name and arguments, as --vdev takes them.",
        run: attach,
    },
    Command { pattern: "port detach <port>", help: "Detach a port.", run: detach },
    Command {
        pattern: "port config all (rxq|txq|rxd|txd) <n>",
        help: "Set queues or descriptors of every port at its next start.",
        run: configure,
    },
    Command {
        pattern: "port config all max-pkt-len <n>",
        help: "Set the largest frame of every port, in bytes, at its next start.",
        run: set_frame_length,
    },
    Command {
        pattern: "port config mtu <port> <n>",
        help: "Set the MTU of a port at its next start.",
        run: set_mtu,
    },
    Command {
        pattern: "port config all burst <n>",
        help: "Set the number of packets per burst; 0 is the default, 32.",
        run: |session, values| match u16::try_from(values.number(0)) {
            Ok(0) => session.settings.burst = DEFAULT_BURST,
            Ok(burst @ 1..=MAX_BURST) => session.settings.burst = burst,
            _ => err!(session.out, "burst must be >= 1 && <= {MAX_BURST}\n"),
        },
    },
];

fn port_state(session: &mut Session, values: &Values) {
    let only = match values.target(1) {
        Target::All => None,
        Target::Port(id) if session.ports.get(id).is_some() => Some(id),
        Target::Port(id) => return err!(session.out, "Invalid port {id}\n"),
    };
    match values.word(0) {
        "start" => start(session, only),
        "stop" => {
            stop(session, only);
            out!(session.out, "Done\n");
        }
        "close" => close(session, only),
        _ => {
            stop(session, only);
            start(session, only);
        }
    }
}

fn start(session: &mut Session, only: Option<u16>) {
    for slot in session.ports.iter().filter(|slot| only.is_none_or(|id| id == slot.id)) {
        if slot.started() {
            err!(session.out, "Port {} is now not stopped\n", slot.id);
        }
    }
    match session.start_ports(only) {
        Ok(true) => out!(session.out, "Checking link statuses...\n"),
        Ok(false) => err!(session.out, "Please stop the ports first\n"),
        Err(error) => err!(session.out, "error: {error}\n"),
    }
    out!(session.out, "Done\n");
}

fn stop(session: &mut Session, only: Option<u16>) {
    out!(session.out, "Stopping ports...\n");
    let mut any = false;
    for id in session.ports.ids().into_iter().filter(|id| only.is_none_or(|only| only == *id)) {
        if session.forwarding() && session.ports.get(id).is_some_and(PortRecord::lent) {
            err!(session.out, "Please remove port {id} from forwarding configuration.\n");
            continue;
        }
        if let Some(slot) = session.ports.get_mut(id)
            && slot.started()
        {
            slot.stop();
            any = true;
        }
    }
    if any {
        out!(session.out, "Checking link statuses...\n");
    }
}

fn close(session: &mut Session, only: Option<u16>) {
    out!(session.out, "Closing ports...\n");
    for id in session.ports.ids().into_iter().filter(|id| only.is_none_or(|only| only == *id)) {
        if session.ports.get(id).is_some_and(PortRecord::started) {
            err!(session.out, "Cannot close started device (port {id})\n");
            continue;
        }
        session.ports.close(id);
        out!(session.out, "Port {id} is closed\n");
    }
    out!(session.out, "Done\n");
}

fn attach(session: &mut Session, values: &Values) {
    let device = values.word(0);
    out!(session.out, "Attaching a new port...\n");
    session.out.flush();
    match session.attach(device) {
        Ok(id) => {
            let total = session.ports.len();
            out!(session.out, "Port {id} is attached. Now total ports is {total}\nDone\n");
        }
        Err(error) => err!(session.out, "testpmd: Failed to attach port {device}: {error}\n"),
    }
}

fn detach(session: &mut Session, values: &Values) {
    detach_port(session, values.port(0));
}

pub(super) fn detach_port(session: &mut Session, id: u16) {
    let Some(slot) = session.ports.get(id) else { return err!(session.out, "Invalid port_id={id}\n") };
    if slot.started() {
        return err!(session.out, "Port not stopped\n");
    }
    err!(session.out, "Port was not closed\n");
    out!(session.out, "Removing a device...\n");
    session.ports.close(id);
    let total = session.ports.len();
    out!(session.out, "Port {id} is closed\nDevice is detached\nNow total ports is {total}\nDone\n");
}

fn configure(session: &mut Session, values: &Values) {
    if session.ports.iter().any(PortRecord::started) {
        return err!(session.out, "Please stop all ports first\n");
    }
    let what = values.word(0).to_owned();
    // All or none: if one port refuses the value, no port changes.
    if let Some(problem) = session.ports.iter().find_map(|slot| refusal(slot, &what, values.number(1))) {
        return err!(session.out, "{problem}\n");
    }
    let Ok(value) = u16::try_from(values.number(1)) else { return err!(session.out, "Bad arguments\n") };
    for slot in session.ports.iter_mut() {
        if what == "rxq" && value != slot.config().rx_queues {
            slot.soft.requeue(value);
        }
        slot.reshape(|config| match what.as_str() {
            "rxq" => {
                config.rx_queues = value;
                config.deferred.retain(|queue| !matches!(queue, QueueId::Receive(index) if *index >= value));
            }
            "txq" => {
                config.tx_queues = value;
                config.deferred.retain(|queue| !matches!(queue, QueueId::Transmit(index) if *index >= value));
            }
            "rxd" => config.rx_depth = value,
            _ => config.tx_depth = value,
        });
    }
}

/// Returns why a port cannot have `value` queues or descriptors; `None` if it can.
pub(super) fn refusal(slot: &PortRecord, what: &str, value: u32) -> Option<String> {
    let ((max_rx, max_tx), (depths, power_of_two)) = (slot.max_queues(), slot.depths());
    let (allowed, shape) = match what {
        "rxq" => (1..=max_rx, ""),
        "txq" => (1..=max_tx, ""),
        _ => (depths, if power_of_two { ", a power of two" } else { "" }),
    };
    let small = u16::try_from(value).ok();
    let fits =
        small.is_some_and(|value| allowed.contains(&value)) && (shape.is_empty() || value.is_power_of_two());
    let (min, max) = (allowed.start(), allowed.end());
    if what == "rxq"
        && let Some((number, problem)) = small.and_then(|value| slot.soft.flows.refusal(value))
    {
        return Some(format!(
            "rxq {value} invalid - flow rule #{number} of port {}: {problem}; destroy it first",
            slot.id
        ));
    }
    let problem = format!("{what} {value} invalid - must be >= {min} && <= {max}{shape} on port {}", slot.id);
    (!fits).then_some(problem)
}

fn set_frame_length(session: &mut Session, values: &Values) {
    if session.ports.iter().any(PortRecord::started) {
        return err!(session.out, "Please stop all ports first\n");
    }
    let Some(mtu) = values.number(0).checked_sub(ETHER_OVERHEAD).filter(|mtu| *mtu > 0) else {
        return err!(session.out, "max_pkt_len {} invalid - must be > {ETHER_OVERHEAD}\n", values.number(0));
    };
    let refused = session.ports.iter().find_map(|slot| mtu_of(slot, mtu).err());
    if let Some(problem) = refused {
        return err!(session.out, "{problem}\n");
    }
    for slot in session.ports.iter_mut() {
        reshape_mtu(slot, mtu);
    }
}

fn set_mtu(session: &mut Session, values: &Values) {
    let id = values.port(0);
    match session.ports.get(id).map(PortRecord::started) {
        None => invalid_port(session, id),
        Some(true) => err!(session.out, "Please stop port {id} first\n"),
        Some(false) => {
            let refused = session.ports.get_mut(id).and_then(|slot| reshape_mtu(slot, values.number(1)));
            if let Some(problem) = refused {
                err!(session.out, "{problem}\n");
            }
        }
    }
}

/// Returns `asked` as an MTU of the port, or why the port does not support it.
fn mtu_of(slot: &PortRecord, asked: u32) -> Result<u16, String> {
    let allowed = slot.mtu_range();
    u16::try_from(asked).ok().filter(|mtu| allowed.contains(mtu)).ok_or_else(|| {
        let (min, max) = (allowed.start(), allowed.end());
        format!("MTU: {asked} is not in {min} to {max}, what port {} takes", slot.id)
    })
}

/// Sets the MTU for the next start; returns the error message if the port refuses it.
fn reshape_mtu(slot: &mut PortRecord, asked: u32) -> Option<String> {
    match mtu_of(slot, asked) {
        Ok(mtu) => {
            slot.reshape(|config| config.mtu = mtu);
            None
        }
        Err(problem) => Some(problem),
    }
}
