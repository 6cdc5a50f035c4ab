//! One stream in motion: a receive queue, a mode, a transmit queue.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use linecard::eal::clock::cycles;
use linecard::mempool::{BURST, Burst};
use linecard::pmd::capture::{WatchedRx, WatchedTx};
use linecard::pmd::{RxQueue, TxQueue};

use super::bursts::{Bursts, Spread};
use super::frames;
use super::layout::StreamTotals;
use super::modes::{Mode, TxOnly};
use super::settings::Retry;
use super::topology::Stream;

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
}

/// A lane of any mode, driven burst by burst.
pub(crate) trait Forward: Send {
    /// Sends `count` generated packets before the mode begins.
    fn send_first(&mut self, generator: &TxOnly, count: usize);
    /// Receives, steps and sends once.
    fn round(&mut self) -> Round;
    /// Counts cycles of a round that moved packets.
    fn add_busy(&mut self, cycles: u64);
    /// Counts how many packets a round received and sent, if the run records that.
    fn add_bursts(&mut self, round: Round);
    /// Lets the transmit queue finish what earlier bursts left to do.
    fn reclaim(&mut self);
    /// Which stream this is, and its queues.
    fn into_queues(self: Box<Self>) -> (Stream, WatchedRx, WatchedTx);
}

/// See [`Forward`].
pub(crate) struct Lane<M> {
    pub(crate) stream: Stream,
    pub(crate) rx: WatchedRx,
    pub(crate) tx: WatchedTx,
    pub(crate) mode: M,
    pub(crate) packets: Burst,
    pub(crate) counters: Arc<LaneCounters>,
    pub(crate) config: LaneConfig,
}

impl<M: Mode> Lane<M> {
    /// Sends what `packets` holds; what does not fit is tried again if asked for, then dropped and counted.
    #[inline]
    fn send(&mut self) -> (usize, usize) {
        if self.packets.is_empty() && !M::HOLDS_BACK {
            return (0, 0);
        }
        let mut sent = self.mode.send(&mut self.tx, &mut self.packets);
        if !self.packets.is_empty() && self.config.retry.enabled {
            sent += self.send_again();
        }
        if !self.packets.is_empty() {
            self.tx.note_dropped(&self.packets, "no room in the transmit queue");
        }
        let dropped = self.packets.clear() + self.mode.lost();
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
            sent += self.mode.send(&mut self.tx, &mut self.packets);
            if self.packets.is_empty() {
                break;
            }
        }
        sent
    }

    #[cold]
    fn describe(&self) {
        use std::io::Write as _;
        let Stream { rx_port, rx_queue, .. } = self.stream;
        let mut text =
            format!("\nport {rx_port}/queue {rx_queue}: received {} packets\n", self.packets.len());
        for packet in self.packets.iter() {
            let segments = packet.segments().count();
            text += &frames::describe(packet.data(), packet.len(), segments, rx_queue);
        }
        // Nobody can be told that standard output is gone while packets move.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

impl<M: Mode> Forward for Lane<M> {
    fn send_first(&mut self, generator: &TxOnly, count: usize) {
        let mut left = count;
        while left > 0 {
            let now = left.min(self.packets.capacity());
            generator.fill(&mut self.packets, now);
            self.send();
            left -= now;
        }
    }

    #[inline]
    fn round(&mut self) -> Round {
        let mut received = 0;
        if M::RECEIVES {
            received = self.rx.rx_burst(&mut self.packets);
            if received > 0 {
                LaneCounters::add(&self.counters.rx_packets, received as u64);
                if self.config.live.verbose.load(Ordering::Relaxed) > 0 {
                    self.describe();
                }
                let work = self.config.live.work_cycles.load(Ordering::Relaxed);
                if work > 0 {
                    spend(u64::from(work) * received as u64);
                }
            }
        }
        self.mode.step(&mut self.packets);
        let (sent, dropped) = self.send();
        if dropped > 0 {
            self.mode.not_sent(dropped);
        }
        Round { received: received as u32, sent: sent as u32, offered: sent + dropped > 0 }
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

    fn into_queues(self: Box<Self>) -> (Stream, WatchedRx, WatchedTx) {
        let Self { stream, rx, tx, .. } = *self;
        (stream, rx, tx)
    }
}

/// Spends time-stamp cycles as an application with more to do would.
#[cold]
fn spend(work: u64) {
    let start = cycles();
    while cycles().wrapping_sub(start) < work {}
}

/// Packets of one burst as asked for, as far as a [`Burst`] holds them.
pub(crate) fn burst_len(asked: u16) -> usize {
    usize::from(asked).clamp(1, BURST)
}
