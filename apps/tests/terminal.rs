//! testpmd's console on a terminal: what a script reads there is what it would read from a pipe.

mod common;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use common::{PATIENCE, Running, Scratch, run, testpmd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

const TWO: [&str; 6] = ["-m", "64", "--vdev", "net_null0", "--vdev", "net_null1"];
const APP: [&str; 2] = ["-i", "--total-num-mbufs=4096"];
const PROMPT: &str = "testpmd> ";

/// A console on a terminal of its own.
struct Terminal {
    keys: File,
    slave: File,
    shown: Receiver<Vec<u8>>,
    text: String,
    running: Running,
}

impl Terminal {
    fn start(term: Option<&str>, home: &str) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave =
            OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.as_bytes())).unwrap();
        let mut command = testpmd(&TWO, &APP);
        command
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()));
        command.env_remove("TERM").env_remove("XDG_STATE_HOME").env("HOME", home);
        if let Some(term) = term {
            command.env("TERM", term);
        }
        let running = Running::start(&mut command);
        drop(command);
        let keys = File::from(master);
        let (mut screen, (send, shown)) = (keys.try_clone().unwrap(), mpsc::channel());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes)
                && send.send(bytes[..count].to_vec()).is_ok()
            {}
        });
        Self { keys, slave, shown, text: String::new(), running }
    }

    /// Reads until the prompt stands at the end.
    fn prompt(&mut self) {
        self.until("a prompt", |text| text.ends_with(PROMPT));
    }

    fn until(&mut self, what: &str, done: impl Fn(&str) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(&self.text) {
            let left = until.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.text += std::str::from_utf8(&bytes).expect("text, in whole characters"),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {what}: {:?}", self.text)
                }
            }
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal is as a shell leaves it.
    fn cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Everything it said, once it ended well.
    fn end(mut self) -> String {
        self.until("end", |text| text.ends_with("Bye...\r\n"));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.running.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0), "{}", self.text);
        assert!(self.cooked(), "the terminal is left as it was found");
        self.text
    }
}

const SCRIPT: [&str; 8] = [
    "help all",
    "set fwd macswap",
    "foo",
    "show port summary all",
    "",
    "show config fwd",
    "set burst 100",
    "port stop all",
];

#[test]
fn a_terminal_gets_the_bytes_that_a_pipe_gets() {
    let input = SCRIPT.join("\n") + "\nquit\n";
    let piped = run(&mut testpmd(&TWO, &APP), input.as_bytes()).out.replace("\r\n", "\n");
    let scratch = Scratch::new();
    let home = scratch.path().to_str().unwrap();
    for term in [None, Some("xterm-256color"), Some("dumb"), Some("no-such-terminal")] {
        // Line by line, as scripts that wait for the prompt; then all at once.
        for at_once in [false, true] {
            let mut terminal = Terminal::start(term, home);
            terminal.prompt();
            assert!(!terminal.cooked(), "keys are taken one by one");
            if at_once {
                terminal.type_in(&input);
            } else {
                for line in SCRIPT {
                    terminal.type_in(&format!("{line}\n"));
                    terminal.until("an echo", |text| text.contains(&format!("{PROMPT}{line}\r\n")));
                    terminal.prompt();
                }
                terminal.type_in("quit\r");
            }
            assert_eq!(terminal.end().replace("\r\n", "\n"), piped, "TERM={term:?}, at once: {at_once}");
        }
    }
    assert_eq!(scratch.entries(), [""; 0], "a script leaves no history behind");
}

#[test]
fn keys_edit_and_complete_the_line() {
    let scratch = Scratch::new();
    let mut terminal = Terminal::start(Some("xterm"), scratch.path().to_str().unwrap());
    terminal.prompt();
    terminal.type_in("show port summxry\x1b[D\x1b[D\x08a\x05 al\x7fll\n");
    terminal.until("a summary", |text| text.contains("Number of available ports: 2"));
    terminal.prompt();
    terminal.type_in("set burst 7\n");
    terminal.until("a burst", |text| text.contains("burst set to 7"));
    terminal.prompt();
    // The line before the last one, as it was.
    terminal.type_in("\x1b[A\x08\x1b[A\n");
    terminal.until("the summary again", |text| text.matches("Number of available ports: 2").count() == 2);
    terminal.prompt();
    terminal.type_in("show conf\tfw\t\n");
    terminal.until("the configuration", |text| text.contains("io packet forwarding - ports=2"));
    terminal.prompt();
    terminal.type_in("\x04");
    terminal.end();
}

#[test]
fn an_interrupt_leaves_the_terminal_as_it_was() {
    let scratch = Scratch::new();
    let mut terminal = Terminal::start(Some("xterm"), scratch.path().to_str().unwrap());
    terminal.prompt();
    terminal.type_in("half a li");
    terminal.until("an echo", |text| text.ends_with("half a li"));
    // No controlling terminal here, so the key is no signal.
    terminal.running.signal(rustix::process::Signal::INT);
    terminal.end();
}
