//! A control queue on a packed ring: every request is a chain from the driver's position on.

use super::ring::{Ring, RingPosition, meta, phase_of};
use crate::control::{ID, InFlight, MAX_DESCRIPTORS, check};
use crate::error::Error;
use crate::fault::PeerFault;
use crate::layout::{EVENT_DISABLE, F_NEXT, F_WRITE, Layout, RingMemory};
use crate::queue::Element;
use crate::sync::{Acquire, Relaxed, Release, full_fence};

/// Position and wrap counter of an unused ring.
const START: u16 = 0x8000;

/// See [`ControlQueue`](crate::ControlQueue).
pub(crate) struct PackedControl {
    ring: Ring,
    /// The position of the next chain, or of the one in flight.
    place: RingPosition,
}

impl PackedControl {
    pub(crate) fn new(memory: &RingMemory, size: u16) -> Result<Self, Error> {
        let ring = Ring::new(memory, size)?;
        let unfit = Error::Size { layout: Layout::Packed, asked: u32::from(size) };
        let place = RingPosition::start(START, size).ok_or(unfit)?;
        Ok(Self { ring, place })
    }

    /// Makes a chain available. The caller ensures that none is in flight and that the ring has room.
    pub(crate) fn submit(&mut self, command: &[Element], answer: Element) {
        let elements = command.iter().map(|element| (*element, F_NEXT)).chain([(answer, F_WRITE)]);
        let mut place = self.place;
        let mut words = [None; MAX_DESCRIPTORS];
        for ((element, flags), word) in elements.zip(&mut words) {
            let [addr, cell] = self.ring.desc(place);
            addr.store(element.addr, Relaxed);
            *word = Some((cell, meta(element.len, ID, flags | place.available())));
            place = place.next(self.ring.size());
        }
        // The head is written last: it makes the whole chain available.
        let mut words = words.into_iter().flatten();
        let head = words.next();
        for (cell, word) in words {
            cell.store(word, Relaxed);
        }
        if let Some((cell, word)) = head {
            // T1, pairs with the device's acquire load of this word: the chain after it is visible.
            cell.store(word, Release);
        }
    }

    pub(crate) fn kick_needed(&self) -> bool {
        // N1, pairs with N2 in the device's `set_notifications`: the chain is visible before its event area
        // is read.
        full_fence();
        (self.ring.device_event.load(Relaxed) >> 16) as u16 & 3 != EVENT_DISABLE
    }

    pub(crate) fn answered(&mut self, in_flight: Option<InFlight>) -> Result<Option<u32>, PeerFault> {
        // Without a request, the descriptor at the position has old or arbitrary contents and is ignored.
        let Some(request) = in_flight else { return Ok(None) };
        let [_, cell] = self.ring.desc(self.place);
        // A1, pairs with the device's release store of this word: the answer before it is visible.
        let word = cell.load(Acquire);
        if phase_of(word) != self.place.used() {
            return Ok(None);
        }
        let (len, id) = (word as u32, (word >> 32) as u16);
        let len = check(u32::from(id), len, self.ring.size(), in_flight)?;
        self.place = self.place.forward(request.descs, self.ring.size());
        Ok(Some(len))
    }
}

impl core::fmt::Debug for PackedControl {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PackedControl").field("place", &self.place).finish()
    }
}
