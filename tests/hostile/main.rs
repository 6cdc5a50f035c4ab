//! Peers that send anything at `linecard testpmd`: mutated vhost-user messages, any descriptors, garbage in the rings and
//! memory that shrinks. Another port forwards all the while and loses nothing; the attacked port takes a decent peer
//! afterwards.
//!
//! `LINECARD_HOSTILE_SECONDS` (default 5) is how long each attack lasts, `LINECARD_HOSTILE_SEED` repeats one.

mod backend;
mod frontend;
mod message;
mod prng;
#[path = "../support/mod.rs"]
mod support;

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backend::hostile_backend;
use frontend::attack_backend;
use prng::Prng;
use support::Scratch;
use support::console::{Kind, Testpmd};
use support::ours::{Ours, SIZES, assert_perfect, backend_vdev, frontend_vdev, wait_for_socket};

const PATIENCE: Duration = Duration::from_secs(20);

fn seconds() -> Duration {
    let given = std::env::var("LINECARD_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(5))
}

/// Attackers that work until told to stop; how often they began anew.
struct Attack {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    fn begin(dice: &mut Prng, threads: usize, act: impl Fn(&mut Prng) + Send + Sync + 'static) -> Self {
        let (stop, rounds, act) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(act));
        let threads = (0..threads).map(|_| {
            let (stop, rounds, act) = (Arc::clone(&stop), Arc::clone(&rounds), Arc::clone(&act));
            let mut dice = Prng::new(dice.roll());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    act(&mut dice);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, rounds, threads }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("an attacker");
        }
        self.rounds.load(Ordering::Relaxed)
    }
}

fn testpmd(vdevs: &[String]) -> Testpmd {
    let mut eal = vec!["-l", "0,1", "--no-huge", "-m", "256"];
    eal.extend(vdevs.iter().flat_map(|vdev| ["--vdev", vdev]));
    let mut testpmd = Testpmd::start(Kind::Linecard, &eal, &["-i", "--port-topology=loop"]);
    testpmd.type_line("start");
    testpmd.expect("io packet forwarding", PATIENCE);
    testpmd
}

/// What a process holds: descriptors, threads, mappings.
#[derive(Clone, Copy, Debug)]
struct Footprint([usize; 3]);

impl Footprint {
    /// More of each than this is a leak: the threads that close descriptors and unmap memory may be new, the
    /// allocator maps now and then.
    const SLACK: [usize; 3] = [2, 4, 40];

    fn of(testpmd: &Testpmd) -> Self {
        let count =
            |name| std::fs::read_dir(format!("/proc/{}/{name}", testpmd.pid())).expect("proc").count();
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", testpmd.pid())).expect("proc");
        Self([count("fd"), count("task"), maps.lines().count()])
    }

    /// Nothing was leaked since; what is on its way out has a while.
    fn assert_kept(self, testpmd: &Testpmd) {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = Self::of(testpmd);
            if now.0.iter().zip(self.0).zip(Self::SLACK).all(|((now, before), slack)| *now <= before + slack)
            {
                return;
            }
            assert!(Instant::now() < until, "{self:?} became {now:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Ends it in order: all packets home, and nothing said of a panic.
fn finish(mut testpmd: Testpmd) {
    for line in ["stop", "port stop all", "show pool"] {
        testpmd.type_line(line);
    }
    let line = testpmd.expect("mempool <", PATIENCE);
    assert!(line.contains("in_use=0"), "packets are missing: {line}\n{}", testpmd.transcript());
    assert!(!testpmd.transcript().contains("panicked"), "{}", testpmd.transcript());
    assert!(testpmd.quit().success());
}

#[test]
fn any_frontend_costs_a_backend_its_own_port_only() {
    let test = "any_frontend_costs_a_backend_its_own_port_only";
    let (scratch, mut dice) = (Scratch::new(test), Prng::seeded(test));
    let (good, bad) = (scratch.join("good"), scratch.join("bad"));
    let mut testpmd =
        testpmd(&[backend_vdev(&good), backend_vdev(&bad).replace("net_vhost0", "net_vhost1") + ",tso=1"]);
    wait_for_socket(&good);
    let mut ours = Ours::start(&frontend_vdev(&good, "mrg_rxbuf=1"));
    ours.wait_for_link(true);
    let before = Footprint::of(&testpmd);
    let path: PathBuf = bad.clone();
    let attack = Attack::begin(&mut dice, 2, move |dice| attack_backend(&path, dice));
    let until = Instant::now() + seconds();
    while Instant::now() < until {
        assert_perfect(&ours.prove(1000, SIZES), "beside the attacked port");
        testpmd.drain(Duration::from_millis(1));
    }
    let rounds = attack.end();
    assert!(rounds > 20, "only {rounds} connections");
    let mut decent = Ours::start(&frontend_vdev(&bad, "mrg_rxbuf=1"));
    decent.wait_for_link(true);
    assert_perfect(&decent.prove(2000, SIZES), "at the port that was attacked");
    decent.stop();
    before.assert_kept(&testpmd);
    ours.stop();
    finish(testpmd);
    println!("{test}: {rounds} connections");
}

#[test]
fn any_backend_costs_a_frontend_its_own_port_only() {
    let test = "any_backend_costs_a_frontend_its_own_port_only";
    let (scratch, mut dice) = (Scratch::new(test), Prng::seeded(test));
    let (good, bad) = (scratch.join("good"), scratch.join("bad"));
    let mut ours = Ours::start(&backend_vdev(&good));
    let listener = UnixListener::bind(&bad).expect("a socket");
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let attack = Attack::begin(&mut dice, 1, move |dice| match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false).expect("a stream that waits");
            hostile_backend(&stream, dice);
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_micros(300)),
        Err(error) => panic!("{error}"),
    });
    let mut testpmd = testpmd(&[frontend_vdev(&good, "mrg_rxbuf=1")]);
    ours.wait_for_link(true);
    let before = Footprint::of(&testpmd);
    let until = Instant::now() + seconds();
    let (mut attached, mut refused) = (0, 0);
    while Instant::now() < until {
        let options = ["packed_vq=1", "mrg_rxbuf=1,in_order=0", "in_order=1", "packed_vq=1,mrg_rxbuf=0"];
        let option = options[dice.below(4) as usize];
        let vdev = frontend_vdev(&bad, option).replace("user0", "user1");
        testpmd.type_line(&format!("port attach {vdev}"));
        // Refused or not, forwarding of the other port went on.
        let answer = testpmd.expect_any(&["is attached", "Failed to attach"], PATIENCE * 2);
        assert_perfect(&ours.prove(500, SIZES), "while another port was attached");
        if answer.contains("Failed") {
            refused += 1;
            continue;
        }
        attached += 1;
        for line in ["port start 1", "stop", "start"] {
            testpmd.type_line(line);
        }
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        for line in ["stop", "port stop 1", "port detach 1", "start"] {
            testpmd.type_line(line);
        }
        testpmd.expect("Device is detached", PATIENCE);
        testpmd.expect("io packet forwarding", PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
        assert_perfect(&ours.prove(500, SIZES), "after another port was detached");
    }
    attack.end();
    assert!(attached > 0, "nothing got past the handshake; {refused} refused");
    println!("{test}: {attached} attached, {refused} refused");
    before.assert_kept(&testpmd);
    finish(testpmd);
    ours.wait_for_link(false);
    ours.stop();
}
