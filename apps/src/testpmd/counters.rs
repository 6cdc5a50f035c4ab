//! The counters of a stream.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bursts::{Bursts, Spread};
use super::lane::Round;
use super::layout::StreamTotals;

/// The time at which a stream started.
#[derive(Debug)]
struct Started(Instant);

impl Default for Started {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// How a stream's thread has waited for packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// Time since the start, and the part of it spent asleep.
    pub(crate) elapsed: Duration,
    pub(crate) asleep: Duration,
    pub(crate) sleeps: u64,
    /// Cycles of rounds that moved packets; 0 if they are not recorded.
    pub(crate) busy_cycles: u64,
}

/// Counters of one stream. One thread adds, any thread reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LaneCounters {
    rx_packets: AtomicU64,
    tx_packets: AtomicU64,
    tx_dropped: AtomicU64,
    bad_ip: AtomicU64,
    bad_l4: AtomicU64,
    /// Cycles of rounds that moved packets, if they are recorded.
    busy_cycles: AtomicU64,
    /// Of the stream's thread: nanoseconds asleep, and the number of sleeps.
    asleep: AtomicU64,
    sleeps: AtomicU64,
    started: Started,
    bursts: Option<Bursts>,
    base: Mutex<StreamTotals>,
}

impl LaneCounters {
    /// Creates counters; with `record_bursts`, burst sizes are counted too.
    pub(crate) fn new(record_bursts: bool) -> Self {
        Self { bursts: record_bursts.then(Bursts::default), ..Self::default() }
    }

    /// A load and a store instead of an atomic addition: only the stream's own thread adds.
    #[inline]
    fn add(counter: &AtomicU64, count: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn add_received(&self, packets: u64) {
        Self::add(&self.rx_packets, packets);
    }

    #[inline]
    pub(crate) fn add_sent(&self, packets: u64) {
        Self::add(&self.tx_packets, packets);
    }

    #[inline]
    pub(crate) fn add_dropped(&self, packets: u64) {
        Self::add(&self.tx_dropped, packets);
    }

    #[inline]
    pub(crate) fn add_busy(&self, cycles: u64) {
        Self::add(&self.busy_cycles, cycles);
    }

    /// Cycles of rounds that moved packets, since forwarding started.
    pub(crate) fn busy_cycles(&self) -> u64 {
        self.busy_cycles.load(Ordering::Relaxed)
    }

    pub(crate) fn add_sleep(&self, asleep: Duration, sleeps: u64) {
        Self::add(&self.asleep, u64::try_from(asleep.as_nanos()).unwrap_or(u64::MAX));
        Self::add(&self.sleeps, sleeps);
    }

    /// How the stream's thread has waited since the stream started.
    pub(crate) fn waits(&self) -> Waits {
        Waits {
            elapsed: self.started.0.elapsed(),
            asleep: Duration::from_nanos(self.asleep.load(Ordering::Relaxed)),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            busy_cycles: self.busy_cycles.load(Ordering::Relaxed),
        }
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

    pub(crate) fn add_bursts(&self, round: Round, receives: bool) {
        let Some(bursts) = &self.bursts else { return };
        if receives {
            bursts.rx.add(round.received);
        }
        if round.offered {
            bursts.tx.add(round.sent);
        }
    }

    /// The sizes of received and sent bursts since the start or the last [`mark`](Self::mark), if they are
    /// recorded.
    pub(crate) fn bursts(&self) -> Option<(Spread, Spread)> {
        self.bursts.as_ref().map(|bursts| (bursts.rx.spread(), bursts.tx.spread()))
    }

    /// Restarts the totals at zero. The counters keep their values: only the polling thread writes them.
    pub(crate) fn mark(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = self.all();
        if let Some(bursts) = &self.bursts {
            bursts.rx.mark();
            bursts.tx.mark();
        }
    }

    /// Totals since the start or the last [`mark`](Self::mark).
    pub(crate) fn totals(&self) -> StreamTotals {
        // The lock comes first: a mark between the two would leave the base above the counters.
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.all();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The console marks while telemetry reads.
    #[test]
    fn totals_never_fall_below_zero() {
        let (counters, end) = (LaneCounters::default(), Instant::now() + Duration::from_millis(500));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < end {
                    counters.add_received(1);
                    counters.mark();
                }
            });
            while Instant::now() < end {
                let since = counters.totals().rx_packets;
                assert!(since <= 1, "{since} packets since the last mark");
            }
        });
    }
}
