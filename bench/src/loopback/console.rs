//! A testpmd with a pipe to its console.
//!
//! DPDK buffers what it prints to a pipe till it ends, but writes prompts at once: so the next prompt tells that a command
//! is done, and what it printed is read when the program has ended.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// Why a sample came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The user ended the run.
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

/// The user ended the run.
#[derive(Debug)]
pub(crate) struct Interrupted;

/// Keeps what goes wrong with the programs of one sample, in a sentence, apart from the user's interrupt, which ends all.
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

    /// Sleeps, but not through an interrupt.
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
/// How often an interrupt or an early end is looked for.
const TICK: Duration = Duration::from_millis(50);
/// How long one command may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a program may take to start: DPDK clears its hugepages first.
const START: Duration = Duration::from_secs(30);
/// How long a program may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a program wrote so far.
#[derive(Default)]
struct ProgramOutput {
    text: Mutex<Vec<u8>>,
    news: Condvar,
}

impl ProgramOutput {
    fn text(&self) -> MutexGuard<'_, Vec<u8>> {
        // Appending cannot leave a half-written text behind.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects what comes from `from` till its end.
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

/// A running testpmd; ended when dropped.
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
    /// Starts `command` and waits for its console.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        // A group of its own: a Ctrl-C at the terminal reaches the harness only, which then ends its programs.
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

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program still runs.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                self.hear_out();
                Err(self.trouble(&format!("ended early ({status})")))
            }
            _ => Ok(()),
        }
    }

    /// Types a line and waits till it has been carried out.
    pub(crate) fn command(&mut self, line: &str) -> Result<(), Failure> {
        self.ask(line, Duration::ZERO).map(drop)
    }

    /// Types a line whose work takes `time` and returns what was printed till it was done.
    pub(crate) fn ask(&mut self, line: &str, time: Duration) -> Result<String, Failure> {
        let from = self.order(line)?;
        self.answer(from, time)
    }

    /// Types a line and does not wait; the place from which on [`answer`](Self::answer) looks.
    pub(crate) fn order(&mut self, line: &str) -> Result<usize, Failure> {
        let from = self.output.text().len();
        self.write(line)?;
        Ok(from)
    }

    /// What was printed from that place on till the next prompt.
    pub(crate) fn answer(&mut self, from: usize, time: Duration) -> Result<String, Failure> {
        self.await_prompt(from, time + ANSWER)?;
        let text = self.output.text();
        let new = String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned();
        Ok(new)
    }

    /// The same, as the JSON object in its first line.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, line: &str, time: Duration) -> Result<T, Failure> {
        let text = self.ask(line, time)?;
        self.parse(&text)
    }

    /// The JSON object in the first line of an answer.
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

    /// Ends the program in order and returns what it printed, and its log.
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

    /// Collects what a program that has ended still left in its pipes.
    fn hear_out(&mut self) {
        for listener in self.listeners.iter_mut().filter_map(Option::take) {
            // A listener does not panic; what it collected so far is there in any case.
            let _ = listener.join();
        }
    }

    /// One sentence with what the program complained about.
    fn trouble(&self, what: &str) -> Failure {
        let (errors, output) = (self.errors.to_text(), self.output.to_text());
        let complaint = complaint(&errors).or_else(|| complaint(&output)).unwrap_or("nothing");
        Failure::Program(format!("the {} {what}; it said: {complaint}", self.name))
    }
}

/// The line in which DPDK names the cause, or the first that tells of trouble, or else the last one.
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
        // Both programs end at the end of their input; there is no time to wait for that here.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program said in its life.
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
