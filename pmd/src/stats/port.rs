//! The counters of a port, under DPDK's names.

use std::sync::Arc;

use super::{Cause, QueueStats, Total, Totals};
use crate::control::PortStats;

/// The counters of all queues of a port, with DPDK's totals and extended statistics.
///
/// ```
/// use linecard_pmd::stats::{AnyLoss, PortCounters};
/// let counters = PortCounters::<AnyLoss, AnyLoss>::new(1, 2);
/// counters.tx(1).moved(4, 400);
/// assert_eq!(counters.stats().opackets, 4);
/// assert_eq!(counters.queue_stats(0).opackets, 0);
/// assert!(counters.xstats().contains(&("tx_q1_bytes".to_owned(), 400)));
/// ```
#[derive(Debug)]
pub struct PortCounters<R: Cause, T: Cause> {
    rx: Vec<Arc<QueueStats<R>>>,
    tx: Vec<Arc<QueueStats<T>>>,
}

impl<R: Cause, T: Cause> PortCounters<R, T> {
    /// Creates counters for this number of queues, all zero.
    #[must_use]
    pub fn new(rx_queues: u16, tx_queues: u16) -> Self {
        Self {
            rx: (0..rx_queues).map(|_| Arc::default()).collect(),
            tx: (0..tx_queues).map(|_| Arc::default()).collect(),
        }
    }

    /// The counters of one receive queue, for that queue.
    ///
    /// # Panics
    /// The queue does not exist.
    #[must_use]
    pub fn rx(&self, queue: usize) -> Arc<QueueStats<R>> {
        Arc::clone(&self.rx[queue])
    }

    /// The counters of one transmit queue, for that queue.
    ///
    /// # Panics
    /// The queue does not exist.
    #[must_use]
    pub fn tx(&self, queue: usize) -> Arc<QueueStats<T>> {
        Arc::clone(&self.tx[queue])
    }

    /// The numbers of receive and transmit queues.
    #[must_use]
    pub fn queues(&self) -> (u16, u16) {
        // Both were `u16` in `new`.
        (self.rx.len() as u16, self.tx.len() as u16)
    }

    /// The totals of all queues.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        let mut stats = PortStats::default();
        self.rx.iter().for_each(|queue| add_rx(&mut stats, &queue.totals()));
        self.tx.iter().for_each(|queue| add_tx(&mut stats, &queue.totals()));
        stats
    }

    /// The totals of one queue pair; zeros if it does not exist.
    #[must_use]
    pub fn queue_stats(&self, queue: u16) -> PortStats {
        let mut stats = PortStats::default();
        if let Some(rx) = self.rx.get(usize::from(queue)) {
            add_rx(&mut stats, &rx.totals());
        }
        if let Some(tx) = self.tx.get(usize::from(queue)) {
            add_tx(&mut stats, &tx.totals());
        }
        stats
    }

    /// DPDK's names in DPDK's order, then every cause of a loss and the bursts, per queue.
    #[must_use]
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let rx: Vec<_> = self.rx.iter().map(|queue| queue.totals()).collect();
        let tx: Vec<_> = self.tx.iter().map(|queue| queue.totals()).collect();
        let mut all = good(&self.stats());
        for (i, queue) in rx.iter().enumerate() {
            all.push((format!("rx_q{i}_packets"), queue.packets));
            all.push((format!("rx_q{i}_bytes"), queue.bytes));
            all.push((format!("rx_q{i}_errors"), queue.lost_as(Total::Error)));
        }
        for (i, queue) in tx.iter().enumerate() {
            all.push((format!("tx_q{i}_packets"), queue.packets));
            all.push((format!("tx_q{i}_bytes"), queue.bytes));
        }
        rx.iter().enumerate().for_each(|(i, queue)| own(&mut all, "rx", i, queue));
        tx.iter().enumerate().for_each(|(i, queue)| own(&mut all, "tx", i, queue));
        all
    }

    /// Resets all totals to zero.
    pub fn reset(&self) {
        self.rx.iter().for_each(|queue| queue.reset());
        self.tx.iter().for_each(|queue| queue.reset());
    }
}

fn add_rx<C: Cause>(stats: &mut PortStats, queue: &Totals<C>) {
    stats.ipackets += queue.packets;
    stats.ibytes += queue.bytes;
    stats.imissed += queue.lost_as(Total::Missed);
    stats.ierrors += queue.lost_as(Total::Error);
    stats.rx_nombuf += queue.lost_as(Total::NoBuffer);
}

fn add_tx<C: Cause>(stats: &mut PortStats, queue: &Totals<C>) {
    stats.opackets += queue.packets;
    stats.obytes += queue.bytes;
    stats.oerrors += queue.lost_as(Total::Error);
}

/// Adds to the counter of that name among [`PortCounters::xstats`] what was counted elsewhere.
///
/// ```
/// use linecard_pmd::stats::{AnyLoss, PortCounters, add_to};
/// let mut all = PortCounters::<AnyLoss, AnyLoss>::new(1, 1).xstats();
/// add_to(&mut all, "rx_missed_errors", 3);
/// assert!(all.contains(&("rx_missed_errors".to_owned(), 3)));
/// ```
pub fn add_to(all: &mut [(String, u64)], name: &str, more: u64) {
    if let Some((_, value)) = all.iter_mut().find(|(known, _)| known == name) {
        *value += more;
    }
}

/// The names that every DPDK port has.
fn good(stats: &PortStats) -> Vec<(String, u64)> {
    [
        ("rx_good_packets", stats.ipackets),
        ("tx_good_packets", stats.opackets),
        ("rx_good_bytes", stats.ibytes),
        ("tx_good_bytes", stats.obytes),
        ("rx_missed_errors", stats.imissed),
        ("rx_errors", stats.ierrors),
        ("tx_errors", stats.oerrors),
        ("rx_mbuf_allocation_errors", stats.rx_nombuf),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// A driver's own counters of one queue.
fn own<C: Cause>(all: &mut Vec<(String, u64)>, direction: &str, i: usize, queue: &Totals<C>) {
    all.push((format!("{direction}_q{i}_bursts"), queue.bursts));
    all.extend(queue.by_cause().map(|(name, _, n)| (format!("{direction}_q{i}_{name}"), n)));
}
