//! Where commands come from: a terminal with a line editor, or a pipe; and the signals that end a run.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rustix::termios::{self, OptionalActions, Termios};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, ExternalPrinter, Helper};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{PROMPT, commands, grammar};
use crate::error::Error;

/// What ends the wait for a command.
#[derive(Debug)]
pub(crate) enum Event {
    /// A line, without its end.
    Line(String),
    /// The input is at its end.
    End,
    /// SIGINT, SIGTERM or SIGHUP.
    Signal,
}

/// Reads lines in a thread of its own, so that a signal or a tick can come between.
pub(crate) struct Input {
    requests: Sender<()>,
    events: Receiver<Event>,
    /// The terminal as it was, to be left as it was.
    terminal: Option<Termios>,
    printer: Option<Box<dyn ExternalPrinter + Send>>,
}

impl Input {
    /// Watches signals and standard input. The line editor is used when `edit` is set and input and output
    /// are a terminal.
    ///
    /// # Errors
    /// Signals cannot be watched, or no thread can be made.
    pub(crate) fn standard(edit: bool) -> Result<Self, Error> {
        let (sender, events) = mpsc::channel();
        watch_signals(sender.clone())?;
        let (requests, requested) = mpsc::channel();
        let on_terminal = edit && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let terminal = on_terminal.then(|| termios::tcgetattr(std::io::stdin()).ok()).flatten();
        let (mut printer, mut editor) = (None, None);
        if terminal.is_some() {
            editor = line_editor();
            printer = editor.as_mut().and_then(external_printer);
        }
        thread::Builder::new()
            .name("lc-console".into())
            .spawn(move || match editor {
                Some(editor) => read_terminal(editor, &requested, &sender),
                None => read_pipe(&requested, &sender),
            })
            .map_err(|source| no_thread("the console", source))?;
        Ok(Self { requests, events, terminal, printer })
    }

    /// Whether the reader prints the prompt and what is typed.
    pub(crate) fn prompts(&self) -> bool {
        self.terminal.is_some()
    }

    /// Asks for one line.
    pub(crate) fn ask(&self) {
        // A reader that is gone has said `End`.
        let _ = self.requests.send(());
    }

    /// What came within `time`.
    pub(crate) fn wait(&self, time: Duration) -> Option<Event> {
        match self.events.recv_timeout(time) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::End),
        }
    }

    /// Prints around the line being edited; false when no line is.
    pub(crate) fn interject(&mut self, text: &str) -> bool {
        self.printer.as_mut().is_some_and(|printer| printer.print(text.to_owned()).is_ok())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(before) = &self.terminal {
            // The reader may be in the middle of a line with the terminal in raw mode.
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn no_thread(what: &str, source: std::io::Error) -> Error {
    Error::System {
        action: format!("no thread can be made for {what}"),
        source,
        remedy: "raise the limit on processes (ulimit -u)",
    }
}

/// The first signal ends the run in order; a second one ends it at once.
fn watch_signals(events: Sender<Event>) -> Result<(), Error> {
    let failed = |source| Error::System {
        action: "signals cannot be watched".into(),
        source,
        remedy: "raise the limit on open files (ulimit -n)",
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let body = move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                std::process::exit(1);
            }
            let _ = events.send(Event::Signal);
        }
    };
    thread::Builder::new()
        .name("lc-signals".into())
        .spawn(body)
        .map(drop)
        .map_err(|source| no_thread("signals", source))
}

fn read_pipe(requested: &Receiver<()>, events: &Sender<Event>) {
    let mut input = BufReader::new(std::io::stdin());
    while requested.recv().is_ok() {
        let event = match read_line(&mut input) {
            Some(line) => Event::Line(line),
            None => Event::End,
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// One line of any bytes; `None` at the end. A line longer than commands may be loses its tail.
fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let limit = grammar::MAX_LINE as u64 + 1;
    input.by_ref().take(limit).read_until(b'\n', &mut line).ok()?;
    if line.is_empty() {
        return None;
    }
    if line.last() != Some(&b'\n') && line.len() > grammar::MAX_LINE {
        skip_line(input);
    }
    Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned())
}

fn skip_line(input: &mut impl BufRead) {
    loop {
        let Ok(chunk) = input.fill_buf() else { return };
        let end = chunk.iter().position(|b| *b == b'\n');
        let used = end.map_or(chunk.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() || used == 0 {
            return;
        }
    }
}

type LineEditor = Editor<Completions, DefaultHistory>;

fn line_editor() -> Option<LineEditor> {
    let config = Config::builder().auto_add_history(true).bracketed_paste(false).build();
    let mut editor = Editor::with_config(config).ok()?;
    editor.set_helper(Some(Completions));
    if let Some(path) = history_path() {
        // No history yet, or none that can be read: start without.
        let _ = editor.load_history(&path);
    }
    Some(editor)
}

fn external_printer(editor: &mut LineEditor) -> Option<Box<dyn ExternalPrinter + Send>> {
    editor.create_external_printer().ok().map(|printer| Box::new(printer) as _)
}

fn history_path() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Some(state.or_else(home)?.join("linecard/testpmd_history"))
}

fn read_terminal(mut editor: LineEditor, requested: &Receiver<()>, events: &Sender<Event>) {
    while requested.recv().is_ok() {
        let event = match editor.readline(PROMPT) {
            Ok(line) => Event::Line(line),
            Err(ReadlineError::Interrupted) => Event::Signal,
            Err(_) => Event::End,
        };
        save_history(&mut editor);
        if events.send(event).is_err() {
            return;
        }
    }
}

/// History is a convenience: a full disk or a read-only home does not disturb the console.
fn save_history(editor: &mut LineEditor) {
    if let Some(path) = history_path()
        && path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok())
    {
        let _ = editor.save_history(&path);
    }
}

/// Completes commands from their patterns.
struct Completions;

impl Completer for Completions {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let line = line.get(..at).unwrap_or(line);
        Ok(grammar::complete(commands::all().map(|command| command.pattern), line))
    }
}

impl Hinter for Completions {
    type Hint = String;
}

impl Highlighter for Completions {}
impl Validator for Completions {}
impl Helper for Completions {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_bytes_are_read() {
        let long = [vec![b'a'; 200_000], b"\nquit\n".to_vec()].concat();
        let mut input = &long[..];
        assert!(read_line(&mut input).is_some_and(|line| line.len() == grammar::MAX_LINE + 1));
        assert_eq!(read_line(&mut input).as_deref(), Some("quit"));
        assert_eq!(read_line(&mut input), None);

        let mut input = &b"sh\0ow\r\n\xff\xfe\n\nlast"[..];
        let lines: Vec<_> = std::iter::from_fn(|| read_line(&mut input)).collect();
        assert_eq!(lines, ["sh\0ow", "\u{fffd}\u{fffd}", "", "last"]);
    }
}
