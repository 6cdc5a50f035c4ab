//! A testpmd, DPDK's or ours, controlled through its console.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::{on_path, skip};

/// The program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dpdk,
    Linecard,
}

/// Whether the program is available; if not, reports that `test` is skipped.
pub(crate) fn present(kind: Kind, test: &str) -> bool {
    let there = kind == Kind::Linecard || on_path("dpdk-testpmd").is_some();
    if !there {
        skip(test, "dpdk-testpmd is not installed (apt-get install dpdk)");
    }
    there
}

/// A running testpmd; killed when dropped.
pub(crate) struct Testpmd {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Testpmd {
    /// Starts it; `eal` and `app` are the arguments before and after `--`.
    pub(crate) fn start(kind: Kind, eal: &[&str], app: &[&str]) -> Self {
        let words: &[&str] = match kind {
            // Without stdbuf its output to a pipe is buffered, and the test would not see it start.
            Kind::Dpdk => &["stdbuf", "-oL", "dpdk-testpmd"],
            Kind::Linecard => &[env!("CARGO_BIN_EXE_linecard"), "testpmd"],
        };
        // Each program executes the next, so the child is the testpmd.
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(eal).arg("--").args(app);
        if kind == Kind::Dpdk && std::env::var_os(linecard_testing::IN_USER_NAMESPACE).is_some() {
            // As root it would keep its files where only the machine's root may write.
            command.env("RUNTIME_DIRECTORY", std::env::temp_dir());
        }
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a testpmd starts");
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let err = BufReader::new(child.stderr.take().expect("a pipe"));
        let other = sender.clone();
        std::thread::spawn(move || forward_lines(out, &sender));
        std::thread::spawn(move || forward_lines(err, &other));
        let stdin = child.stdin.take();
        Self { child, stdin, lines, seen: Vec::new() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types one line.
    pub(crate) fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("the console is open");
        writeln!(stdin, "{line}").expect("the console takes a line");
    }

    /// Waits for a line that contains `part`; panics with the whole output if it does not arrive in time.
    pub(crate) fn expect(&mut self, part: &str, within: Duration) -> String {
        self.expect_any(&[part], within)
    }

    /// Waits for a line that contains one of `parts`.
    pub(crate) fn expect_any(&mut self, parts: &[&str], within: Duration) -> String {
        let until = Instant::now() + within;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if parts.iter().any(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(_) => break,
            }
        }
        panic!("{parts:?} did not come within {within:?}; printed so far:\n{}", self.seen.join("\n"));
    }

    /// Returns the lines printed within `time` from now.
    pub(crate) fn drain(&mut self, time: Duration) -> Vec<String> {
        let until = Instant::now() + time;
        let mut lines = Vec::new();
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Ok(line) = self.lines.recv_timeout(left) else { break };
            self.seen.push(line.clone());
            lines.push(line);
        }
        lines
    }

    /// Types `quit`; returns the exit status.
    pub(crate) fn quit(mut self) -> ExitStatus {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = writeln!(stdin, "quit");
        }
        self.wait(Duration::from_secs(10))
    }

    /// Waits until it exits by itself.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "it did not end within {within:?}:\n{}", self.seen.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it with SIGKILL, to simulate a crash.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the whole output so far.
    pub(crate) fn transcript(&self) -> String {
        self.seen.join("\n")
    }
}

/// Forwards lines until the program closes the stream, or the receiver is gone.
fn forward_lines(from: impl BufRead, to: &Sender<String>) {
    for line in from.lines().map_while(Result::ok) {
        if to.send(line).is_err() {
            return;
        }
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        self.kill();
    }
}
