//! Whether a backend has to be woken, asked without a fence per burst.
//!
//! After publishing, a driver has to look whether the device sleeps, and between the two belongs a full fence: without
//! it both could look too early, and the device would sleep on full rings. The fence waits for every store of the
//! burst to reach the other core. A device that polls is therefore only given a glance; the real question is owed,
//! and asked by whoever comes next with nothing better to do: the receive queue of the pair when it finds nothing,
//! the transmit queue's `reclaim`, and the control thread within a [`TICK`] (see [`owed`](crate::owed)). A glance that was out of date so costs
//! a moment, and never a lost wake-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use linecard_eal::shared::Shared;
use linecard_virtio::{Layout, RingMemory};

use crate::kick::Kick;
use crate::owed::Notice;

/// Longest time that a question is owed.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The question that one transmit ring may owe its backend.
#[derive(Debug)]
pub(crate) struct Doorbell {
    owed: AtomicBool,
    /// The backend's suppression flags: `used.flags`, or those of the device event suppression structure.
    flags: Shared<u16>,
    kick: Arc<Kick>,
    notice: Arc<Notice>,
}

impl Doorbell {
    /// For a ring that stays mapped as long as the doorbell is used.
    pub(crate) fn new(
        ring: &RingMemory,
        layout: Layout,
        kick: Arc<Kick>,
        notice: Arc<Notice>,
    ) -> Option<Self> {
        let at = match layout {
            Layout::Split => 0,
            Layout::Packed => 2,
        };
        Some(Self { owed: AtomicBool::new(false), flags: ring.device.cell(at)?, kick, notice })
    }

    /// Wakes the backend.
    #[inline]
    pub(crate) fn ring(&self) {
        self.kick.signal();
    }

    /// Something was published, and the backend seemed to be polling.
    #[inline(always)]
    pub(crate) fn owe(&self) {
        // Release: who sees the debt sees what was published before it.
        self.owed.store(true, Ordering::Release);
        self.notice.give();
    }

    /// Whether a question is owed.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed)
    }

    /// Asks what is owed. Any thread.
    #[inline(always)]
    pub(crate) fn settle(&self) {
        if self.owed.load(Ordering::Relaxed) {
            self.ask();
        }
    }

    #[cold]
    #[inline(never)]
    fn ask(&self) {
        /// `VRING_USED_F_NO_NOTIFY` of a split ring, `RING_EVENT_FLAGS_DISABLE` of a packed one.
        const QUIET: u16 = 1;
        if !self.owed.swap(false, Ordering::AcqRel) {
            return;
        }
        // K1, pairs with the device's fence between enabling notifications and looking for buffers (virtio 1.3,
        // Available Buffer Notification Suppression): what was published is visible before the flags are read.
        fence(Ordering::SeqCst);
        if self.flags.load(Ordering::Relaxed) & 3 != QUIET {
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

    #[test]
    fn asks_once_and_only_a_sleeper_is_woken() {
        for (layout, at) in [(Layout::Split, 0), (Layout::Packed, 2)] {
            let mut zone = vec![0_u128; layout.bytes(8) / 16];
            let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).expect("not null");
            // SAFETY: `zone` outlives every handle and is reached through them alone.
            let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
            let ring = RingMemory::in_zone(bytes, layout, 8).expect("a ring");
            let notifications = Arc::<Notifications>::default();
            let kick = Arc::new(Kick::new(EventFd::new().expect("an eventfd"), &notifications));
            let doorbell = Doorbell::new(&ring, layout, kick.clone(), Arc::default()).expect("flags");
            let flags = ring.device.cell::<u16>(at).expect("flags");
            doorbell.settle();
            assert!(!kicked(&kick), "nothing is owed");
            flags.store(1, Ordering::Relaxed);
            doorbell.owe();
            doorbell.settle();
            assert!(!kicked(&kick), "it polls");
            doorbell.owe();
            flags.store(0, Ordering::Relaxed);
            doorbell.settle();
            assert!(kicked(&kick), "it sleeps");
            doorbell.settle();
            assert!(!kicked(&kick), "once is enough");
            assert_eq!(notifications.sent(), 1);
            notifications.reset();
            assert_eq!(notifications.sent(), 0);
        }
    }
}
