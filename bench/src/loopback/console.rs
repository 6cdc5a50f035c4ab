//! A running testpmd with a pipe to its console.
//!
//! DPDK buffers its output to a pipe until it ends, but writes prompts immediately. Therefore the next prompt
//! shows that a command is done, and the command's output is available only after the program has ended.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// The reason why a sample failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The user interrupted the run.
    #[error("interrupted")]
    Interrupted,
    /// A program could not be started, did not answer, or ended early.
    #[error("{0}")]
    Program(String),
}

impl From<Interrupted> for Failure {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

/// The user interrupted the run.
#[derive(Debug)]
pub(crate) struct Interrupted;

/// Separates failures of a sample's programs, as a sentence, from the user's interrupt, which ends the run.
pub(crate) fn apart<T>(outcome: Result<T, Failure>) -> Result<Result<T, String>, Interrupted> {
    match outcome {
        Ok(good) => Ok(Ok(good)),
        Err(Failure::Program(why)) => Ok(Err(why)),
        Err(Failure::Interrupted) => Err(Interrupted),
    }
}

/// Set by SIGINT and SIGTERM.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(pub(crate) Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// Sleeps, but returns early after an interrupt.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
        }
    }
}

const PROMPT: &[u8] = b"testpmd> ";
/// The interval between checks for an interrupt or an early exit.
const TICK: Duration = Duration::from_millis(50);
/// The time limit of one command.
const ANSWER: Duration = Duration::from_secs(10);
/// The time limit of a program's start: DPDK clears its hugepages first.
const START: Duration = Duration::from_secs(30);
/// The time limit of a program's exit.
const FAREWELL: Duration = Duration::from_secs(5);

/// The output of a program so far.
#[derive(Default)]
struct ProgramOutput {
    text: Mutex<Vec<u8>>,
    news: Condvar,
}

impl ProgramOutput {
    fn text(&self) -> MutexGuard<'_, Vec<u8>> {
        // Appending cannot leave an inconsistent text behind.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects the output of `from` until its end.
    fn listen(mut from: impl Read + Send + 'static) -> (Arc<Self>, Option<JoinHandle<()>>) {
        let said = Arc::new(Self::default());
        let ours = Arc::clone(&said);
        let listener = thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                match from.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(n) => ours.text().extend_from_slice(&chunk[..n]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
                ours.news.notify_all();
            }
            ours.news.notify_all();
        });
        (said, Some(listener))
    }

    fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.text()).into_owned()
    }
}

/// A running testpmd; killed when dropped.
pub(crate) struct Console {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<ProgramOutput>,
    errors: Arc<ProgramOutput>,
    listeners: [Option<JoinHandle<()>>; 2],
    interrupt: Interrupt,
}

impl Console {
    /// Starts `command` and waits for its prompt.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        // A separate process group: Ctrl-C at the terminal reaches only the harness, which then ends its
        // programs.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Failure::Program(format!("the {name} does not start: {error}")))?;
        let (output, first) = child.stdout.take().map_or_else(Default::default, ProgramOutput::listen);
        let (errors, second) = child.stderr.take().map_or_else(Default::default, ProgramOutput::listen);
        let input = child.stdin.take();
        let listeners = [first, second];
        let mut console =
            Self { name, child, input, output, errors, listeners, interrupt: interrupt.clone() };
        console.await_prompt(0, START)?;
        Ok(console)
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns an error if the program has exited.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                self.hear_out();
                Err(self.trouble(&format!("ended early ({status})")))
            }
            _ => Ok(()),
        }
    }

    /// Executes a command and waits until it is done.
    pub(crate) fn command(&mut self, line: &str) -> Result<(), Failure> {
        self.ask(line, Duration::ZERO).map(drop)
    }

    /// Executes a command that takes `time` and returns its output.
    pub(crate) fn ask(&mut self, line: &str, time: Duration) -> Result<String, Failure> {
        let from = self.order(line)?;
        self.answer(from, time)
    }

    /// Sends a command without waiting; returns the position for [`answer`](Self::answer).
    pub(crate) fn order(&mut self, line: &str) -> Result<usize, Failure> {
        let from = self.output.text().len();
        self.write(line)?;
        Ok(from)
    }

    /// Returns the output from that position until the next prompt.
    pub(crate) fn answer(&mut self, from: usize, time: Duration) -> Result<String, Failure> {
        self.await_prompt(from, time + ANSWER)?;
        let text = self.output.text();
        let new = String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned();
        Ok(new)
    }

    /// The same as [`ask`](Self::ask), for an answer that is a JSON object.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, line: &str, time: Duration) -> Result<T, Failure> {
        let text = self.ask(line, time)?;
        self.parse(&text)
    }

    /// Parses the first line of an answer that begins a JSON object.
    pub(crate) fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, Failure> {
        let first = text.lines().find(|line| line.starts_with('{'));
        let read = first.and_then(|first| serde_json::from_str(first).ok());
        read.ok_or_else(|| Failure::Program(format!("the {} answered \"{}\"", self.name, text.trim())))
    }

    fn write(&mut self, line: &str) -> Result<(), Failure> {
        let sent =
            self.input.as_mut().is_some_and(|input| input.write_all(format!("{line}\n").as_bytes()).is_ok());
        if sent { Ok(()) } else { Err(self.trouble("does not take commands")) }
    }

    fn await_prompt(&mut self, from: usize, within: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + within;
        loop {
            self.interrupt.check()?;
            {
                let text = self.output.text();
                let new = text.get(from..).unwrap_or_default();
                if new.windows(PROMPT.len()).any(|window| window == PROMPT) {
                    return Ok(());
                }
                drop(self.output.news.wait_timeout(text, TICK));
            }
            self.check()?;
            if Instant::now() > deadline {
                return Err(self.trouble(&format!("said nothing for {} s", within.as_secs())));
            }
        }
    }

    /// Ends the program in order and returns its output and its log.
    pub(crate) fn finish(mut self) -> Result<Transcript, Failure> {
        self.write("quit")?;
        let deadline = Instant::now() + FAREWELL;
        while matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt.check()?;
            if Instant::now() > deadline {
                return Err(self.trouble("did not end"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.hear_out();
        Ok(Transcript { output: self.output.to_text(), log: self.errors.to_text() })
    }

    /// Reads the rest of the pipes of a program that has exited.
    fn hear_out(&mut self) {
        for listener in self.listeners.iter_mut().filter_map(Option::take) {
            // A listener does not panic, and its collected text is kept in any case.
            let _ = listener.join();
        }
    }

    /// Returns an error of one sentence with the program's complaint.
    fn trouble(&self, what: &str) -> Failure {
        let (errors, output) = (self.errors.to_text(), self.output.to_text());
        let complaint = complaint(&errors).or_else(|| complaint(&output)).unwrap_or("nothing");
        Failure::Program(format!("the {} {what}; it said: {complaint}", self.name))
    }
}

/// Returns the line in which DPDK names the cause, else the first line that indicates an error, else the last
/// line.
fn complaint(text: &str) -> Option<&str> {
    let telling = |line: &&str| {
        ["error", "Error", "annot", "ailed", "nvalid", "compatible"].iter().any(|word| line.contains(word))
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let cause = lines.clone().find(|line| line.starts_with("Cause: "));
    cause.or_else(|| lines.clone().find(telling)).or_else(|| lines.next_back())
}

impl Drop for Console {
    fn drop(&mut self) {
        // Both programs exit at the end of their input, but there is no time to wait for that here.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The complete output of a program.
#[derive(Debug)]
pub(crate) struct Transcript {
    pub(crate) output: String,
    pub(crate) log: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Console, Failure> {
        Console::start("shell", Command::new("sh").args(["-c", script]), &Interrupt::default())
    }

    #[test]
    fn commands_are_answered_in_turn() {
        let script = "printf 'testpmd> '; while read line; do test \"$line\" = quit && echo Bye && exit; echo \"did $line\"; printf 'testpmd> '; done";
        let mut console = shell(script).expect("a shell");
        console.command("one").expect("an answer");
        assert_eq!(console.ask("two", Duration::ZERO).expect("an answer"), "did two\ntestpmd> ");
        console.json::<u32>("three", Duration::ZERO).expect_err("not JSON");
        let transcript = console.finish().expect("an end");
        assert!(transcript.output.ends_with("did two\ntestpmd> did three\ntestpmd> Bye\n"), "{transcript:?}");
    }

    #[test]
    fn an_early_end_says_why() {
        let failure = shell("echo no memory >&2; exit 3").err().expect("it ends").to_string();
        assert!(
            failure.contains("ended early (exit status: 3)") && failure.contains("no memory"),
            "{failure}"
        );
    }

    #[test]
    fn the_telling_line_is_quoted() {
        let log = "EAL: Detected\nEAL: Cannot open it\nEAL: Invalid arguments\n\n";
        assert_eq!(complaint(log), Some("EAL: Cannot open it"));
        assert_eq!(complaint("one\ntwo\n"), Some("two"));
        let exit = "EAL: Error - exiting with code: 1\n  Cause: no memory\n";
        assert_eq!(complaint(exit), Some("Cause: no memory"));
        assert_eq!(complaint(" \n"), None);
    }

    #[test]
    fn an_interrupt_ends_the_wait_and_the_program() {
        let interrupt = Interrupt::default();
        interrupt.0.store(true, Ordering::Relaxed);
        let result = Console::start("shell", Command::new("sh").args(["-c", "sleep 60"]), &interrupt);
        assert!(matches!(result.err(), Some(Failure::Interrupted)));
    }
}
