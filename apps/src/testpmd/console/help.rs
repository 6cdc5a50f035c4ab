//! `help`, generated from the list of commands.

use super::commands::{Command, SECTIONS, Section};
use crate::output::out;
use crate::testpmd::session::Session;

pub(crate) const COMMANDS: &[Command] = &[
    Command { pattern: "help", help: "List the sections of this help.", run: |session, _| list(session) },
    Command {
        pattern: "help (control|display|config|ports|offload|queues|devices|vlan|rss|flow|dump|capture|all)",
        help: "Describe the commands of a section.",
        run: |session, values| {
            let wanted = values.word(0).to_owned();
            for section in SECTIONS.iter().filter(|s| wanted == "all" || wanted == s.name) {
                describe(session, section);
            }
        },
    },
];

fn list(session: &mut Session) {
    out!(session.out, "\nHelp is available for the following sections:\n\n");
    for Section { name, summary, .. } in SECTIONS.iter().filter(|s| s.name != "help") {
        out!(session.out, "    {:<32}: {summary}\n", format!("help {name}"));
    }
    out!(session.out, "    {:<32}: All of the above sections.\n\n", "help all");
}

fn describe(session: &mut Session, section: &Section) {
    let line = "-".repeat(section.title.len() + 1);
    out!(session.out, "\n{}:\n{line}\n\n", section.title);
    for command in section.commands {
        out!(session.out, "{}\n    {}\n\n", command.pattern, command.help);
    }
}
