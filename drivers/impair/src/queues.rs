//! The queues of an impaired port: the inner port's queues behind a line.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use linecard_mempool::Burst;

use super::impairment::{Fault, Impairment};
use linecard_pmd::port::{RxQueue, TxQueue};
use linecard_pmd::stats::QueueStats;
use linecard_pmd::wake::Armed;

/// A line with its clock and its counters.
pub(super) struct Timed {
    line: Option<Impairment>,
    start: Instant,
    stats: Arc<QueueStats<Fault>>,
}

impl Timed {
    /// Creates the line; `None` passes packets unchanged.
    pub(super) fn new(line: Option<Impairment>, stats: Arc<QueueStats<Fault>>) -> Self {
        Self { line, start: Instant::now(), stats }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            self.stats.lost(Fault::Stopped, line.waiting() as u64);
        }
    }
}

/// Receives from the inner port's queue.
pub(super) struct Rx {
    pub(super) inner: Box<dyn RxQueue>,
    pub(super) timed: Timed,
}

impl Rx {
    /// The answer to an arming while packets wait: their timers wake no thread, so the queue must be polled.
    fn waiting(&self) -> Option<Armed> {
        let due = self.timed.line.as_ref().and_then(Impairment::next_due)?;
        Some(if due <= self.timed.now() { Armed::Ready } else { Armed::Unable })
    }
}

impl RxQueue for Rx {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let (before, now) = (packets.len(), self.timed.now());
        let Timed { line, stats, .. } = &mut self.timed;
        match line {
            None => {
                self.inner.rx_burst(packets);
            }
            Some(line) => {
                let room = line.room();
                if room > 0 {
                    let mut fresh = Burst::with_capacity(room);
                    self.inner.rx_burst(&mut fresh);
                    fresh.drain(..fresh.len()).for_each(|packet| line.push(packet, now, stats));
                }
                packets.fill_from(&mut std::iter::from_fn(|| line.pop(now, stats)));
            }
        }
        let bytes = packets[before..].iter().map(|packet| packet.len() as u64).sum();
        let count = packets.len() - before;
        stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        if self.timed.line.is_some() { "impaired" } else { self.inner.path() }
    }

    fn arm(&mut self) -> Armed {
        self.waiting().unwrap_or_else(|| self.inner.arm())
    }

    fn prepare_arm(&mut self) {
        self.inner.prepare_arm();
    }

    fn begin_arm(&mut self) -> bool {
        self.waiting().is_none() && self.inner.begin_arm()
    }

    fn finish_arm(&mut self) -> Armed {
        self.waiting().unwrap_or_else(|| self.inner.finish_arm())
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event()
    }
}

/// Sends to the inner port's queue.
pub(super) struct Tx {
    pub(super) inner: Box<dyn TxQueue>,
    pub(super) timed: Timed,
    /// Packets that are due, but not accepted by the inner port yet.
    pub(super) ready: Burst,
}

impl Tx {
    /// Sends the packets that are due, as far as the inner port accepts them.
    fn release(&mut self, now: u64) {
        let Timed { line: Some(line), stats, .. } = &mut self.timed else { return };
        loop {
            self.ready.fill_from(&mut std::iter::from_fn(|| line.pop(now, stats)));
            if self.ready.is_empty() {
                return;
            }
            self.inner.tx_burst(&mut self.ready);
            if !self.ready.is_empty() {
                return;
            }
        }
    }
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let weight = |packets: &Burst| packets.iter().map(|packet| packet.len() as u64).sum::<u64>();
        let (count, bytes) = (packets.len(), weight(packets));
        if self.timed.line.is_none() {
            self.inner.tx_burst(packets);
        } else {
            let now = self.timed.now();
            self.release(now);
            if let Timed { line: Some(line), stats, .. } = &mut self.timed {
                let room = line.room().saturating_sub(self.ready.len());
                packets.drain(..room.min(count)).for_each(|packet| line.push(packet, now, stats));
            }
            self.release(now);
        }
        let taken = count - packets.len();
        self.timed.stats.moved(taken, bytes - weight(packets));
        taken
    }

    fn reclaim(&mut self) {
        self.release(self.timed.now());
        self.inner.reclaim();
    }

    fn watched(&mut self, on: bool) {
        self.inner.watched(on);
    }

    fn path(&self) -> &'static str {
        if self.timed.line.is_some() { "impaired" } else { self.inner.path() }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.timed.stats.lost(Fault::Stopped, self.ready.len() as u64);
    }
}
