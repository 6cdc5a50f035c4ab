//! Sources of commands: a terminal with line editing, or a pipe; and the signals that end a run.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use linecard::eal::Stop;
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::editor::{Editor, Typed};
use super::{PROMPT, commands, grammar};
use crate::error::Error;
use crate::output::{Output, out};

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

/// What a thread sends to the console.
#[derive(Debug)]
enum Came {
    /// A line of a pipe or file.
    Line(String),
    /// Keys of a terminal.
    Bytes(Vec<u8>),
    End,
    Signal,
    /// No input: the console checks for other events.
    News,
}

/// The terminal: its editor, and bytes that are not processed yet.
struct Keys {
    terminal: Arc<Terminal>,
    editor: Editor,
    typed: VecDeque<u8>,
}

/// Reads input in a separate thread, so that signals and timeouts can interrupt the wait.
pub(crate) struct Input {
    requests: Sender<()>,
    events: Receiver<Came>,
    /// For [`Input::waker`].
    sender: Sender<Came>,
    /// Stops with the first signal.
    signalled: Stop,
    /// A request to the reader is not answered yet.
    asked: bool,
    /// Present if input comes from a terminal.
    keys: Option<Keys>,
}

impl Input {
    /// Watches signals and standard input. Lines can be edited when `edit` is set and input and output are a terminal.
    ///
    /// # Errors
    /// Signals cannot be watched, or no thread can be made.
    pub(crate) fn standard(edit: bool) -> Result<Self, Error> {
        let (sender, events) = mpsc::channel();
        let (requests, requested) = mpsc::channel();
        let on_terminal = edit && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let terminal = on_terminal.then(Terminal::take).flatten().map(Arc::new);
        let signalled = Stop::default();
        watch_signals(sender.clone(), signalled.clone(), terminal.clone())?;
        let (edits, news) = (terminal.is_some(), sender.clone());
        let keys = terminal.map(|terminal| Keys {
            terminal,
            editor: Editor::new(PROMPT, grammar::MAX_LINE, complete),
            typed: VecDeque::new(),
        });
        thread::Builder::new()
            .name("lc-console".into())
            .spawn(move || match edits {
                true => read_terminal(&requested, &sender),
                false => read_pipe(&requested, &sender),
            })
            .map_err(|source| no_thread("the console", source))?;
        Ok(Self { requests, events, sender: news, signalled, asked: false, keys })
    }

    /// Returns a function that ends the wait for a command as a timeout does. Callable on any thread.
    pub(crate) fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let sender = self.sender.clone();
        move || {
            // Fails only when the console ends.
            let _ = sender.send(Came::News);
        }
    }

    /// The stop flag that the first signal sets, also while a command runs.
    pub(crate) fn signalled(&self) -> Stop {
        self.signalled.clone()
    }

    /// Whether typed text is echoed here; otherwise the caller prints the line before it runs it.
    pub(crate) fn echoes(&self) -> bool {
        self.keys.is_some()
    }

    /// Requests one line.
    pub(crate) fn ask(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            // Fails only if the reader has ended, after it sent `End`.
            let _ = self.requests.send(());
        }
    }

    /// Waits up to `time` for an event; echoes keys to `output`.
    pub(crate) fn wait(&mut self, time: Duration, output: &mut Output) -> Option<Event> {
        if let Some(event) = self.type_on(output) {
            return Some(event);
        }
        let came = match self.events.recv_timeout(time) {
            Ok(Came::News) | Err(RecvTimeoutError::Timeout) => return None,
            Ok(came) => came,
            Err(RecvTimeoutError::Disconnected) => Came::End,
        };
        self.asked &= matches!(came, Came::Signal);
        match came {
            Came::Line(line) => Some(Event::Line(line)),
            Came::End => Some(Event::End),
            Came::Signal => Some(Event::Signal),
            Came::News => None,
            Came::Bytes(bytes) => {
                self.keys.iter_mut().for_each(|keys| keys.typed.extend(&bytes));
                let event = self.type_on(output);
                if event.is_none() {
                    self.ask();
                }
                event
            }
        }
    }

    /// Processes typed bytes up to the end of a line.
    fn type_on(&mut self, output: &mut Output) -> Option<Event> {
        let keys = self.keys.as_mut()?;
        let mut shown = String::new();
        let mut event = None;
        while event.is_none()
            && let Some(byte) = keys.typed.pop_front()
        {
            event = match keys.editor.take(byte, &mut shown) {
                Typed::More => None,
                Typed::Line(line) => Some(Event::Line(line)),
                Typed::End => Some(Event::End),
            };
        }
        if !shown.is_empty() {
            out!(output, "{shown}");
            output.flush();
        }
        event
    }

    /// The text to print after output that interrupted typing: the prompt and the line, if lines can be
    /// edited.
    pub(crate) fn shown(&self) -> String {
        self.keys.as_ref().map_or(String::new(), |keys| keys.editor.shown())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(keys) = &self.keys {
            keys.terminal.give_back();
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

/// The first signal ends the run in order; a second one exits immediately.
fn watch_signals(
    events: Sender<Came>,
    signalled: Stop,
    terminal: Option<Arc<Terminal>>,
) -> Result<(), Error> {
    let failed = |source| Error::System {
        action: "signals cannot be watched".into(),
        source,
        remedy: "raise the limit on open files (ulimit -n)",
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let body = move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                terminal.iter().for_each(|terminal| terminal.give_back());
                std::process::exit(1);
            }
            signalled.stop();
            let _ = events.send(Came::Signal);
        }
    };
    thread::Builder::new()
        .name("lc-signals".into())
        .spawn(body)
        .map(drop)
        .map_err(|source| no_thread("signals", source))
}

fn read_pipe(requested: &Receiver<()>, events: &Sender<Came>) {
    let mut input = BufReader::new(std::io::stdin());
    while requested.recv().is_ok() {
        let event = match read_line(&mut input) {
            Some(line) => Came::Line(line),
            None => Came::End,
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Reads one line of any bytes; `None` at the end. A line longer than a command may be is truncated.
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

/// Reads the bytes of a terminal as they are typed.
fn read_terminal(requested: &Receiver<()>, events: &Sender<Came>) {
    let mut input = std::io::stdin();
    let mut bytes = [0; 1024];
    while requested.recv().is_ok() {
        let came = match input.read(&mut bytes) {
            Ok(count) if count > 0 => Came::Bytes(bytes[..count].to_vec()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Came::Bytes(Vec::new()),
            _ => Came::End,
        };
        if events.send(came).is_err() {
            return;
        }
    }
}

fn complete(line: &str) -> (usize, Vec<String>) {
    grammar::complete(commands::all().map(|command| command.pattern), line)
}

/// A terminal in non-canonical mode without echo; [`Terminal::give_back`] restores its settings.
struct Terminal(Termios);

impl Terminal {
    fn take() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut own = before.clone();
        // Ctrl-C stays a signal, and line feeds get their carriage return.
        own.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
        own.special_codes[SpecialCodeIndex::VMIN] = 1;
        own.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &own).ok()?;
        Some(Self(before))
    }

    fn give_back(&self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

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
