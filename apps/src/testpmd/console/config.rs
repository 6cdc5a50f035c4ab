//! Commands that change settings.

use super::commands::Command;
use super::display::targets;
use super::grammar::{Target, Values};
use crate::output::{err, out};
use crate::testpmd::session::Session;
use crate::testpmd::settings::{self, DEFAULT_BURST, MAX_BURST, MAX_WORK_CYCLES, Mac, ModeKind};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "set fwd (io|mac|macswap|flowgen|rxonly|txonly|icmpecho|5tswap|noisy|csum)",
        help: "Set packet forwarding mode.",
        run: |session, values| set_mode(session, values, false),
    },
    Command {
        pattern: "set fwd (io|mac|macswap|flowgen|rxonly|txonly|icmpecho|5tswap|noisy|csum) retry",
        help: "Set packet forwarding mode; packets that do not fit are tried again.",
        run: |session, values| set_mode(session, values, true),
    },
    Command {
        pattern: "set burst <n>",
        help: "Set number of packets per burst; 0 is the default, 32.",
        run: set_burst,
    },
    Command {
        pattern: "set burst tx delay <n> retry <n>",
        help: "Set the delay in microseconds and the number of retries, for modes with retry.",
        run: |session, values| {
            session.settings.retry.delay_us = values.number(0).min(1_000_000);
            session.settings.retry.count = values.number(1).min(100_000);
        },
    },
    Command {
        pattern: "set txpkts <text>",
        help: "Set the length of each segment of generated packets: x[,y]*.",
        run: set_txpkts,
    },
    Command {
        pattern: "set rxpkts <text>",
        help: "Set the length of each segment for ports that split what they receive: x[,y]*; no port here does.",
        run: |session, values| match settings::check_rx_segments(values.word(0)) {
            Ok(segments) => session.settings.rx_segments = segments,
            Err(problem) => err!(session.out, "{problem}\n"),
        },
    },
    Command {
        pattern: "set verbose <n>",
        help: "Set the debug verbosity level: 1 shows received packets, 2 sent ones, 3 and above both.",
        run: set_verbose,
    },
    Command {
        pattern: "set record-core-cycles (on|off)",
        help: "Set the option to enable measurement of CPU cycles, from the next start on.",
        run: |session, values| session.settings.record_cycles = values.word(0) == "on",
    },
    Command {
        pattern: "set record-packet-classes (on|off)",
        help: "Count packets by size and kind of address, where ports can; show port xstats has them.",
        run: |session, values| {
            let on = values.word(0) == "on";
            session.settings.record_classes = on;
            session.ports.iter_mut().for_each(|slot| slot.count_classes(on));
        },
    },
    Command {
        pattern: "set rx-interrupt (on|off)",
        help: "Sleep while nothing is received, where queues can wake, from the next start on.",
        run: |session, values| session.settings.rx_interrupt = values.word(0) == "on",
    },
    Command {
        pattern: "set record-burst-stats (on|off)",
        help: "Set the option to enable the display of RX and TX bursts, from the next start on.",
        run: |session, values| session.settings.record_bursts = values.word(0) == "on",
    },
    Command {
        pattern: "set work-cycles <n>",
        help: "Spend so many time-stamp cycles on each received packet, as an application would.",
        run: set_work_cycles,
    },
    Command {
        pattern: "set promisc <port|all> (on|off)",
        help: "Set the promiscuous mode on a port, or all.",
        run: |session, values| {
            for id in promisc_targets(session, values.target(0)) {
                let on = values.word(1) == "on";
                if session.ports.get_mut(id).is_some_and(|slot| !slot.set_promiscuous(on)) {
                    not_supported(session, id, on, "promiscuous", EVERY_FRAME);
                }
            }
        },
    },
    Command {
        pattern: "set allmulti <port|all> (on|off)",
        help: "Set the allmulti mode on a port, or all; refused where that would not be true.",
        run: |session, values| {
            for id in promisc_targets(session, values.target(0)) {
                set_allmulticast(session, id, values.word(1) == "on");
            }
        },
    },
    Command {
        pattern: "set portlist <text>",
        help: "Set the list of forwarding ports: x[,y]*.",
        run: |session, values| set_ports(session, settings::parse_list(values.word(0), 65_535)),
    },
    Command {
        pattern: "set portmask <hex>",
        help: "Set the forwarding ports hexadecimal mask.",
        run: |session, values| set_ports(session, settings::parse_mask(values.word(0))),
    },
    Command { pattern: "set nbport <n>", help: "Set number of ports.", run: set_port_count },
    Command {
        pattern: "set corelist <text>",
        help: "Set the list of forwarding cores: x[,y]*.",
        run: |session, values| set_lcores(session, settings::parse_list(values.word(0), 1023)),
    },
    Command {
        pattern: "set coremask <hex>",
        help: "Set the forwarding cores hexadecimal mask.",
        run: |session, values| set_lcores(session, settings::parse_mask(values.word(0))),
    },
    Command { pattern: "set nbcore <n>", help: "Set number of cores.", run: set_lcore_count },
    Command { pattern: "set eth-peer <port> <text>", help: "Set the peer address of a port.", run: set_peer },
    Command {
        pattern: "set flush_rx (on|off)",
        help: "Throw away (default) or keep what waits in receive queues when forwarding starts.",
        run: |session, values| session.settings.flush_rx = values.word(0) == "on",
    },
    Command {
        pattern: "set xstats-hide-zero (on|off)",
        help: "Hide extended statistics that are zero.",
        run: |session, values| session.settings.hide_zero_xstats = values.word(0) == "on",
    },
    Command {
        pattern: "set default",
        help: "Reset forwarding to the default configuration.",
        run: |session, _| {
            out!(session.out, "Reset to default forwarding configuration...\n");
            session.settings.reset_streams();
        },
    },
];

fn set_mode(session: &mut Session, values: &Values, retry: bool) {
    let Some(mode) = ModeKind::named(values.word(0)) else { return };
    session.settings.mode = mode;
    session.settings.retry.enabled = retry;
    let suffix = if retry { " with retry" } else { "" };
    out!(session.out, "Set {} packet forwarding mode{suffix}\n", mode.name());
}

fn set_burst(session: &mut Session, values: &Values) {
    match u16::try_from(values.number(0)) {
        Ok(burst @ ..=MAX_BURST) => {
            let burst = if burst == 0 { DEFAULT_BURST } else { burst };
            session.settings.burst = burst;
            out!(session.out, "Number of packets per burst set to {burst}\n");
        }
        _ => {
            let asked = values.number(0);
            err!(
                session.out,
                "nb pkt per burst: {asked} > {MAX_BURST} (maximum packet per burst)  ignored\n"
            );
        }
    }
}

fn set_txpkts(session: &mut Session, values: &Values) {
    let Some(list) = settings::parse_list(values.word(0), u32::MAX - 1) else {
        return err!(session.out, "Bad arguments\n");
    };
    match settings::check_tx_segments(&list, session.options.data_room()) {
        Ok(segments) => session.settings.tx_segments = segments,
        Err(problem) => err!(session.out, "{problem}\n"),
    }
}

/// Most ports have no separate setting for multicast frames: they receive all of them, or those that
/// promiscuous mode admits.
fn set_allmulticast(session: &mut Session, id: u16, on: bool) {
    if session.ports.get_mut(id).is_none_or(|slot| slot.set_allmulticast(on)) {
        return;
    }
    let why = if on { "it receives them while it is promiscuous: set promisc" } else { EVERY_FRAME };
    not_supported(session, id, on, "all-multicast", why);
}

const EVERY_FRAME: &str = "it receives every frame that its peer sends";

/// Prints DPDK's message about a mode that a port does not support, and the reason.
fn not_supported(session: &mut Session, id: u16, on: bool, mode: &str, why: &str) {
    let act = if on { "enabling" } else { "disabling" };
    err!(session.out, "Error during {act} {mode} mode for port {id}: Operation not supported; {why}\n");
}

fn set_verbose(session: &mut Session, values: &Values) {
    let level = u16::try_from(values.number(0)).unwrap_or(u16::MAX);
    if level > 0
        && let Err(error) = session.live.shown.begin()
    {
        return err!(session.out, "no thread can be made to print packets: {error}; raise `ulimit -u`\n");
    }
    let before = std::mem::replace(&mut session.settings.verbose, level);
    session.live.set_verbose(level);
    out!(session.out, "Change verbose level from {before} to {level}\n");
}

fn set_work_cycles(session: &mut Session, values: &Values) {
    let cycles = values.number(0).min(MAX_WORK_CYCLES);
    session.settings.work_cycles = cycles;
    session.live.set_work_cycles(cycles);
}

fn promisc_targets(session: &mut Session, target: Target) -> Vec<u16> {
    if let Target::Port(id) = target
        && session.ports.get(id).is_none()
    {
        err!(session.out, "Invalid port_id={id}\n");
        return Vec::new();
    }
    targets(session, target)
}

fn set_ports(session: &mut Session, list: Option<Vec<u32>>) {
    let Some(list) = list else { return err!(session.out, "Bad arguments\n") };
    let mut ports: Vec<u16> = Vec::with_capacity(list.len());
    for (index, &id) in list.iter().enumerate() {
        match u16::try_from(id).ok().filter(|id| session.ports.get(*id).is_some()) {
            None => return err!(session.out, "Invalid port {id}\n"),
            Some(port) => {
                if let Some(first) = ports.iter().position(|p| *p == port) {
                    return err!(session.out, "duplicated port {port} at index {first} and {index}\n");
                }
                ports.push(port);
            }
        }
    }
    let (before, now) = (session.forwarding_ports().len(), ports.len());
    session.settings.ports = Some(ports);
    session.settings.nb_ports = None;
    if before != now {
        out!(
            session.out,
            "previous number of forwarding ports {before} - changed to number of configured ports {now}\n"
        );
    }
    session.warn_odd_ports();
}

fn set_port_count(session: &mut Session, values: &Values) {
    let (asked, max) = (values.number(0), session.ports.len());
    match u16::try_from(asked) {
        Ok(count) if count > 0 && usize::from(count) <= max => {
            session.settings.nb_ports = Some(count);
            out!(session.out, "Number of forwarding ports set to {count}\n");
            session.warn_odd_ports();
        }
        _ => err!(session.out, "nb fwd ports {asked} > {max} (number of configured ports) - ignored\n"),
    }
}

/// Checks a list of lcores to forward on.
///
/// # Errors
/// Returns DPDK's message about the first lcore that cannot forward.
pub(in crate::testpmd) fn check_lcores(session: &Session, list: &[u32]) -> Result<(), String> {
    let map = session.eal.lcores();
    let workers = session.worker_lcores();
    for (index, id) in list.iter().enumerate() {
        if let Some(first) = list[..index].iter().position(|earlier| earlier == id) {
            return Err(format!("duplicated core {id} at index {first} and {index}"));
        }
        if workers.contains(id) {
            continue;
        }
        return Err(if *id == map.main().id.0 {
            format!(
                "lcore {id} cannot be masked on for running packet forwarding, which is the main lcore and \
                 reserved for command line parsing only"
            )
        } else {
            format!("lcore {id} not enabled")
        });
    }
    Ok(())
}

fn set_lcores(session: &mut Session, list: Option<Vec<u32>>) {
    let Some(list) = list else { return err!(session.out, "Bad arguments\n") };
    if let Err(problem) = check_lcores(session, &list) {
        return err!(session.out, "{problem}\n");
    }
    session.settings.nb_cores = u32::try_from(list.len()).unwrap_or(u32::MAX);
    session.settings.lcores = Some(list);
}

fn set_lcore_count(session: &mut Session, values: &Values) {
    let (asked, max) = (values.number(0), session.worker_lcores().len());
    if asked as usize > max {
        return err!(
            session.out,
            "nb fwd cores {asked} > {max} (max. number of configured lcores) - ignored\n"
        );
    }
    if asked == 0 {
        return err!(session.out, "nb fwd cores 0 < 1 (something has to forward) - ignored\n");
    }
    session.settings.nb_cores = asked;
    out!(session.out, "Number of forwarding cores set to {asked}\n");
}

fn set_peer(session: &mut Session, values: &Values) {
    let port = values.port(0);
    if session.ports.get(port).is_none() {
        return err!(session.out, "Error: Invalid port number {port}\n");
    }
    match Mac::parse(values.word(1)) {
        Some(mac) => session.settings.set_peer(port, mac),
        None => err!(session.out, "Error: Invalid ethernet address: {}\n", values.word(1)),
    }
}
