//! Commands that display and clear statistics and configuration.

use super::commands::Command;
use super::grammar::{Target, Values};
use crate::output::{err, out};
use crate::testpmd::layout;
use crate::testpmd::ports::PortRecord;
use crate::testpmd::session::Session;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "show port (info|summary|stats|xstats) <port|all>",
        help: "Display information for a port, or all. Every show command prints JSON with json as its last word.",
        run: show_port,
    },
    Command {
        pattern: "clear port (info|stats|xstats|fdir) <port|all>",
        help: "Clear information for a port, or all; fdir, which no port here has, clears nothing.",
        run: clear_port,
    },
    Command {
        pattern: "show config (rxtx|cores|fwd|rxpkts|txpkts|txtimes|rxoffs|rxhdrs)",
        help: "Display the given configuration.",
        run: show_config,
    },
    Command {
        pattern: "show fwd stats all",
        help: "Display statistics for all fwd engines.",
        run: |session, _| session.print_forward_stats(),
    },
    Command {
        pattern: "clear fwd stats all",
        help: "Clear statistics for all fwd engines.",
        run: |session, _| session.clear_forward_stats(),
    },
    Command {
        pattern: "show pool",
        help: "Display how many packets of the pool are free, kept aside by threads, and in use.",
        run: show_pool,
    },
    Command {
        pattern: "show port <port> macs",
        help: "Display the addresses of a port.",
        run: |session, values| match session.ports.get(values.port(0)).map(PortRecord::macs) {
            None => invalid_port(session, values.port(0)),
            Some(macs) => {
                let lines: String = macs.iter().map(|mac| format!("  {mac}\n")).collect();
                out!(session.out, "Number of MAC address added: {}\n{lines}", macs.len());
            }
        },
    },
];

/// Prints that port `id` does not exist, and which ports do.
pub(super) fn invalid_port(session: &mut Session, id: u16) {
    let known: String = session.ports.ids().iter().map(|id| format!("{id} ")).collect();
    err!(session.out, "Invalid port {id}\nThe valid ports array is [ {known}]\n");
}

/// Returns the ports that a target selects; prints an error if the port does not exist.
pub(super) fn targets(session: &mut Session, target: Target) -> Vec<u16> {
    match target {
        Target::All => session.ports.ids(),
        Target::Port(id) if session.ports.get(id).is_some() => vec![id],
        Target::Port(id) => {
            invalid_port(session, id);
            Vec::new()
        }
    }
}

fn show_port(session: &mut Session, values: &Values) {
    let what = values.word(0);
    if what == "summary" {
        out!(session.out, "{}", layout::summary_heading(session.ports.len()));
    }
    for id in targets(session, values.target(1)) {
        let hide_zero = session.settings.hide_zero_xstats;
        let waits = session.waits_of(id);
        let Some(slot) = session.ports.get_mut(id) else { continue };
        let text = match what {
            "info" => layout::port_info(&slot.facts()) + &waits,
            "summary" => layout::summary_line(&slot.facts()),
            "stats" => {
                let (stats, rates) = slot.look();
                layout::port_stats(id, &stats, &rates) + &slot.chosen_xstats(&session.options.shown_xstats)
            }
            _ => layout::port_xstats(id, &slot.xstats(), hide_zero),
        };
        out!(session.out, "{text}");
    }
}

fn clear_port(session: &mut Session, values: &Values) {
    for id in targets(session, values.target(1)) {
        let Some(slot) = session.ports.get_mut(id) else { continue };
        match values.word(0) {
            "stats" => {
                slot.reset_stats();
                out!(session.out, "\n  NIC statistics for port {id} cleared\n");
            }
            "xstats" => slot.reset_stats(),
            _ => {}
        }
    }
}

fn show_config(session: &mut Session, values: &Values) {
    match values.word(0) {
        "rxtx" => session.print_rxtx(),
        "fwd" => {
            let shares = session.shares();
            session.print_forwarding(&shares);
        }
        "cores" => {
            let lcores: String = session.configured_lcores().iter().map(|id| format!(" {id:2}")).collect();
            out!(session.out, "List of forwarding lcores:{lcores}\n");
        }
        // No command sets the next three; these are DPDK's texts for values that were never set.
        "txtimes" => out!(session.out, "Interburst gap: 0\nIntraburst gap: 0\n"),
        "rxoffs" => out!(session.out, "Number of offsets: 0\n"),
        "rxhdrs" => out!(session.out, "Number of segments: 0\n"),
        // DPDK prints nothing if there are no segments.
        "rxpkts" if session.settings.rx_segments.is_empty() => {}
        "rxpkts" => {
            let lengths: Vec<_> = session.settings.rx_segments.iter().map(u16::to_string).collect();
            let (count, lengths) = (lengths.len(), lengths.join(","));
            out!(session.out, "Number of segments: {count}\nSegment sizes: {lengths}\n");
        }
        _ => {
            let lengths: Vec<_> = session.settings.tx_segments.iter().map(u16::to_string).collect();
            let (count, lengths) = (lengths.len(), lengths.join(","));
            out!(session.out, "Number of segments: {count}\nSegment sizes: {lengths}\nSplit packet: off\n");
        }
    }
}

fn show_pool(session: &mut Session, _values: &Values) {
    let stats = session.pool.stats();
    out!(
        session.out,
        "mempool <{}>: total={} free={} cached={} in_use={}\n",
        session.pool.name(),
        stats.total,
        stats.free,
        stats.cached,
        stats.in_use
    );
}
