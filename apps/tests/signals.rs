//! Signals, closed pipes and full disks: an orderly end, soon, with nothing left behind.

mod common;

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{PATIENCE, Running, Scratch, catches, linecard, testpmd};
use linecard_lab::wait_until;
use rustix::process::Signal;

fn forwarding(scratch: &Scratch, app: &[&str]) -> (Command, String) {
    let socket = scratch.file("vhost.sock");
    let device = format!("net_vhost0,iface={socket}");
    (testpmd(&["-m", "64", "--vdev", &device, "--vdev", "net_null0"], app), socket)
}

#[test]
fn signals_end_a_console_in_order() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let scratch = Scratch::new();
        let (mut command, socket) = forwarding(&scratch, &["-i", "-a"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let stdin = running.0.stdin.take();
        wait_until("the socket", || Path::new(&socket).exists());
        wait_until("its handlers", || catches(running.0.id(), signal));
        running.works(Duration::from_millis(200));
        running.signal(signal);
        let said = running.end(PATIENCE);
        drop(stdin);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("Accumulated forward statistics"), "{said:?}");
        assert!(said.out.ends_with("Bye...\n"), "{said:?}");
        assert_eq!(scratch.entries(), [""; 0], "the socket is gone");
    }
}

#[test]
fn signals_end_periodic_statistics() {
    let scratch = Scratch::new();
    let (mut command, socket) = forwarding(&scratch, &["--stats-period=1"]);
    let shown = Scratch::new();
    let shown = shown.file("out");
    let running = Running::start(command.stdout(std::fs::File::create(&shown).unwrap()));
    let output = || std::fs::read_to_string(&shown).unwrap_or_default();
    wait_until("statistics", || output().contains("Port statistics ===================================="));
    assert!(Path::new(&socket).exists());
    running.signal(Signal::INT);
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!output().contains('\x1b'), "no terminal, no control characters");
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let scratch = Scratch::new();
    let (mut command, socket) = forwarding(&scratch, &["-i", "-a"]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = running.0.stdin.take().unwrap();
    wait_until("the socket", || Path::new(&socket).exists());
    drop(running.0.stdout.take());
    // The first write that nobody reads is noticed.
    let _ = std::io::Write::write_all(&mut stdin, b"show port stats all\n");
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(141), "as of a program that SIGPIPE ended: {said:?}");
    assert!(!said.err.contains("error:"), "{said:?}");
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn a_full_disk_is_reported() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for arguments in
        [&["--help"][..], &["--version"], &["doctor"], &["man"], &["demo", "--seconds=1", "--json"]]
    {
        let said = Running::start(linecard(arguments).stdout(full())).end(PATIENCE);
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:?}");
        assert!(said.err.starts_with("error: standard output cannot be written"), "{arguments:?}: {said:?}");
    }
    let scratch = Scratch::new();
    let (mut command, _) = forwarding(&scratch, &["-i"]);
    let said = Running::start(command.stdout(full())).end(PATIENCE);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("No space left"), "{said:?}");
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn closed_standard_streams_are_survived() {
    let script = format!(
        "'{}' testpmd --no-huge -m 32 --vdev net_null0 -- -i <&- >&- 2>&-; test $? -ne 139 -a $? -ne 134",
        env!("CARGO_BIN_EXE_linecard")
    );
    let mut shell = Command::new("sh");
    let said = Running::start(shell.args(["-c", &script]).stdin(Stdio::null())).end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn a_demo_whose_reader_had_enough_is_quiet() {
    let mut running = Running::start(&mut linecard(&["demo", "--seconds", "60"]));
    let mut out = running.0.stdout.take().unwrap();
    std::io::Read::read_exact(&mut out, &mut [0; 8]).expect("it says something");
    drop(out);
    let said = running.end(PATIENCE);
    assert_eq!((said.code, said.err.as_str()), (Some(141), ""), "{said:?}");
}

#[test]
fn help_into_a_closed_pipe_is_quiet() {
    let mut running = Running::start(&mut linecard(&["man"]));
    drop(running.0.stdout.take());
    let said = running.end(PATIENCE);
    assert!(said.err.is_empty(), "{said:?}");
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn nothing_is_left_in_shared_memory() {
    let listing = || std::fs::read_dir("/dev/shm").map_or(0, Iterator::count);
    let before = listing();
    let scratch = Scratch::new();
    let (mut command, socket) = forwarding(&scratch, &["-i", "-a"]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    wait_until("the socket", || Path::new(&socket).exists());
    running.0.kill().unwrap();
    drop(running);
    assert!(listing() <= before);
}
