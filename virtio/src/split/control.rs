//! A control queue on a split ring: every request is a chain from descriptor 0 on.

use super::ring::Ring;
use crate::control::{ID, InFlight, check};
use crate::error::Error;
use crate::event::PublishedCount;
use crate::fault::PeerFault;
use crate::layout::{F_NEXT, F_WRITE, RingMemory};
use crate::queue::Element;
use crate::suppression::split_wants;
use crate::sync::{Acquire, Relaxed, Release, full_fence};

/// See [`ControlQueue`](crate::ControlQueue).
pub(crate) struct SplitControl {
    ring: Ring,
    /// The available index: the number of requests submitted.
    avail: u16,
    /// The used index: the number of requests answered.
    used: u16,
    event_idx: bool,
}

impl SplitControl {
    pub(crate) fn new(memory: &RingMemory, size: u16, event_idx: bool) -> Result<Self, Error> {
        Ok(Self { ring: Ring::new(memory, size)?, avail: 0, used: 0, event_idx })
    }

    /// Makes a chain available. The caller ensures that none is in flight and that the ring has room.
    pub(crate) fn submit(&mut self, command: &[Element], answer: Element) {
        let elements = command.iter().map(|element| (*element, F_NEXT)).chain([(answer, F_WRITE)]);
        for ((element, flags), id) in elements.zip(ID..) {
            let Some([addr, meta]) = self.ring.desc(id) else { return };
            addr.store(element.addr, Relaxed);
            let next = if flags & F_NEXT == 0 { 0 } else { id + 1 };
            meta.store(u64::from(element.len) | u64::from(flags) << 32 | u64::from(next) << 48, Relaxed);
        }
        self.ring.avail(usize::from(self.avail)).store(ID, Relaxed);
        self.avail = self.avail.wrapping_add(1);
        // Requests a notification for the answer to this request.
        self.ring.used_event.store(self.used, Relaxed);
        // D1, pairs with the device's acquire load of avail.idx: the chain and the event before it are
        // visible.
        self.ring.avail_idx.store(self.avail, Release);
    }

    pub(crate) fn kick_needed(&self) -> bool {
        // N1, pairs with N2 in the device's `set_notifications`: avail.idx is visible before flags or
        // avail_event are read.
        full_fence();
        // One request was published since the last decision, because the previous one has been answered.
        let (flags, event) = (self.ring.used_flags, self.ring.avail_event);
        split_wants(PublishedCount::of(1), self.avail, self.event_idx, flags, event)
    }

    pub(crate) fn answered(&mut self, in_flight: Option<InFlight>) -> Result<Option<u32>, PeerFault> {
        // A1, pairs with the device's release store of used.idx: the element before it is visible.
        let to = self.ring.used_idx.load(Acquire);
        let asked = u16::from(in_flight.is_some());
        match to.wrapping_sub(self.used) {
            0 => return Ok(None),
            moved if moved > asked => {
                return Err(PeerFault::UsedJump { from: self.used, to, in_flight: asked });
            }
            _ => {}
        }
        let [id, len] = self.ring.used(usize::from(self.used));
        let len = check(id.load(Relaxed), len.load(Relaxed), self.ring.size(), in_flight)?;
        self.used = to;
        Ok(Some(len))
    }
}

impl core::fmt::Debug for SplitControl {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SplitControl").field("avail", &self.avail).field("used", &self.used).finish()
    }
}
