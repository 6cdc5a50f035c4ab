//! Commands that start and stop forwarding, and end the program.

use super::commands::Command;
use super::run_file;
use crate::output::{err, out};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "start",
        help: "Start packet forwarding with current configuration.",
        run: |session, _| session.start_forwarding(0),
    },
    Command {
        pattern: "start tx_first",
        help: "Start packet forwarding after sending one burst on every stream.",
        run: |session, _| session.start_forwarding(1),
    },
    Command {
        pattern: "start tx_first <n>",
        help: "Start packet forwarding after sending that many bursts on every stream.",
        run: |session, values| match values.number(0) {
            n if n > MAX_FIRST => {
                err!(session.out, "Bad arguments: at most {MAX_FIRST} bursts can be sent first\n")
            }
            n => session.start_forwarding(n),
        },
    },
    Command {
        pattern: "stop",
        help: "Stop packet forwarding, and display accumulated statistics.",
        run: |session, _| session.stop_forwarding(),
    },
    Command {
        pattern: "load <text>",
        help: "Run the commands of a file.",
        run: |session, values| match run_file(session, values.word(0).as_ref(), true) {
            Ok(()) => out!(session.out, "Read CLI commands from {}\n", values.word(0)),
            Err(_) => {
                err!(session.out, "Failed to create file based cmdline context: {}\n", values.word(0));
            }
        },
    },
    Command {
        pattern: "quit",
        help: "Stop forwarding, close ports, end.",
        run: |session, _| session.quit = true,
    },
];

/// The most bursts of `start tx_first`: fills any ring many times over, and the command still returns soon.
const MAX_FIRST: u32 = 65_535;
