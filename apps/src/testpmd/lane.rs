//! One stream in motion: a receive queue, a mode, a transmit queue.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use linecard::capture::{WatchedRx, WatchedTx};
use linecard::eal::clock::cycles;
use linecard::mempool::{BURST, Burst, Packet};
use linecard::pmd::contain::{ContainedRx, ContainedTx};
use linecard::pmd::{RxQueue, TxQueue};

use super::bursts::{Bursts, Spread};
use super::frames;
use super::layout::StreamTotals;
use super::modes::{Mode, TxOnly};
use super::settings::Retry;
use super::topology::Stream;
use super::verbose::Verbose;

/// A receive queue as testpmd polls it: it can be captured, and a panic costs it alone.
pub(crate) type PortRx = ContainedRx<WatchedRx>;
/// A transmit queue, likewise.
pub(crate) type PortTx = ContainedTx<WatchedTx>;

/// Counters of one stream. One thread adds, any thread reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LaneCounters {
    rx_packets: AtomicU64,
    tx_packets: AtomicU64,
    tx_dropped: AtomicU64,
    bad_ip: AtomicU64,
    bad_l4: AtomicU64,
    /// Cycles of rounds that moved packets, when they are recorded.
    busy_cycles: AtomicU64,
    bursts: Option<Bursts>,
    base: Mutex<StreamTotals>,
}

impl LaneCounters {
    /// Counters of a run that records how many packets its bursts have, or does not.
    pub(crate) fn new(record_bursts: bool) -> Self {
        Self { bursts: record_bursts.then(Bursts::default), ..Self::default() }
    }

    /// A load and a store: only the stream's own thread adds.
    #[inline]
    fn add(counter: &AtomicU64, count: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    fn all(&self) -> StreamTotals {
        StreamTotals {
            rx_packets: self.rx_packets.load(Ordering::Relaxed),
            tx_packets: self.tx_packets.load(Ordering::Relaxed),
            tx_dropped: self.tx_dropped.load(Ordering::Relaxed),
            bad_ip: self.bad_ip.load(Ordering::Relaxed),
            bad_l4: self.bad_l4.load(Ordering::Relaxed),
            busy_cycles: self.busy_cycles.load(Ordering::Relaxed),
        }
    }

    /// Counts a packet that was received with a wrong checksum.
    #[cold]
    pub(crate) fn bad_checksums(&self, ip: bool, l4: bool) {
        Self::add(&self.bad_ip, u64::from(ip));
        Self::add(&self.bad_l4, u64::from(l4));
    }

    fn add_bursts(&self, round: Round, receives: bool) {
        let Some(bursts) = &self.bursts else { return };
        if receives {
            bursts.rx.add(round.received);
        }
        if round.offered {
            bursts.tx.add(round.sent);
        }
    }

    /// How many packets the bursts had since the start or the last [`mark`](Self::mark), if that was recorded.
    pub(crate) fn bursts(&self) -> Option<(Spread, Spread)> {
        self.bursts.as_ref().map(|bursts| (bursts.rx.spread(), bursts.tx.spread()))
    }

    /// Totals count from here; the counters themselves belong to the polling thread.
    pub(crate) fn mark(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = self.all();
        if let Some(bursts) = &self.bursts {
            bursts.rx.mark();
            bursts.tx.mark();
        }
    }

    /// Totals since the start or the last [`mark`](Self::mark).
    pub(crate) fn totals(&self) -> StreamTotals {
        let (all, base) = (self.all(), *self.base.lock().unwrap_or_else(PoisonError::into_inner));
        StreamTotals {
            rx_packets: all.rx_packets - base.rx_packets,
            tx_packets: all.tx_packets - base.tx_packets,
            tx_dropped: all.tx_dropped - base.tx_dropped,
            bad_ip: all.bad_ip - base.bad_ip,
            bad_l4: all.bad_l4 - base.bad_l4,
            busy_cycles: all.busy_cycles - base.busy_cycles,
        }
    }
}

/// What the console may change while packets move.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Whether received packets are shown.
    pub(crate) verbose: AtomicU16,
    /// Where they are shown.
    pub(crate) shown: Verbose,
    /// Cycles to spend on nothing for each received packet.
    pub(crate) work_cycles: AtomicU32,
}

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
    /// Which stream this is, and its queues.
    fn into_queues(self: Box<Self>) -> (Stream, PortRx, PortTx);
    /// Which stream this is.
    fn stream(&self) -> Stream;
    /// The same after a panic outside of its queues: does nothing any more; what it held is dropped and counted.
    fn halted(self: Box<Self>) -> Box<dyn Forward>;
}

/// The packets of one burst as asked for, in as many parts as a [`Burst`] holds.
pub(crate) struct Parts {
    /// The part in use.
    packets: Burst,
    /// Further parts of the same size.
    more: usize,
    /// What remains beyond those.
    rest: Option<Box<Burst>>,
}

impl Parts {
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
    pub(crate) burst: Parts,
    pub(crate) counters: Arc<LaneCounters>,
    pub(crate) config: LaneConfig,
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
        LaneCounters::add(&self.counters.tx_packets, sent as u64);
        if dropped > 0 {
            LaneCounters::add(&self.counters.tx_dropped, dropped as u64);
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
        if M::RECEIVES {
            received = self.rx.rx_burst(&mut self.burst.packets);
            if received > 0 {
                LaneCounters::add(&self.counters.rx_packets, received as u64);
                if self.config.live.verbose.load(Ordering::Relaxed) > 0 {
                    let packets = &self.burst.packets;
                    self.config.live.shown.show(packets.len(), || describe(&self.stream, packets));
                }
                let work = self.config.live.work_cycles.load(Ordering::Relaxed);
                if work > 0 {
                    spend(u64::from(work) * received as u64);
                }
            }
        }
        self.mode.step(&mut self.burst.packets);
        let (sent, dropped) = self.send();
        if dropped > 0 {
            self.mode.not_sent(dropped);
        }
        Round { received: received as u32, sent: sent as u32, offered: sent + dropped > 0 }
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

#[cold]
fn describe(stream: &Stream, packets: &[Packet]) -> String {
    let Stream { rx_port, rx_queue, .. } = stream;
    let mut text = format!("\nport {rx_port}/queue {rx_queue}: received {} packets\n", packets.len());
    for packet in packets {
        let segments = packet.segments().count();
        text += &frames::describe(packet.data(), packet.len(), segments, *rx_queue);
    }
    text
}

impl<M: Mode> Forward for Lane<M> {
    fn send_first(&mut self, generator: &mut TxOnly, count: usize) {
        let mut left = count;
        while left > 0 {
            let now = left.min(self.burst.packets.capacity());
            generator.fill(&mut self.burst.packets, now);
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
        LaneCounters::add(&self.counters.busy_cycles, cycles);
    }

    fn add_bursts(&mut self, round: Round) {
        self.counters.add_bursts(round, M::RECEIVES);
    }

    fn reclaim(&mut self) {
        self.tx.reclaim();
    }

    fn into_queues(self: Box<Self>) -> (Stream, PortRx, PortTx) {
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
        LaneCounters::add(&self.counters.tx_dropped, dropped as u64);
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
