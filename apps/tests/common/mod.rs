//! What the tests of the command share: running it bounded, reading what it said.
#![allow(dead_code, unused_imports, reason = "each test target uses its own part")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard::capture::pcap::read::Reader;
pub(crate) use linecard_lab::{skip, two_cores, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than any run here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The command under test, with nothing on its input.
pub(crate) fn linecard(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linecard"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// testpmd with little memory; `app` comes after `--`.
pub(crate) fn testpmd(eal: &[&str], app: &[&str]) -> Command {
    let mut command = linecard(&["testpmd", "--no-huge", "--no-pci"]);
    command.args(eal).arg("--").args(app);
    command
}

/// `command` as somebody whom the modes of files hold back: as it is for an ordinary user, without root's right to pass
/// them by for root.
pub(crate) fn held_back(command: &Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return same;
    }
    let mut held = Command::new("setpriv");
    held.arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(command.get_program())
        .args(command.get_args());
    held
}

/// A running command; killed if a test ends early.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the command starts"))
    }

    /// Waits until the command has used a core for so much longer: for a program that polls, a measure of what it has done
    /// that does not depend on what else the machine does.
    pub(crate) fn works(&self, time: Duration) {
        let until = used(self.0.id()) + time;
        wait_until("work", || used(self.0.id()) >= until);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).expect("the command runs");
    }

    /// Waits for the end and what was said till then.
    pub(crate) fn end(mut self, within: Duration) -> Said {
        let drain = |from: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut from) = from {
                    let _ = from.read_to_end(&mut bytes);
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let out = drain(self.0.stdout.take().map(|s| Box::new(s) as _));
        let err = drain(self.0.stderr.take().map(|s| Box::new(s) as _));
        let start = Instant::now();
        let code = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status.code();
            }
            assert!(start.elapsed() < within, "still running after {within:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = start.elapsed();
        Said { code, took, out: out.join().unwrap(), err: err.join().unwrap() }
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs to the end, with `input` typed.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Said {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.0.stdin.take().unwrap();
    let input = input.to_vec();
    let typist = std::thread::spawn(move || {
        // A command that ends early does not read everything.
        let _ = stdin.write_all(&input);
    });
    let said = running.end(PATIENCE);
    typist.join().unwrap();
    said
}

/// What each line of `input` was answered, on either stream: the two are one pipe, so that nothing is said unseen.
pub(crate) fn answers(eal: &[&str], app: &[&str], input: &str) -> Vec<String> {
    let (mut from, to) = std::io::pipe().unwrap();
    let mut command = testpmd(eal, app);
    command.stdin(Stdio::piped()).stdout(to.try_clone().unwrap()).stderr(to);
    let mut running = Running::start(&mut command);
    // It holds the pipe's end, and would for as long as it lives.
    drop(command);
    running.0.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    assert_eq!(running.end(PATIENCE).code, Some(0), "{text}");
    let between = text.split("testpmd> ").skip(1);
    // Less the echo of the line, wherever the other stream's words came.
    between.zip(input.lines()).map(|(said, line)| said.replacen(&format!("{line}\r\n"), "", 1)).collect()
}

/// A folder of one test, removed with everything in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lc-apps-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a switch whose sockets are in a folder of its own, and waits until it switches; what it says is in the file `out` there.
pub(crate) fn running_switch(mut command: Command, scratch: &Scratch) -> Running {
    command.env("RUNTIME_DIRECTORY", scratch.path()).env("XDG_RUNTIME_DIR", scratch.path());
    let out = scratch.file("out");
    command.stdout(std::fs::File::create(&out).expect("a file"));
    let running = Running::start(&mut command);
    eventually("a switch", || std::fs::read_to_string(&out).expect("it is there").contains("switching; "));
    running
}

/// Waits until `done`.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether process `pid` has a handler for `signal` by now.
pub(crate) fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    caught & 1 << (signal.as_raw() - 1) != 0
}

/// What process `pid` has used of the cores.
pub(crate) fn used(pid: u32) -> Duration {
    /// `times` are in these, whatever the kernel counts in (`USER_HZ`).
    const TICKS: u64 = 100;
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may contain anything: state, then ten fields, then user and system time.
    let fields = line.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// How many processes have a command line that mentions `text`.
pub(crate) fn processes(text: &str) -> usize {
    pids(text).len()
}

/// Processes whose command line mentions `text`.
pub(crate) fn pids(text: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mentions = |path: &Path| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    };
    let pids = entries.filter(|entry| mentions(&entry.path()));
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The frames of a capture file, or what is wrong with it, as with one that is still being written.
pub(crate) fn try_frames(path: &str) -> Result<Vec<Vec<u8>>, String> {
    let damaged = |damage| format!("{path} {damage}");
    let mut reader = Reader::open(Path::new(path)).map_err(damaged)?;
    let mut all = Vec::new();
    while reader.ready().map_err(damaged)? {
        all.push(reader.frame().to_vec());
        reader.advance();
    }
    Ok(all)
}

/// The frames of a capture file that is whole.
pub(crate) fn frames(path: &str) -> Vec<Vec<u8>> {
    try_frames(path).unwrap_or_else(|damage| panic!("{damage}"))
}
