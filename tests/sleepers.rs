//! A port served by a program that sleeps: what it costs while nothing comes, and that it answers.

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linecard::mempool::Burst;
use linecard::pmd::RxQueue as _;
use linecard_lab::wait_until;
use support::example::{Running, example};
use support::ours::Ours;

/// A socket that is gone with the test.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("linecard-{name}-{}.sock", std::process::id())))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Time on a core of all threads of a process.
fn time_on_core(child: &Child) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
    let of_one = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(|task| of_one(task.ok()?)).sum())
}

/// An ICMP echo request of that number, in a frame of 98 bytes as `ping` sends them.
fn request(number: u16) -> Vec<u8> {
    let mut frame = vec![0_u8; 98];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let header = [0x45, 0, 0, 84, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    frame[14..34].copy_from_slice(&header);
    let sum = linecard::net::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34] = 8;
    frame[40..42].copy_from_slice(&number.to_be_bytes());
    let sum = linecard::net::checksum::checksum(&frame[34..]);
    frame[36..38].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Asks once, and waits for the answer.
fn ask(port: &mut Ours, number: u16) -> Duration {
    let began = Instant::now();
    port.send(&[request(number)]);
    let mut packets = Burst::new();
    while port.port.rx[0].rx_burst(&mut packets) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no answer to {number}");
        std::thread::yield_now();
    }
    let took = began.elapsed();
    let answer = packets[0].data();
    assert_eq!((answer[34], &answer[40..42]), (0, &number.to_be_bytes()[..]), "the answer to {number}");
    took
}

/// Starts an example behind a vhost-user socket; returns when it answers.
fn start(name: &str) -> (Running, Socket, Ours) {
    let socket = Socket::new(name);
    let mut command = Command::new(example(name));
    command.arg(format!("net_vhost0,iface={}", socket.0.display()));
    let mut running =
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut line = String::new();
    let out = running.0.stdout.as_mut().expect("a pipe");
    BufReader::new(out).read_line(&mut line).expect("text");
    assert!(line.contains("answers"), "{line}");
    let port = Ours::start(&format!("net_virtio_user0,path={}", socket.0.display()));
    (running, socket, port)
}

#[test]
fn a_tokio_program_sleeps_and_answers() {
    sleeps_and_answers("tokio_echo");
}

#[test]
fn a_program_that_reads_and_writes_sleeps_and_answers() {
    sleeps_and_answers("blocking_echo");
}

fn sleeps_and_answers(name: &str) {
    let (running, _socket, mut port) = start(name);
    ask(&mut port, 0);
    // What it still does for the first answer comes to an end.
    let mut before = time_on_core(&running.0);
    wait_until("it sleeps", || {
        std::thread::sleep(Duration::from_millis(50));
        let now = time_on_core(&running.0);
        std::mem::replace(&mut before, now) == now
    });
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    let (used, slept) = (time_on_core(&running.0) - before, began.elapsed());
    println!("idle: {used:?} of {slept:?}, {:.4} %", used.as_secs_f64() / slept.as_secs_f64() * 100.0);
    assert!(used * 200 < slept, "less than 0.5 % of a core: {used:?} of {slept:?}");
    for number in 1..=1000 {
        ask(&mut port, number);
    }
    port.stop();
}

/// The median of what answers take of the example called `name`, when it has had the time to fall asleep before each.
fn median(name: &str) -> Duration {
    let (_running, _socket, mut port) = start(name);
    let mut took: Vec<_> = (0..2000)
        .map(|number| {
            std::thread::sleep(Duration::from_micros(500));
            ask(&mut port, number)
        })
        .collect();
    port.stop();
    took.sort_unstable();
    println!("{name:<10} p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
    took[took.len() / 2]
}

/// A program that sleeps answers within 100 µs of the time of one that polls, by their medians. Tried in pairs, because another
/// program may take a core meanwhile.
#[test]
#[ignore = "needs a quiet machine: cargo test -p linecard-apps --release --test sleepers quiet -- --ignored --nocapture"]
fn on_a_quiet_machine_a_sleeper_answers_within_100_us_of_a_poller() {
    const PAIRS: usize = 5;
    const LATE: Duration = Duration::from_micros(100);
    let later = || {
        let [polling, sleeping] = ["echo", "tokio_echo"].map(median);
        let later = sleeping.saturating_sub(polling);
        println!("the sleeper answers {later:?} later");
        later
    };
    let best = (0..PAIRS).map(|_| later()).find(|later| *later <= LATE);
    assert!(best.is_some(), "not within {LATE:?} in any of {PAIRS} pairs");
}
