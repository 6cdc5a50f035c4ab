//! A switch that is replaced while stations exchange numbered frames through it; counts the received frames,
//! and measures the longest time without one.

use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use linecard::mempool::Burst;
use linecard_lab::{Lab, PATIENCE, wait_until};
use linecard_switch::api::{Client, PortInfo};

use super::example::Running;
use super::kill::connections;
use super::ours::{Ours, frontend_vdev};
use super::switch::{SIZES, Station, exchange, frame};

pub(crate) const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The address of a static table entry.
pub(crate) const FIXED: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
/// Frames in flight in each direction, fewer than any ring holds: none is lost for lack of room.
pub(crate) const WINDOW: usize = 100;
/// The least number of frames between two upgrades, in each direction.
pub(crate) const BETWEEN: u32 = 2000;

/// Returns the number of successive upgrades; more in the long run.
pub(crate) fn upgrades() -> usize {
    std::env::var("LINECARD_UPGRADES")
        .ok()
        .map_or(3, |text| text.parse().expect("LINECARD_UPGRADES is a number"))
}

pub(crate) fn is_long_run() -> bool {
    std::env::var_os("LINECARD_UPGRADES").is_some()
}

/// A switch that is not a child of this process; it is killed when dropped.
pub(crate) struct Orphan(pub(crate) u32);

impl Orphan {
    pub(crate) fn runs(&self) -> bool {
        // A zombie, which its new parent has not reaped, has ended too.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.len() > 1 && !rest.starts_with(" Z"))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Terminates it with SIGTERM, and waits for its end.
    pub(crate) fn end(self) {
        self.signal(rustix::process::Signal::TERM);
        wait_until("the end", || !self.runs());
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if self.runs() {
            self.signal(rustix::process::Signal::KILL);
        }
    }
}

/// Starts `linecard switch ctl upgrade` with these arguments, in `lab`.
pub(crate) fn upgrade(lab: &Lab, socket: &Path, arguments: &[&str]) -> Running {
    let spawn = || {
        Command::new(env!("CARGO_BIN_EXE_linecard"))
            .args(["switch", "ctl", "--socket"])
            .arg(socket)
            .arg("upgrade")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
    };
    Running(lab.run(spawn).expect("it starts"))
}

pub(crate) fn client(socket: &Path) -> Client {
    let client = Client::connect(socket).expect("the switch answers");
    client.set_patience(PATIENCE).expect("a socket");
    client
}

/// Numbered frames from one station to another: each arrives once, in order, unchanged.
pub(crate) struct Flow {
    pub(crate) from: [u8; 6],
    pub(crate) to: [u8; 6],
    pub(crate) sent: u32,
    pub(crate) came: u32,
    /// The time of the last received frame, and the longest time without one.
    pub(crate) last: Instant,
    pub(crate) gap: Duration,
    pub(crate) waiting: VecDeque<Vec<u8>>,
}

impl Flow {
    pub(crate) fn new(from: [u8; 6], to: [u8; 6]) -> Self {
        Self {
            from,
            to,
            sent: 0,
            came: 0,
            last: Instant::now(),
            gap: Duration::ZERO,
            waiting: VecDeque::new(),
        }
    }

    /// Sends as many frames as may be in flight, and checks received ones.
    pub(crate) fn pump(&mut self, sender: &mut Ours, receiver: &mut Ours, sends: bool) {
        let mut burst = Burst::new();
        while sends && self.waiting.len() < WINDOW && burst.room() > 0 {
            let next = frame(self.from, self.to, self.sent, SIZES[self.sent as usize % SIZES.len()]);
            let Some(mut packet) = sender.pool.get() else { break };
            packet.copy_from_slice(&next).unwrap();
            burst.push(packet).expect("room");
            self.waiting.push_back(next);
            self.sent += 1;
        }
        let until = Instant::now() + PATIENCE;
        while !burst.is_empty() {
            sender.port.tx[0].tx_burst(&mut burst);
            assert!(Instant::now() < until, "the ring stays full");
        }
        sender.port.tx[0].reclaim();
        receiver.port.rx[0].rx_burst(&mut burst);
        for packet in burst.iter() {
            let want = self.waiting.pop_front().expect("no frame comes that was not sent, or twice");
            assert!(packet.to_bytes() == want, "frame {} is the one that was sent next", self.came);
            self.came += 1;
            self.gap = self.gap.max(self.last.elapsed());
            self.last = Instant::now();
        }
        if self.waiting.is_empty() {
            self.last = Instant::now();
        }
    }
}

/// Two stations with a flow in each direction.
pub(crate) struct Pair {
    pub(crate) a: Ours,
    pub(crate) b: Ours,
    pub(crate) there: Flow,
    pub(crate) back: Flow,
    paths: [PathBuf; 2],
}

impl Pair {
    pub(crate) fn connect([one, other]: [&Path; 2], options: &str) -> Self {
        let vdev = |path: &Path, mac: &str| frontend_vdev(path, &format!("mac={mac}{options}"));
        let (mut a, mut b) =
            (Ours::start(&vdev(one, "02:00:00:00:00:01")), Ours::start(&vdev(other, "02:00:00:00:00:02")));
        a.wait_for_link(true);
        b.wait_for_link(true);
        exchange(&mut a, Some(&mut b), A, B);
        exchange(&mut b, Some(&mut a), B, A);
        let paths = [one, other].map(Path::to_owned);
        Self { a, b, there: Flow::new(A, B), back: Flow::new(B, A), paths }
    }

    pub(crate) fn pump(&mut self, sends: bool) {
        self.there.pump(&mut self.a, &mut self.b, sends);
        self.back.pump(&mut self.b, &mut self.a, sends);
        let up = |ours: &Ours| ours.port.control.link().up;
        assert!(up(&self.a) && up(&self.b), "the link stays up");
    }

    /// Runs traffic until `done`, which is checked periodically, and then until [`BETWEEN`] more frames have
    /// arrived in each direction.
    pub(crate) fn pump_until(&mut self, mut done: impl FnMut() -> bool) {
        let until = Instant::now() + 2 * PATIENCE;
        while !done() {
            assert!(
                Instant::now() < until,
                "it does not end; {} and {} frames came",
                self.there.came,
                self.back.came
            );
            (0..32).for_each(|_| self.pump(true));
        }
        let (there, back) = (self.there.came + BETWEEN, self.back.came + BETWEEN);
        while self.there.came < there || self.back.came < back {
            assert!(
                Instant::now() < until,
                "traffic goes on; {} and {} frames came",
                self.there.came,
                self.back.came
            );
            self.pump(true);
        }
    }

    /// Returns the longest time without a frame since the last call.
    pub(crate) fn gap(&mut self) -> Duration {
        std::mem::take(&mut self.there.gap).max(std::mem::take(&mut self.back.gap))
    }

    /// Waits until all frames have arrived; checks that no others do.
    pub(crate) fn settle(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.there.waiting.is_empty() || !self.back.waiting.is_empty() {
            assert!(
                Instant::now() < until,
                "{} and {} frames are lost",
                self.there.waiting.len(),
                self.back.waiting.len()
            );
            self.pump(false);
        }
        (0..100).for_each(|_| self.pump(false));
    }

    /// Returns the connection of each station.
    pub(crate) fn connections(&self) -> [Vec<String>; 2] {
        let both = [0, 1].map(|n| connections(&self.paths[n]));
        assert!(both.iter().all(|ends| ends.len() == 1), "one connection each: {both:?}");
        both
    }
}

/// Returns received and sent frames of a port, and its drops.
pub(crate) fn counted(client: &mut Client, key: &str) -> (u64, u64, u64) {
    let PortInfo { counters, .. } = client.port_show(key).expect("it is there");
    (counters.rx_packets, counters.tx_packets, counters.drops.total())
}

pub(crate) fn median(mut gaps: Vec<Duration>) -> (Duration, Duration) {
    gaps.sort();
    (gaps.get(gaps.len() / 2).copied().unwrap_or_default(), gaps.last().copied().unwrap_or_default())
}

/// Upgrades the switch under the traffic of `pair`; returns the new process, and the time without traffic
/// that it reports.
pub(crate) fn replaced(lab: &Lab, socket: &Path, pair: &mut Pair) -> (Orphan, Duration) {
    let mut upgrading = upgrade(lab, socket, &[]);
    pair.pump_until(|| upgrading.0.try_wait().expect("a child").is_some());
    let (success, said) = upgrading.end();
    assert!(success && said.contains("took over from process"), "{said}");
    let pause = said.split("no frame passed for ").nth(1).and_then(|rest| rest.split(' ').next());
    let pause = Duration::from_micros(pause.and_then(|text| text.parse().ok()).expect("a number"));
    (Orphan(client(socket).version().expect("it answers").pid), pause)
}

/// Prints the times of the upgrades.
pub(crate) fn tell_times(times: [Vec<Duration>; 3]) {
    let what = [
        "longest gap at a station, with an upgrade",
        "longest gap at a station, without",
        "switch stood still",
    ];
    for (what, times) in what.into_iter().zip(times) {
        let (median, worst) = median(times);
        eprintln!("{what}: median {} µs, worst {} µs", median.as_micros(), worst.as_micros());
    }
}
