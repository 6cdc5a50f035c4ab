//! Single queues on testpmd's console: stopped, started, started later, counted, and of which size they are; and the line about a
//! link that has changed.

mod common;

use std::io::Write as _;
use std::process::Stdio;

use common::{PATIENCE, Running, Scratch, answers, run, testpmd, wait_until};

const APP: [&str; 2] = ["-i", "--total-num-mbufs=4096"];

/// Lines in turn, each with parts of its answer.
const LINES: &[(&str, &[&str])] = &[
    ("show rxq info 1 0", &["Rx queue state: started", "RX deferred start: off", "Number of RXDs: 256"]),
    ("show txq info 1 0", &["Tx queue state: started", "TX deferred start: off", "Number of TXDs: 256"]),
    ("show config rxtx", &["RX desc=256", "TX desc=256"]),
    ("show port 1 rxq 0 desc used count", &["Used desc count = 0\n"]),
    ("show port 1 txq 0 desc used count", &["Used desc count = 0\n"]),
    ("show port 0 rxq 0 desc used count", &["Used desc count = 0\n"]),
    ("show port 0 txq 0 desc used count", &["not supported here: descriptors that are counted; instead: "]),
    ("show port 1 rxq 1 desc used count", &["Invalid queueid = 1\n"]),
    ("show port 9 rxq 0 desc used count", &["Invalid port 9\n"]),
    ("port 1 rxq 0 stop", &[""]),
    ("show rxq info 1 0", &["Rx queue state: stopped"]),
    ("show txq info 1 0", &["Tx queue state: started"]),
    ("port 1 rxq 0 start", &[""]),
    ("show rxq info 1 0", &["Rx queue state: started"]),
    ("port 0 txq 0 stop", &[""]),
    ("show txq info 0 0", &["Tx queue state: stopped"]),
    ("port 0 txq 0 start", &[""]),
    ("port 1 txq 1 stop", &["Invalid TX queue 1 (must be < nb_txq=1)"]),
    ("port 1 txq 0 deferred_start on", &["Please stop port 1 first\n"]),
    ("port stop 1", &["Done"]),
    ("port 1 rxq 0 stop", &["Please start port 1 first\n"]),
    ("show port 1 rxq 0 desc used count", &["Please start port 1 first\n"]),
    ("show rxq info 1 0", &["Rx queue state: stopped", "Number of RXDs: 256"]),
    ("port 1 txq 0 deferred_start on", &[""]),
    ("port config 1 rxq 0 ring_size 128", &[""]),
    ("port config 1 txq 0 ring_size 100", &[""]),
    ("port start 1", &["Done"]),
    ("show txq info 1 0", &["Tx queue state: stopped", "TX deferred start: on", "Number of TXDs: 64"]),
    ("show rxq info 1 0", &["Rx queue state: started", "Number of RXDs: 128"]),
    ("port 1 txq 0 start", &[""]),
    ("show txq info 1 0", &["Tx queue state: started", "TX deferred start: on"]),
    ("port stop 1", &["Done"]),
    ("port 1 txq 0 deferred_start off", &[""]),
    ("port start 1", &["Done"]),
    ("show txq info 1 0", &["Tx queue state: started", "TX deferred start: off"]),
];

#[test]
fn single_queues_are_shown_stopped_and_counted() {
    let scratch = Scratch::new();
    let socket = scratch.file("s");
    let vdevs = [format!("net_vhost0,iface={socket}"), format!("net_virtio_user0,path={socket}")];
    let eal = ["-m", "64", "--in-memory", "--vdev", &vdevs[0], "--vdev", &vdevs[1]];
    let input: String = LINES.iter().map(|(line, _)| format!("{line}\n")).collect();
    let said = answers(&eal, &APP, &(input + "quit\n"));
    for ((line, parts), answer) in LINES.iter().zip(said) {
        for part in *parts {
            assert!(answer.contains(part), "{line}: {answer:?} lacks {part:?}");
        }
        if parts == &[""] {
            // But for news of a link.
            assert!(answer.is_empty() || answer.contains("link state change"), "{line}: {answer:?}");
        }
    }
}

/// A frontend comes and goes; each time the console says so by itself.
#[test]
fn a_link_that_changes_is_said() {
    let scratch = Scratch::new();
    let (socket, said) = (scratch.file("s"), scratch.file("said"));
    let out = std::fs::File::create(&said).expect("a file");
    let vdev = format!("net_vhost0,iface={socket}");
    let mut command = testpmd(&["-m", "32", "--in-memory", "--vdev", &vdev], &APP);
    let mut backend = Running::start(command.stdin(Stdio::piped()).stdout(out));
    let news = || {
        std::fs::read_to_string(&said)
            .expect("it is there")
            .matches("Port 0: link state change event")
            .count()
    };
    wait_until("it listens", || std::path::Path::new(&socket).exists());
    for round in 1..=2 {
        let vdev = format!("net_virtio_user0,path={socket}");
        let mut command = testpmd(&["-m", "32", "--in-memory", "--vdev", &vdev], &APP);
        let frontend = run(&mut command, b"show port summary 0\nquit\n");
        assert_eq!(frontend.code, Some(0), "{frontend:?}");
        wait_until("it is said that the link went up and down", || news() == 2 * round);
    }
    let mut stdin = backend.0.stdin.take().expect("a pipe");
    stdin.write_all(b"quit\n").expect("it reads");
    assert_eq!(backend.end(PATIENCE).code, Some(0));
}
