//! Decides whether to wake the backend, without a fence per burst.
//!
//! After publishing, a driver must check whether the device sleeps, with a full fence between the two.
//! Without the fence, both sides could check too early, and the device would sleep on full rings. The fence
//! waits until every store of the burst has reached the other core. For a device that seems to poll, the
//! check is therefore deferred. It is made by whichever of these is idle first: the pair's receive queue when
//! it finds no packets, the transmit queue's `reclaim`, or the control thread within a [`TICK`] (see
//! [`owed`](crate::owed)). A stale hint thus costs a short delay, but never a lost wake-up.
//!
//! The deferred check is one word ([`Unasked`]): how much was published since the queue itself last checked,
//! and up to which index. With an event index (`VIRTIO_F_RING_EVENT_IDX`) both decide whether to wake the
//! device. A check by the queue itself covers everything that was deferred before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linecard_virtio::{DeviceSuppression, Unasked};

use crate::kick::Kick;
use crate::owed::Notice;

/// The longest time for which a check is deferred.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The deferred check of one transmit ring.
#[derive(Debug)]
pub(crate) struct Doorbell {
    /// An [`Unasked`] as a word; 0 when no check is deferred.
    owed: AtomicU64,
    /// The backend's state of notification suppression.
    suppression: DeviceSuppression,
    kick: Arc<Kick>,
    notice: Arc<Notice>,
}

impl Doorbell {
    /// Creates the doorbell of a ring, which must stay mapped while the doorbell is used.
    pub(crate) fn new(suppression: DeviceSuppression, kick: Arc<Kick>, notice: Arc<Notice>) -> Self {
        Self { owed: AtomicU64::new(0), suppression, kick, notice }
    }

    /// Wakes the backend.
    #[inline]
    pub(crate) fn ring(&self) {
        self.kick.signal();
    }

    /// Defers the check: something was published, and the backend seemed to be polling.
    #[inline(always)]
    pub(crate) fn owe(&self, unasked: Unasked) {
        // Release: a thread that sees the deferred check also sees what was published before it.
        self.owed.store(unasked.bits(), Ordering::Release);
        self.notice.give();
    }

    /// Returns whether a check is deferred.
    #[inline(always)]
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed) != 0
    }

    /// Makes the deferred check, if any. Callable from any thread.
    #[inline(always)]
    pub(crate) fn settle(&self) {
        if self.is_owed() {
            self.ask();
        }
    }

    #[cold]
    #[inline(never)]
    fn ask(&self) {
        let unasked = Unasked::from_bits(self.owed.swap(0, Ordering::AcqRel));
        // Another thread may have made the check meanwhile.
        if unasked != Unasked::default() && self.suppression.kick_needed(unasked) {
            self.kick.signal();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kick::Notifications;
    use linecard_eal::eventfd::EventFd;
    use linecard_eal::shared::SharedBytes;
    use linecard_virtio::{
        Buffer, DeviceConfig, DeviceQueue, DriverConfig, DriverQueue, Layout, RingMemory, packed, split,
    };
    use std::os::fd::AsFd;
    use std::ptr::NonNull;

    fn kicked(kick: &Kick) -> bool {
        use std::os::fd::AsRawFd;
        let mut set =
            [crate::sys::pollfd(Some(kick.event().as_fd().as_raw_fd()), crate::backend::Ready::Read)];
        crate::sys::poll(&mut set, Some(Duration::ZERO));
        kick.event().drain();
        set[0].revents != 0
    }

    /// Publishes one buffer, and defers the check for it.
    fn owe(driver: &mut impl DriverQueue, doorbell: &Doorbell) {
        driver.add(Buffer { addr: 0x1000, len: 60, token: 64 }).expect("room");
        driver.publish();
        doorbell.owe(driver.unasked().expect("it polls"));
    }

    fn asked_once<D: DriverQueue, V: DeviceQueue>(
        (mut driver, mut device): (D, V),
        doorbell: &Doorbell,
        notifications: &Notifications,
        event_idx: bool,
    ) {
        let kick = &doorbell.kick;
        doorbell.settle();
        assert!(!kicked(kick), "nothing is owed");
        owe(&mut driver, doorbell);
        doorbell.settle();
        assert!(!kicked(kick), "it polls");
        owe(&mut driver, doorbell);
        device.set_notifications(true);
        doorbell.settle();
        assert!(kicked(kick), "it sleeps");
        doorbell.settle();
        assert!(!kicked(kick), "once is enough");
        assert!(driver.kick_needed(), "the queue itself has not asked");
        driver.add(Buffer { addr: 0x1000, len: 60, token: 64 }).expect("room");
        driver.publish();
        // A flag says "always"; an event was passed once.
        assert_eq!(driver.unasked().is_some(), event_idx);
        if let Some(unasked) = driver.unasked() {
            doorbell.owe(unasked);
            doorbell.settle();
            assert!(!kicked(kick), "it is on its way");
        }
        assert_eq!(notifications.sent(), 1);
        notifications.reset();
        assert_eq!(notifications.sent(), 0);
    }

    #[test]
    fn asks_once_and_only_a_sleeper_is_woken() {
        for (layout, event_idx) in
            [Layout::Split, Layout::Packed].into_iter().flat_map(|layout| [(layout, false), (layout, true)])
        {
            let mut zone = vec![0_u128; layout.bytes(8) / 16];
            let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).expect("not null");
            // SAFETY: `zone` outlives every handle and is reached through them alone.
            let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
            let ring = RingMemory::in_zone(bytes, layout, 8).expect("a ring");
            let notifications = Arc::<Notifications>::default();
            let kick = Arc::new(Kick::new(EventFd::new().expect("an eventfd"), &notifications));
            let suppression = DeviceSuppression::new(&ring, layout, 8, event_idx).expect("a ring");
            let doorbell = Doorbell::new(suppression, kick, Arc::default());
            let driver = DriverConfig::default().size(8).event_idx(event_idx);
            let device = DeviceConfig::default().size(8).event_idx(event_idx);
            macro_rules! halves {
                ($module:ident) => {
                    (
                        $module::Driver::<false, false>::new(&ring, driver).expect("a ring"),
                        $module::Device::<false, false>::new(&ring, device).expect("a ring"),
                    )
                };
            }
            match layout {
                Layout::Split => asked_once(halves!(split), &doorbell, &notifications, event_idx),
                Layout::Packed => asked_once(halves!(packed), &doorbell, &notifications, event_idx),
            }
        }
    }
}
