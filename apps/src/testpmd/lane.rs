//! One stream while it forwards: a receive queue, a mode, a transmit queue.

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

/// A receive queue that can be captured, and whose panics affect only itself.
pub(crate) type PortRx = ContainedRx<WatchedRx>;
/// A transmit queue with the same properties.
pub(crate) type PortTx = ContainedTx<WatchedTx>;

/// The parameters that all lanes of a run share.
#[derive(Clone)]
pub(crate) struct LaneConfig {
    pub(crate) retry: Retry,
    pub(crate) live: Arc<Live>,
}

/// The result of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) received: u32,
    pub(crate) sent: u32,
    /// Packets were offered to the transmit queue, whether it took them or not.
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

/// What can wake a stream.
pub(crate) enum SleepsOn<'a> {
    /// Its receive queue.
    Queue(&'a mut dyn RxQueue),
    /// Nothing: the stream has to be polled.
    Nothing,
    /// Anything: the stream waits for nothing.
    Anything,
}

/// A lane of any mode, driven one burst at a time.
pub(crate) trait Forward: Send {
    /// Sends `count` generated packets before the mode begins.
    fn send_first(&mut self, generator: &mut TxOnly, count: usize);
    /// Receives a burst, runs the mode and sends.
    fn round(&mut self) -> Round;
    /// Counts the cycles of a round that moved packets.
    fn add_busy(&mut self, cycles: u64);
    /// Counts the sizes of a round's bursts, if the run records them.
    fn add_bursts(&mut self, round: Round);
    /// Lets the transmit queue do the work that earlier bursts deferred.
    fn reclaim(&mut self);
    /// Returns what to sleep on when nothing moves.
    fn sleeps_on(&mut self) -> SleepsOn<'_>;
    /// Counts the sleeps of the lane's thread, and their duration.
    fn add_sleep(&mut self, asleep: Duration, sleeps: u64);
    /// Returns the stream and its queues.
    fn into_queues(self: Box<Self>) -> (Stream, PortRx, PortTx);
    /// Returns the stream.
    fn stream(&self) -> Stream;
    /// Replaces the lane after a panic outside of its queues: it does nothing any more. Its burst and the
    /// packets that wait in its mode are dropped and counted.
    fn halted(self: Box<Self>) -> Box<dyn Forward>;
}

/// The packets of one burst of the configured size, in as many parts as a [`Burst`] requires.
pub(crate) struct SplitBurst {
    /// The part in use.
    packets: Burst,
    /// The number of further parts of the same size.
    more: usize,
    /// The last, smaller part.
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

/// Implements [`Forward`] for mode `M`.
pub(crate) struct Lane<M> {
    pub(crate) stream: Stream,
    pub(crate) rx: PortRx,
    pub(crate) tx: PortTx,
    pub(crate) mode: M,
    pub(crate) burst: SplitBurst,
    pub(crate) counters: Arc<LaneCounters>,
    pub(crate) config: LaneConfig,
    pub(crate) rules: LaneRules,
    /// The time at which the burst was received, in cycles; set only if latencies are measured.
    pub(crate) received_at: u64,
}

impl<M: Mode> Lane<M> {
    /// Sends the packets of the burst; those that do not fit are retried if configured, then dropped and
    /// counted.
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

    /// Receives one part of the burst, runs the mode and sends.
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

    /// Does the optional work on received packets (latency, rules, display, work cycles); returns how many
    /// packets remain.
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

    /// Displays packets that are about to be sent and counts their latency, if configured.
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

    /// Runs the further parts of a large burst, as long as the previous part was full.
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
        // Packets for this stream may arrive on other queues, which wake other threads.
        let handed_over = self.config.live.extras() != 0 && self.rules.rules.is_some();
        // Nothing wakes this thread for packets that wait in the mode.
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
        // Packets that still wait in the mode are dropped with it.
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
        // Modes are safe code: the burst is intact at whatever point they panicked.
        let rest = self.burst.rest.as_mut().map_or(0, |rest| rest.clear());
        // Packets that wait in the mode are dropped with it.
        let dropped = self.burst.packets.clear() + rest + self.mode.held() + self.mode.lost();
        self.counters.add_dropped(dropped as u64);
        let Self { stream, rx, tx, .. } = *self;
        Box::new(Halted { stream, rx, tx })
    }
}

/// A stream that panicked: keeps its queues until they return to their ports.
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

/// Spends `work` time-stamp cycles, to simulate an application's work.
#[cold]
fn spend(work: u64) {
    let start = cycles();
    while cycles().wrapping_sub(start) < work {}
}
