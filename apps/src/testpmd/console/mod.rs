//! The console: reads lines, finds their command and runs it.

mod capture;
mod commands;
mod config;
mod control;
mod device;
mod display;
mod dump;
mod editor;
mod flow;
mod grammar;
mod help;
mod input;
mod json;
mod offload;
mod ports;
mod queues;
mod refused;
mod rss;
mod single;
mod vlan;

use std::path::Path;
use std::time::Duration;

pub(super) use config::check_lcores;
use input::Event;
pub(super) use input::Input;

use self::grammar::Match;
use super::session::Session;
use crate::output::{err, out};

/// The prompt of DPDK's testpmd.
pub(super) const PROMPT: &str = "testpmd> ";

/// The interval at which link changes are checked while no command arrives.
const TICK: Duration = Duration::from_millis(100);

/// The greatest depth to which files may load files.
const MAX_LOAD_DEPTH: u8 = 8;

/// Pattern and help text of every command.
pub(super) fn described() -> impl Iterator<Item = (&'static str, &'static str)> {
    commands::SECTIONS
        .iter()
        .flat_map(|section| section.commands)
        .map(|command| (command.pattern, command.help))
}

/// Runs commands until one ends the run, the input ends, a signal arrives or the output fails.
pub(super) fn run(session: &mut Session, input: &mut Input) {
    while !session.quit && !session.out.failed() {
        out!(session.out, "{PROMPT}");
        session.out.flush();
        input.ask();
        match wait(session, input) {
            Event::Line(line) => {
                if !input.echoes() {
                    echo(session, &line);
                }
                execute(session, &line);
            }
            Event::End | Event::Signal => return,
        }
    }
}

fn wait(session: &mut Session, input: &mut Input) -> Event {
    loop {
        if let Some(event) = input.wait(TICK, &mut session.out) {
            return event;
        }
        let news = session.report_links();
        if !news.is_empty() {
            out!(session.out, "{news}{}", input.shown());
            session.out.flush();
        }
    }
}

/// Prints a piped line as if it had been typed; control characters are replaced by spaces.
fn echo(session: &mut Session, line: &str) {
    let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    out!(session.out, "{shown}\r\n");
}

/// Runs one line; false when it is not a command.
pub(super) fn execute(session: &mut Session, line: &str) -> bool {
    if json::answer(session, line) {
        return true;
    }
    match grammar::find(commands::all().map(|c| (c.pattern, c.run)), line) {
        Match::Found(run, values) => {
            run(session, &values);
            session.tell_ports();
        }
        Match::Empty => {}
        bad => {
            let refused = refused::look_up(line);
            if let Match::Found(refused, values) = refused {
                refused::answer(session, refused, &values);
                return true;
            }
            let known = matches!((bad, refused), (Match::BadArguments, _) | (_, Match::BadArguments));
            let answer = if known { "Bad arguments" } else { "Command not found" };
            out!(session.out, "{answer}\n");
            return false;
        }
    }
    true
}

/// Runs the commands of a file.
///
/// # Errors
/// The file cannot be read, or files are nested too deep.
pub(super) fn run_file(session: &mut Session, path: &Path, echoed: bool) -> std::io::Result<()> {
    if session.load_depth >= MAX_LOAD_DEPTH {
        err!(session.out, "files that load files are nested {MAX_LOAD_DEPTH} deep, the most possible\n");
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let text = std::fs::read(path)?;
    session.load_depth += 1;
    for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
        if session.quit || session.out.failed() {
            break;
        }
        if echoed {
            out!(session.out, "{PROMPT}");
            echo(session, line);
        }
        if !execute(session, line) {
            session.bad_line.get_or_insert_with(|| format!("line {} of {}", index + 1, path.display()));
        }
        session.out.flush();
    }
    session.load_depth -= 1;
    Ok(())
}
