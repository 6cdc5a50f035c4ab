//! Queues that can be captured: the driver's queue with a [`Point`] in front.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use linecard_mempool::{Burst, Packet};

use super::point::{Gone, Mailbox, Point, Sinks};
use crate::pcap::encode::now;
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::observer::observe;
use linecard_pmd::port::{RxQueue, TxQueue};
use linecard_pmd::wake::Armed;

/// A receive queue that can be captured; made by [`Hub::watch_queues`](super::Hub::watch_queues).
///
/// ```
/// use linecard_pmd::RxQueue;
/// use linecard_capture::WatchedRx;
/// fn poll(rx: &mut WatchedRx, packets: &mut linecard_mempool::Burst) -> usize {
///     rx.rx_burst(packets) // one relaxed load more than the queue behind
/// }
/// ```
pub struct WatchedRx {
    inner: Box<dyn RxQueue>,
    point: Point,
}

impl WatchedRx {
    pub(super) fn new(inner: Box<dyn RxQueue>, mailbox: &Arc<Mailbox>) -> Self {
        Self { inner, point: Point::new(Arc::clone(mailbox)) }
    }

    #[cold]
    #[inline(never)]
    fn watched(&mut self, packets: &mut Burst) -> usize {
        self.point.pick_up();
        let Some(Sinks { mut passed, mut dropped }) = self.point.sinks.take() else {
            return self.inner.rx_burst(packets);
        };
        let (before, time) = (packets.len(), now());
        dropped.begin(time);
        let (count, dropped) = observe(dropped, || self.inner.rx_burst(packets));
        // Dropped packets are not among those in `packets`.
        passed.prepare(&packets[before..], time).publish(count, &Gone::NONE);
        self.point.sinks = dropped.map(|dropped| Sinks { passed, dropped });
        count
    }
}

impl RxQueue for WatchedRx {
    #[inline(always)]
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        if self.point.off() {
            return self.inner.rx_burst(packets);
        }
        self.watched(packets)
    }

    /// A capture needs packets, so frames are not passed directly.
    #[inline(always)]
    fn rx_direct(&mut self, packets: &mut Burst, sink: &mut Sink<'_>) -> usize {
        if self.point.off() {
            return self.inner.rx_direct(packets, sink);
        }
        self.watched(packets)
    }

    fn path(&self) -> &'static str {
        self.inner.path()
    }

    fn arm(&mut self) -> Armed {
        self.inner.arm()
    }

    fn prepare_arm(&mut self) {
        self.inner.prepare_arm();
    }

    fn begin_arm(&mut self) -> bool {
        self.inner.begin_arm()
    }

    fn finish_arm(&mut self) -> Armed {
        self.inner.finish_arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event()
    }
}

/// A transmit queue that can be captured; made by [`Hub::watch_queues`](super::Hub::watch_queues).
///
/// ```
/// use linecard_pmd::TxQueue;
/// use linecard_capture::WatchedTx;
/// fn push(tx: &mut WatchedTx, packets: &mut linecard_mempool::Burst) -> usize {
///     tx.tx_burst(packets) // one relaxed load more than the queue behind
/// }
/// ```
pub struct WatchedTx {
    inner: Box<dyn TxQueue>,
    point: Point,
}

impl WatchedTx {
    pub(super) fn new(inner: Box<dyn TxQueue>, mailbox: &Arc<Mailbox>) -> Self {
        Self { inner, point: Point::new(Arc::clone(mailbox)) }
    }

    #[cold]
    #[inline(never)]
    fn watched(&mut self, packets: &mut Burst) -> usize {
        self.point.pick_up();
        let time = now();
        let Some(Sinks { mut passed, mut dropped }) = self.point.sinks.take() else {
            self.inner.watched(false);
            return self.inner.tx_burst(packets);
        };
        // Copied first: packets that are taken may be freed at once.
        let copied = passed.prepare(packets, time);
        dropped.begin(time);
        let (count, dropped) = observe(dropped, || {
            self.inner.watched(true);
            self.inner.tx_burst(packets)
        });
        let gone = dropped.as_ref().map_or(&Gone::NONE, |dropped| dropped.gone());
        copied.publish(count, gone);
        self.point.sinks = dropped.map(|dropped| Sinks { passed, dropped });
        count
    }
}

impl WatchedTx {
    /// Also when nothing is sent any more: captures start and end, and waiting packets may be dropped.
    #[cold]
    #[inline(never)]
    fn reclaim_watched(&mut self) {
        self.point.pick_up();
        let Some(Sinks { passed, mut dropped }) = self.point.sinks.take() else {
            self.inner.watched(false);
            return self.inner.reclaim();
        };
        dropped.begin(now());
        let ((), dropped) = observe(dropped, || {
            self.inner.watched(true);
            self.inner.reclaim();
        });
        self.point.sinks = dropped.map(|dropped| Sinks { passed, dropped });
    }
}

impl TxQueue for WatchedTx {
    #[inline(always)]
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        if self.point.off() {
            return self.inner.tx_burst(packets);
        }
        self.watched(packets)
    }

    /// A capture needs packets, so frames are not taken directly.
    #[inline(always)]
    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        if self.point.off() { self.inner.tx_direct(frames) } else { None }
    }

    fn reclaim(&mut self) {
        if self.point.off() {
            return self.inner.reclaim();
        }
        self.reclaim_watched();
    }

    fn note_dropped(&mut self, packets: &[Packet], cause: &str) {
        if !self.point.off() {
            self.point.app_dropped(packets, now(), cause);
        }
    }

    fn path(&self) -> &'static str {
        self.inner.path()
    }
}

impl std::fmt::Debug for WatchedRx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WatchedRx").field(&self.path()).finish()
    }
}

impl std::fmt::Debug for WatchedTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WatchedTx").field(&self.path()).finish()
    }
}
