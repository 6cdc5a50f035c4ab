//! The time for which the control thread may sleep while checks can be deferred.
//!
//! A sender leaves its check deferred (see [`doorbell`](crate::doorbell)) and may not use the port again, so
//! that only the control thread remains to make it. The control thread wakes every [`TICK`] while there is
//! traffic. After a tick without traffic it sleeps without a limit, until the next deferred check wakes it.

use std::sync::Arc;
use std::time::Instant;

use linecard_eal::wake::Request;

use crate::backend::Waiter;
use crate::doorbell::{Doorbell, TICK};
use crate::thread::after;

/// The notice with which a transmit queue wakes the control thread after deferring a check, if requested.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    request: Request,
    /// `None` without a control thread, as in tests of the data path.
    waiter: Option<Arc<Waiter>>,
}

impl Notice {
    /// Creates a notice for the thread that waits with `waiter`.
    pub(crate) fn to(waiter: Arc<Waiter>) -> Self {
        Self { request: Request::new(), waiter: Some(waiter) }
    }

    /// Reports that a check is deferred.
    #[inline(always)]
    pub(crate) fn give(&self) {
        if self.request.take() {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        self.waiter.iter().for_each(|waiter| waiter.notify());
    }
}

/// The times at which the control thread makes deferred checks.
#[derive(Debug)]
pub(crate) struct Watch {
    notice: Arc<Notice>,
    doorbells: Vec<Arc<Doorbell>>,
    /// The end of this tick; `None` while the thread sleeps without a limit.
    until: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(notice: Arc<Notice>, doorbells: Vec<Arc<Doorbell>>) -> Self {
        Self { notice, doorbells, until: None }
    }

    /// Makes the checks that were deferred for a tick. Returns until when the thread may sleep.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.until.is_some_and(|until| now < until) {
            return self.until;
        }
        if self.until.is_none() && self.notice.request.is_asked() {
            // Nothing was deferred since the request. Another one would interrupt the pollers, whenever the backend
            // wakes this thread.
            return None;
        }
        let told = self.until.is_none();
        self.doorbells.iter().for_each(|doorbell| doorbell.settle());
        // A check was deferred since the thread went to sleep, so there is traffic.
        if !told {
            self.notice.request.ask();
        }
        let traffic = told || self.doorbells.iter().any(|doorbell| doorbell.is_owed());
        if traffic {
            self.notice.request.withdraw();
        }
        self.until = traffic.then(|| after(TICK));
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use crate::kick::Kick;
    use linecard_eal::eventfd::EventFd;
    use linecard_eal::shared::SharedBytes;
    use linecard_virtio::{DeviceSuppression, Layout, RingMemory, Unasked};

    use super::*;
    use crate::backend::Ready;
    use crate::thread::ControlThread;

    #[test]
    fn sleeps_for_good_and_is_told() {
        let mut zone = vec![0_u128; Layout::Split.bytes(8) / 16];
        let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).expect("not null");
        // SAFETY: `zone` outlives every handle and is reached through them alone.
        let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
        let ring = RingMemory::in_zone(bytes, Layout::Split, 8).expect("a ring");
        let thread = ControlThread::start("owed").expect("a thread");
        let waiter = thread.waiter();
        let kick = Arc::new(Kick::new(EventFd::new().expect("an eventfd"), &Arc::default()));
        let notice = Arc::new(Notice::to(waiter.clone()));
        let suppression = DeviceSuppression::new(&ring, Layout::Split, 8, false).expect("a ring");
        let doorbell = Arc::new(Doorbell::new(suppression, kick, notice.clone()));
        ring.device.cell::<u16>(0).expect("flags").store(1, Ordering::Relaxed);
        let mut watch = Watch::new(notice, vec![doorbell.clone()]);

        let now = Instant::now();
        let first = watch.deadline(now).expect("it looks again after a tick");
        assert_eq!(watch.deadline(now), Some(first), "and not before");
        assert_eq!(watch.deadline(first), None, "nothing was owed: it sleeps for good");
        assert_eq!(watch.deadline(first), None, "whatever else wakes it");

        doorbell.owe(Unasked::from_bits(1));
        waiter.wait(None, Ready::Read, Some(after(Duration::from_secs(60))));
        assert!(now.elapsed() < Duration::from_secs(60), "it is told");
        let second = watch.deadline(Instant::now()).expect("there is traffic");
        assert!(!doorbell.is_owed(), "what is owed is asked");
        doorbell.owe(Unasked::from_bits(1));
        assert!(watch.deadline(second).is_none(), "owed before the end of the tick, and asked at it");
        doorbell.owe(Unasked::from_bits(1));
        assert!(watch.deadline(second).is_some(), "told anew");
    }
}
