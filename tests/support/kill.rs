//! A switch that is killed while stations exchange numbered frames through it; counts lost and duplicated
//! frames.

use std::path::Path;
use std::time::{Duration, Instant};

use linecard::mempool::Burst;
use linecard_lab::PATIENCE;

use super::ours::{Ours, frontend_vdev};
use super::switch::{SIZES, exchange, frame};
use super::upgrade::{A, B, BETWEEN, WINDOW};

/// The additional frames in flight when no frame has arrived for a while, because those before them may be
/// lost.
const BEYOND: u32 = 90;
/// The length of that while. Frames count as lost only when a later frame arrives, so the value does not
/// affect the result.
const QUIET: Duration = Duration::from_millis(20);

/// Returns how many times a switch is killed; more in the long run.
pub(crate) fn kills() -> usize {
    std::env::var("LINECARD_KILLS").ok().map_or(5, |text| text.parse().expect("LINECARD_KILLS is a number"))
}

/// Numbered frames from one station to another: each arrives unchanged and in order; some may be lost or
/// duplicated.
pub(crate) struct Lossy {
    from: [u8; 6],
    to: [u8; 6],
    sent: u32,
    next: u32,
    pub(crate) came: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Frames with additional bytes after those that were sent.
    pub(crate) longer: u64,
    last: Instant,
    gap: Duration,
}

impl Lossy {
    fn new(from: [u8; 6], to: [u8; 6]) -> Self {
        let (last, gap) = (Instant::now(), Duration::ZERO);
        Self { from, to, sent: 0, next: 0, came: 0, lost: 0, doubled: 0, longer: 0, last, gap }
    }

    fn pump(&mut self, sender: &mut Ours, receiver: &mut Ours, sends: bool) {
        let mut burst = Burst::new();
        let window = WINDOW as u32 + if self.last.elapsed() > QUIET { BEYOND } else { 0 };
        while sends && self.sent - self.next < window && burst.room() > 0 {
            let Some(mut packet) = sender.pool.get() else { break };
            packet.copy_from_slice(&self.frame(self.sent)).unwrap();
            burst.push(packet).expect("room");
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
            self.receive(&packet.to_bytes());
        }
    }

    fn frame(&self, number: u32) -> Vec<u8> {
        frame(self.from, self.to, number, SIZES[number as usize % SIZES.len()])
    }

    fn receive(&mut self, got: &[u8]) {
        let number = got.get(14..18).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let number = number.expect("a whole frame");
        assert!(number < self.sent, "frame {number} of {} was sent", self.sent);
        let want = self.frame(number);
        assert!(got.starts_with(&want), "frame {number} is as it was sent: {got:02x?}");
        self.longer += u64::from(got.len() > want.len());
        if number < self.next {
            self.doubled += 1;
            return;
        }
        self.lost += u64::from(number - self.next);
        (self.next, self.came) = (number + 1, self.came + 1);
        self.gap = self.gap.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

/// Two stations with a flow in each direction; their links must stay up all the time.
pub(crate) struct LossyPair {
    pub(crate) a: Ours,
    pub(crate) b: Ours,
    pub(crate) there: Lossy,
    pub(crate) back: Lossy,
}

impl LossyPair {
    pub(crate) fn connect([a, b]: [&Path; 2], options: &str) -> Self {
        let vdev = |path: &Path, mac: &str| frontend_vdev(path, &format!("mac={mac}{options}"));
        let (mut a, mut b) =
            (Ours::start(&vdev(a, "02:00:00:00:00:01")), Ours::start(&vdev(b, "02:00:00:00:00:02")));
        a.wait_for_link(true);
        b.wait_for_link(true);
        exchange(&mut a, Some(&mut b), A, B);
        exchange(&mut b, Some(&mut a), B, A);
        Self { a, b, there: Lossy::new(A, B), back: Lossy::new(B, A) }
    }

    fn pump(&mut self, sends: bool) {
        self.there.pump(&mut self.a, &mut self.b, sends);
        self.back.pump(&mut self.b, &mut self.a, sends);
        let up = |ours: &Ours| ours.port.control.link().up;
        assert!(up(&self.a) && up(&self.b), "the link stays up");
    }

    /// Runs traffic until `done`, and then until [`BETWEEN`] more frames have arrived in each direction.
    pub(crate) fn pump_until(&mut self, mut done: impl FnMut() -> bool) {
        let until = Instant::now() + 2 * PATIENCE;
        let passes = |pair: &Self| (pair.there.came, pair.back.came);
        while !done() {
            assert!(Instant::now() < until, "it does not end; {:?} frames came", passes(self));
            (0..32).for_each(|_| self.pump(true));
        }
        let (there, back) = (self.there.came + u64::from(BETWEEN), self.back.came + u64::from(BETWEEN));
        while self.there.came < there || self.back.came < back {
            assert!(Instant::now() < until, "traffic goes on; {:?} frames came", passes(self));
            self.pump(true);
        }
    }

    /// Returns the longest time without a frame since the last call.
    pub(crate) fn gap(&mut self) -> Duration {
        std::mem::take(&mut self.there.gap).max(std::mem::take(&mut self.back.gap))
    }
}

/// Returns the kernel's numbers of the other ends of this process's connections to `path`: a new connection
/// has another number.
pub(crate) fn connections(path: &Path) -> Vec<String> {
    const CONNECTED: &str = "03";
    // An accepted socket belongs to the namespace of the connecting process.
    let table = std::fs::read_to_string("/proc/thread-self/net/unix").expect("a table");
    let path = path.to_str().expect("text");
    let words = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    // Num RefCount Protocol Flags Type St Inode Path
    let accepted = words.filter(|words| words.get(5) == Some(&CONNECTED) && words.get(7) == Some(&path));
    accepted.filter_map(|words| words.get(6).map(|inode| (*inode).to_owned())).collect()
}
