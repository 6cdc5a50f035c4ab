//! One stream in motion: a receive queue, a mode, a transmit queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard::capture::{WatchedRx, WatchedTx};
use linecard::eal::clock::cycles;
use linecard::mempool::{BURST, Burst};
use linecard::pmd::contain::{ContainedRx, ContainedTx};
use linecard::pmd::{RxQueue, TxQueue};

use super::counters::LaneCounters;
use super::live::Live;
use super::modes::{Mode, TxOnly};
use super::settings::Retry;
use super::soft::LaneRules;
use super::topology::Stream;
use super::verbose;

/// A receive queue as testpmd polls it: it can be captured, and a panic costs it alone.
pub(crate) type PortRx = ContainedRx<WatchedRx>;
/// A transmit queue, likewise.
pub(crate) type PortTx = ContainedTx<WatchedTx>;

/// What every lane of a run shares.
#[derive(Clone)]
pub(crate) struct LaneConfig {
    pub(crate) retry: Retry,
    pub(crate) live: Arc<Live>,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) received: u32,
    pub(crate) sent: u32,
    /// Packets were offered to the transmit queue, taken or not.
    pub(crate) offered: bool,
}

impl Round {
    #[inline]
    pub(crate) fn moved(self) -> u32 {
        self.received + self.sent
    }

    fn add(&mut self, part: Self) {
        self.received += part.received;
        self.sent += part.sent;
        self.offered |= part.offered;
    }
}

/// What a stream can be woken by.
pub(crate) enum SleepsOn<'a> {
    /// Its receive queue.
    Queue(&'a mut dyn RxQueue),
    /// It has to be polled.
    Nothing,
    /// It waits for nothing.
    Anything,
}

/// A lane of any mode, driven burst by burst.
pub(crate) trait Forward: Send {
    /// Sends `count` generated packets before the mode begins.
    fn send_first(&mut self, generator: &mut TxOnly, count: usize);
    /// Receives, steps and sends once.
    fn round(&mut self) -> Round;
    /// Counts cycles of a round that moved packets.
    fn add_busy(&mut self, cycles: u64);
    /// Counts how many packets a round received and sent, if the run records that.
    fn add_bursts(&mut self, round: Round);
    /// Lets the transmit queue finish what earlier bursts left to do.
    fn reclaim(&mut self);
    /// What to sleep over when nothing moves.
    fn sleeps_on(&mut self) -> SleepsOn<'_>;
    /// Counts sleeps of its thread, and how long they were.
    fn add_sleep(&mut self, asleep: Duration, sleeps: u64);
    /// Which stream this is, and its queues.
    fn into_queues(self: Box<Self>) -> (Stream, PortRx, PortTx);
    /// Which stream this is.
    fn stream(&self) -> Stream;
    /// The same after a panic outside of its queues: does nothing any more; what it held is dropped and counted.
    fn halted(self: Box<Self>) -> Box<dyn Forward>;
}

/// The packets of one burst as asked for, in as many parts as a [`Burst`] holds.
pub(crate) struct SplitBurst {
    /// The part in use.
    packets: Burst,
    /// Further parts of the same size.
    more: usize,
    /// What remains beyond those.
    rest: Option<Box<Burst>>,
}

impl SplitBurst {
    pub(crate) fn new(burst: u16) -> Self {
        let burst = usize::from(burst).max(1);
        let (more, rest) = if burst <= BURST { (0, 0) } else { (burst / BURST - 1, burst % BURST) };
        let rest = (rest > 0).then(|| Box::new(Burst::with_capacity(rest)));
        Self { packets: Burst::with_capacity(burst), more, rest }
    }

    #[inline]
    fn one(&self) -> bool {
        self.more == 0 && self.rest.is_none()
    }
}

/// See [`Forward`].
pub(crate) struct Lane<M> {
    pub(crate) stream: Stream,
    pub(crate) rx: PortRx,
    pub(crate) tx: PortTx,
    pub(crate) mode: M,
    pub(crate) burst: SplitBurst,
    pub(crate) counters: Arc<LaneCounters>,
    pub(crate) config: LaneConfig,
    pub(crate) rules: LaneRules,
    /// When the packets of the burst came, where latencies are measured.
    pub(crate) received_at: u64,
}

impl<M: Mode> Lane<M> {
    /// Sends what the burst holds; what does not fit is tried again if asked for, then dropped and counted.
    #[inline]
    fn send(&mut self) -> (usize, usize) {
        let packets = &mut self.burst.packets;
        if packets.is_empty() && !M::HOLDS_BACK {
            return (0, 0);
        }
        let mut sent = self.mode.send(&mut self.tx, packets);
        if !packets.is_empty() && self.config.retry.enabled {
            sent += self.send_again();
        }
        let packets = &mut self.burst.packets;
        if !packets.is_empty() {
            self.tx.note_dropped(packets, "no room in the transmit queue");
        }
        let dropped = packets.clear() + self.mode.lost();
        self.counters.add_sent(sent as u64);
        if dropped > 0 {
            self.counters.add_dropped(dropped as u64);
        }
        (sent, dropped)
    }

    #[cold]
    fn send_again(&mut self) -> usize {
        let delay = Duration::from_micros(self.config.retry.delay_us.into());
        let mut sent = 0;
        for _ in 0..self.config.retry.count {
            let start = Instant::now();
            while start.elapsed() < delay {
                std::hint::spin_loop();
            }
            sent += self.mode.send(&mut self.tx, &mut self.burst.packets);
            if self.burst.packets.is_empty() {
                break;
            }
        }
        sent
    }

    /// Receives, steps and sends one part of the burst.
    #[inline]
    fn part(&mut self) -> Round {
        let mut received = 0;
        let extras = self.config.live.extras();
        if M::RECEIVES {
            received = self.rx.rx_burst(&mut self.burst.packets);
            if extras != 0 {
                received = self.received_extras(extras);
            }
            if received > 0 {
                self.counters.add_received(received as u64);
            }
        }
        self.mode.step(&mut self.burst.packets);
        if extras != 0 {
            self.sent_extras();
        }
        let (sent, dropped) = self.send();
        if dropped > 0 {
            self.mode.not_sent(dropped);
        }
        Round { received: received as u32, sent: sent as u32, offered: sent + dropped > 0 }
    }

    /// What is done to received packets only while somebody asks for it; how many there are then.
    #[cold]
    #[inline(never)]
    fn received_extras(&mut self, generation: u32) -> usize {
        let live = &self.config.live;
        if let Some(latency) = &live.latency {
            self.received_at = latency.clock.cycles();
        }
        if self.rules.generation != generation {
            self.rules.generation = generation;
            self.rules.rules = live.rules(self.stream.rx_port);
        }
        let packets = &mut self.burst.packets;
        self.rules.apply(self.stream.rx_queue, packets);
        let received = packets.len();
        if received > 0 && verbose::shows_received(live.verbose()) {
            live.shown.show(received, || verbose::received(&self.stream, packets));
        }
        spend(u64::from(live.work_cycles()) * received as u64);
        received
    }

    /// Shows packets that are about to be sent and counts how long they stayed, if asked for.
    #[cold]
    #[inline(never)]
    fn sent_extras(&mut self) {
        let (live, packets) = (&self.config.live, &self.burst.packets);
        if !packets.is_empty() && verbose::shows_sent(live.verbose()) {
            live.shown.show(packets.len(), || verbose::sent(&self.stream, packets));
        }
        if let Some(latency) = &live.latency
            && !packets.is_empty()
            && M::RECEIVES
            && !M::GENERATES
        {
            let came = self.mode.came();
            latency.add((0..packets.len()).map(|at| came.get(at).copied().unwrap_or(self.received_at)));
        }
    }

    /// The parts of a large burst after the first, as long as the last one was full.
    #[inline(never)]
    fn further_parts(&mut self, whole: &mut Round) {
        let mut full = M::GENERATES || whole.received as usize == BURST;
        for _ in 0..self.burst.more {
            if !full {
                return;
            }
            let part = self.part();
            full = M::GENERATES || part.received as usize == BURST;
            whole.add(part);
        }
        if full && let Some(mut rest) = self.burst.rest.take() {
            std::mem::swap(&mut *rest, &mut self.burst.packets);
            whole.add(self.part());
            std::mem::swap(&mut *rest, &mut self.burst.packets);
            self.burst.rest = Some(rest);
        }
    }
}

impl<M: Mode> Forward for Lane<M> {
    fn send_first(&mut self, generator: &mut TxOnly, count: usize) {
        let mut left = count;
        while left > 0 {
            let now = left.min(self.burst.packets.capacity());
            generator.fill(&mut self.burst.packets, now);
            self.mode.before_first(&mut self.burst.packets);
            self.send();
            left -= now;
        }
    }

    #[inline]
    fn round(&mut self) -> Round {
        let mut whole = self.part();
        if !self.burst.one() {
            self.further_parts(&mut whole);
        }
        whole
    }

    fn add_busy(&mut self, cycles: u64) {
        self.counters.add_busy(cycles);
    }

    fn add_bursts(&mut self, round: Round) {
        self.counters.add_bursts(round, M::RECEIVES);
    }

    fn reclaim(&mut self) {
        self.tx.reclaim();
    }

    fn sleeps_on(&mut self) -> SleepsOn<'_> {
        // Packets for its queue may come on others, which wake somebody else.
        let handed_over = self.config.live.extras() != 0 && self.rules.rules.is_some();
        // Nor is there anybody who wakes this thread for packets that wait in the mode.
        if M::RECEIVES && !M::GENERATES && !handed_over && self.mode.held() == 0 {
            SleepsOn::Queue(&mut self.rx)
        } else {
            SleepsOn::Nothing
        }
    }

    fn add_sleep(&mut self, asleep: Duration, sleeps: u64) {
        self.counters.add_sleep(asleep, sleeps);
    }

    fn into_queues(self: Box<Self>) -> (Stream, PortRx, PortTx) {
        // What still waits in the mode goes with it.
        let held = self.mode.held();
        if held > 0 {
            self.counters.add_dropped(held as u64);
        }
        let Self { stream, rx, tx, .. } = *self;
        (stream, rx, tx)
    }

    fn stream(&self) -> Stream {
        self.stream
    }

    fn halted(mut self: Box<Self>) -> Box<dyn Forward> {
        // Modes are safe code: what they did with the burst before they panicked left it whole.
        let rest = self.burst.rest.as_mut().map_or(0, |rest| rest.clear());
        let dropped = self.burst.packets.clear() + rest;
        self.counters.add_dropped(dropped as u64);
        let Self { stream, rx, tx, .. } = *self;
        Box::new(Halted { stream, rx, tx })
    }
}

/// A stream that panicked: keeps its queues until they go home.
struct Halted {
    stream: Stream,
    rx: PortRx,
    tx: PortTx,
}

impl Forward for Halted {
    fn send_first(&mut self, _: &mut TxOnly, _: usize) {}

    fn round(&mut self) -> Round {
        Round::default()
    }

    fn add_busy(&mut self, _: u64) {}

    fn add_bursts(&mut self, _: Round) {}

    fn reclaim(&mut self) {
        self.tx.reclaim();
    }

    fn sleeps_on(&mut self) -> SleepsOn<'_> {
        SleepsOn::Anything
    }

    fn add_sleep(&mut self, _: Duration, _: u64) {}

    fn into_queues(self: Box<Self>) -> (Stream, PortRx, PortTx) {
        let Self { stream, rx, tx } = *self;
        (stream, rx, tx)
    }

    fn stream(&self) -> Stream {
        self.stream
    }

    fn halted(self: Box<Self>) -> Box<dyn Forward> {
        self
    }
}

/// Spends time-stamp cycles as an application with more to do would.
#[cold]
fn spend(work: u64) {
    let start = cycles();
    while cycles().wrapping_sub(start) < work {}
}
