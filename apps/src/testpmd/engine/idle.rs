//! The behaviour of a polling thread when none of its streams moved a packet.

use std::cell::Cell;
use std::time::{Duration, Instant};

use linecard::pmd::Adaptive;
use linecard::pmd::wake::PollPause;

use crate::testpmd::lane::{Forward, SleepsOn};

/// Idle rounds before the thread yields its core. Many if the last yield let no other thread run, few if it
/// did, because that thread may be the one that sends the next packets.
const YIELD_AFTER: u32 = 512;
const YIELD_SOON: u32 = 16;
/// A yield that took longer let another thread run; a shorter one was only a system call.
const TURN: Duration = Duration::from_micros(3);
/// How long a thread continues to poll after its last packet before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// The longest sleep. Bounds the delay of `stop`, and of packets for which a peer fails to send a
/// notification.
const BOUND: Duration = Duration::from_millis(50);

/// How a thread waits for packets.
#[derive(Debug)]
pub(super) struct Idle {
    rounds: u32,
    patience: u32,
    pause: PollPause,
    /// Present if the thread sleeps until a queue wakes it.
    interrupts: Option<Adaptive>,
}

impl Idle {
    /// A thread that sleeps while nothing is received (`interrupts`), or polls.
    pub(super) fn new(interrupts: bool) -> Self {
        let interrupts = interrupts.then(|| Adaptive::new(SPIN, BOUND));
        Self { rounds: 0, patience: YIELD_AFTER, pause: PollPause::new(), interrupts }
    }

    /// To call after a round that received and sent this many packets together.
    #[inline]
    pub(super) fn moved(&mut self, packets: u32) {
        self.rounds = 0;
        self.pause.moved(packets as usize / 2);
        if let Some(adaptive) = &mut self.interrupts {
            adaptive.wait(1, &mut []);
        }
    }

    /// To call after a round that moved none. `at` receives the index of the current stream.
    pub(super) fn nothing(&mut self, lanes: &mut [Box<dyn Forward>], at: &Cell<usize>) {
        if self.interrupts.is_some() && self.sleep(lanes, at) {
            return;
        }
        self.rounds += 1;
        if self.rounds < self.patience {
            self.pause.nothing();
            return;
        }
        self.rounds = 0;
        reclaim(lanes, at);
        let start = Instant::now();
        std::thread::yield_now();
        self.patience = if start.elapsed() > TURN { YIELD_SOON } else { YIELD_AFTER };
    }

    /// Sleeps on all queues; false if a stream has to be polled.
    fn sleep(&mut self, lanes: &mut [Box<dyn Forward>], at: &Cell<usize>) -> bool {
        let Some(adaptive) = &mut self.interrupts else { return false };
        reclaim(lanes, at);
        let mut queues = Vec::with_capacity(lanes.len());
        for lane in lanes.iter_mut() {
            match lane.sleeps_on() {
                SleepsOn::Queue(queue) => queues.push(queue),
                SleepsOn::Nothing => return false,
                SleepsOn::Anything => {}
            }
        }
        let before = (adaptive.asleep(), adaptive.sleeps());
        adaptive.wait(0, &mut queues);
        let slept = adaptive.asleep().saturating_sub(before.0);
        let sleeps = adaptive.sleeps().wrapping_sub(before.1);
        if sleeps > 0 {
            lanes.iter_mut().for_each(|lane| lane.add_sleep(slept, sleeps));
        }
        true
    }
}

/// Lets the transmit queues do their deferred work.
fn reclaim(lanes: &mut [Box<dyn Forward>], at: &Cell<usize>) {
    for (i, lane) in lanes.iter_mut().enumerate() {
        at.set(i);
        lane.reclaim();
    }
}
