//! The list of all console commands, by section.

use super::grammar::Values;
use super::{capture, config, control, device, display, dump, flow, help, offload, ports, queues, rss, vlan};
use crate::testpmd::session::Session;

/// One console command.
pub(crate) struct Command {
    /// The words of the command; syntax in [`super::grammar`].
    pub(crate) pattern: &'static str,
    /// The text that `help` prints.
    pub(crate) help: &'static str,
    /// Executes the command.
    pub(crate) run: fn(&mut Session, &Values),
}

/// Commands that belong together in `help`.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) commands: &'static [Command],
}

/// Every command, in the order `help all` shows them.
pub(crate) const SECTIONS: &[Section] = &[
    Section {
        name: "control",
        title: "Control forwarding",
        summary: "Start and stop forwarding.",
        commands: control::COMMANDS,
    },
    Section {
        name: "display",
        title: "Display",
        summary: "Displaying port, stats and config information.",
        commands: display::COMMANDS,
    },
    Section {
        name: "config",
        title: "Configuration",
        summary: "Configuration information.",
        commands: config::COMMANDS,
    },
    Section {
        name: "ports",
        title: "Port Operations",
        summary: "Configuring ports.",
        commands: ports::COMMANDS,
    },
    Section {
        name: "offload",
        title: "Offloads",
        summary: "Checksums and segmentation.",
        commands: offload::COMMANDS,
    },
    Section { name: "queues", title: "Queues", summary: "Single queues.", commands: queues::COMMANDS },
    Section {
        name: "devices",
        title: "Devices",
        summary: "Devices, their addresses and links.",
        commands: device::COMMANDS,
    },
    Section { name: "vlan", title: "VLAN", summary: "VLAN tags, in software.", commands: vlan::COMMANDS },
    Section {
        name: "rss",
        title: "Receive-side scaling",
        summary: "Flows spread over queues, in software.",
        commands: rss::COMMANDS,
    },
    Section {
        name: "flow",
        title: "Flow rules",
        summary: "Flow rules, in software.",
        commands: flow::COMMANDS,
    },
    Section { name: "dump", title: "Dump", summary: "The process as it is.", commands: dump::COMMANDS },
    Section {
        name: "capture",
        title: "Capture",
        summary: "Packets of ports into files.",
        commands: capture::COMMANDS,
    },
    Section { name: "help", title: "Help", summary: "Help about help.", commands: help::COMMANDS },
];

/// Every command there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    SECTIONS.iter().flat_map(|section| section.commands)
}
