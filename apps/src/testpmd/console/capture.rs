//! Commands about captures.

use std::path::Path;

use linecard::capture::Totals;

use super::commands::Command;
use super::grammar::Values;
use crate::output::{err, out};
use crate::testpmd::recording::Recording;
use crate::testpmd::session::Session;

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        pattern: "set capture <port> <text>",
        help: "Write what passes a port to a pcapng file (pcap, if it is named so); `off` ends it.",
        run: set_capture,
    },
    Command {
        pattern: "show capture",
        help: "Display captures into files, and how to capture from outside.",
        run: show,
    },
];

fn set_capture(session: &mut Session, values: &Values) {
    let (port, word) = (values.port(0), values.word(1).to_owned());
    if word == "off" {
        match session.recordings.remove(&port) {
            Some(recording) => end(session, port, recording),
            None => err!(session.out, "port {port} is not captured into a file; see `show capture`\n"),
        }
        return;
    }
    let Some(slot) = session.ports.get(port) else {
        err!(session.out, "Invalid port {port}\n");
        return;
    };
    if !slot.started() {
        err!(session.out, "error: port {port} is not started; enter `port start {port}` first\n");
        return;
    }
    let name = slot.name.clone();
    // The recording ended when its port was stopped.
    if session.recordings.get(&port).is_some_and(Recording::ended)
        && let Some(recording) = session.recordings.remove(&port)
    {
        end(session, port, recording);
    }
    match Recording::start(&session.hub, port, Path::new(&word)) {
        Ok(recording) => {
            out!(session.out, "Capturing port {port} ({name}) into {word}\n");
            session.recordings.insert(port, recording);
        }
        Err(error) => err!(session.out, "error: {error}\n"),
    }
}

fn end(session: &mut Session, port: u16, recording: Recording) {
    let path = recording.path.display().to_string();
    match recording.finish() {
        Ok(Totals { seen, lost }) => {
            let written = seen.saturating_sub(lost);
            out!(session.out, "Captured {written} packets of port {port} into {path}, {lost} lost\n");
        }
        Err(error) => err!(session.out, "error: {error}\n"),
    }
}

fn show(session: &mut Session, _: &Values) {
    for (port, recording) in &session.recordings {
        let (path, written) = (recording.path.display(), recording.written());
        let state = if recording.ended() { "ended" } else { "on" };
        out!(session.out, "port {port}: {path}, {written} packets, {state}\n");
    }
    match &session.server {
        Some(server) => out!(
            session.out,
            "from outside: linecard capture -p PORT -w FILE --pid {} (socket {})\n",
            std::process::id(),
            server.path().display()
        ),
        None => out!(session.out, "from outside: not possible, as there is no control socket\n"),
    }
}
