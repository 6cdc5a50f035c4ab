//! Queues that can be watched: another queue's, with a [`Point`] in front.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use linecard_mempool::{Burst, Packet};

use super::point::{Mailbox, Point, Sinks, telling};
use crate::port::{RxQueue, TxQueue};

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) struct Rx {
    inner: Box<dyn RxQueue>,
    point: Point,
}

impl Rx {
    pub(super) fn new(inner: Box<dyn RxQueue>, mailbox: &Arc<Mailbox>) -> Self {
        Self { inner, point: Point::new(Arc::clone(mailbox)) }
    }

    #[cold]
    fn watched(&mut self, packets: &mut Burst) -> usize {
        self.point.pick_up();
        let Some(Sinks { mut passed, dropped }) = self.point.sinks.take() else {
            return self.inner.rx_burst(packets);
        };
        let (before, time) = (packets.len(), now());
        let (count, dropped) = telling(dropped, time, || self.inner.rx_burst(packets));
        passed.prepare(&packets[before..], time).publish(count);
        self.point.sinks = dropped.map(|dropped| Sinks { passed, dropped });
        count
    }
}

impl RxQueue for Rx {
    #[inline]
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        if self.point.off() {
            return self.inner.rx_burst(packets);
        }
        self.watched(packets)
    }

    fn path(&self) -> &'static str {
        self.inner.path()
    }
}

pub(super) struct Tx {
    inner: Box<dyn TxQueue>,
    point: Point,
}

impl Tx {
    pub(super) fn new(inner: Box<dyn TxQueue>, mailbox: &Arc<Mailbox>) -> Self {
        Self { inner, point: Point::new(Arc::clone(mailbox)) }
    }

    #[cold]
    fn watched(&mut self, packets: &mut Burst) -> usize {
        self.point.pick_up();
        let time = now();
        let Some(Sinks { mut passed, dropped }) = self.point.sinks.take() else {
            return self.inner.tx_burst(packets);
        };
        // Copied before: what is taken may be gone at once.
        let copied = passed.prepare(packets, time);
        let (count, dropped) = telling(dropped, time, || self.inner.tx_burst(packets));
        copied.publish(count);
        self.point.sinks = dropped.map(|dropped| Sinks { passed, dropped });
        count
    }
}

impl TxQueue for Tx {
    #[inline]
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        if self.point.off() {
            return self.inner.tx_burst(packets);
        }
        self.watched(packets)
    }

    fn reclaim(&mut self) {
        if !self.point.off() {
            // Also where nobody sends any more, rings come and go.
            self.point.pick_up();
        }
        self.inner.reclaim();
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
