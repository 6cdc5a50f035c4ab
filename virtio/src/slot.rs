//! The driver half's private record of each buffer in flight.

use core::ops::{Deref, DerefMut};

use crate::config::IndirectTables;
use crate::fault::PeerFault;
use crate::queue::{Completion, Element};
use crate::sync::Relaxed;

/// One buffer in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightEntry {
    /// The caller's token.
    pub(crate) token: u64,
    /// The length of the buffer in bytes.
    pub(crate) lent: u32,
    /// The ring slots that it occupies; 0 if nothing is in flight under this id.
    pub(crate) descs: u32,
}

impl InFlightEntry {
    /// The entry of an id that is not in flight.
    pub(crate) const FREE: InFlightEntry = InFlightEntry { token: 0, lent: 0, descs: 0 };

    /// Checks that a device may report `len` written bytes. On a readable queue the length has no meaning.
    fn check_len<const WRITABLE: bool>(&self, len: u32) -> Result<(), PeerFault> {
        let lent = self.lent;
        if WRITABLE && len > lent { Err(PeerFault::UsedLen { len, lent }) } else { Ok(()) }
    }
}

/// The buffers in flight of one queue: an entry for each descriptor of the ring, indexed by id, or by
/// position if the device keeps the order.
pub(crate) struct InFlight(Box<[InFlightEntry]>);

impl InFlight {
    /// An empty record for a ring of `size`.
    pub(crate) fn new(size: u16) -> Self {
        Self(vec![InFlightEntry::FREE; usize::from(size)].into())
    }

    /// The buffer that a device names, with its reported length checked.
    ///
    /// # Errors
    /// [`PeerFault::UnknownId`] if nothing is in flight under `id`, [`PeerFault::UsedLen`] if the buffer is
    /// shorter than `len`.
    pub(crate) fn named<const WRITABLE: bool>(
        &mut self,
        id: u32,
        len: u32,
    ) -> Result<&mut InFlightEntry, PeerFault> {
        let size = self.0.len() as u16;
        let unknown = PeerFault::UnknownId { id, size };
        let slot = self.0.get_mut(id as usize).filter(|slot| slot.descs > 0).ok_or(unknown)?;
        slot.check_len::<WRITABLE>(len)?;
        Ok(slot)
    }

    /// Removes the buffer that a device returned by id. Also returns the number of its ring slots.
    ///
    /// # Errors
    /// As [`InFlight::named`]; nothing is removed then.
    pub(crate) fn finish<const WRITABLE: bool>(
        &mut self,
        id: u32,
        len: u32,
    ) -> Result<(Completion, u16), PeerFault> {
        let slot = self.named::<WRITABLE>(id, len)?;
        let InFlightEntry { token, descs, .. } = core::mem::replace(slot, InFlightEntry::FREE);
        Ok((Completion { token, len: if WRITABLE { len } else { 0 } }, descs as u16))
    }

    /// Ends a queue that works by id: calls `f` with every token in flight.
    pub(crate) fn drain(self, f: &mut dyn FnMut(u64)) {
        self.0.iter().filter(|slot| slot.descs > 0).for_each(|slot| f(slot.token));
    }

    /// Ends a queue that works by position: calls `f` with every token in the `slots` ring slots from `first`
    /// on. Each entry tells how many slots its buffer occupies.
    pub(crate) fn drain_in_order(self, first: usize, slots: u16, f: &mut dyn FnMut(u64)) {
        let (mut at, mut left) = (first, u32::from(slots));
        while left > 0 {
            let InFlightEntry { token, descs, .. } = self.0[at % self.0.len()];
            debug_assert!((1..=left).contains(&descs));
            at += descs as usize;
            left = left.saturating_sub(descs.max(1));
            f(token);
        }
    }
}

impl Deref for InFlight {
    type Target = [InFlightEntry];
    #[inline(always)]
    fn deref(&self) -> &[InFlightEntry] {
        &self.0
    }
}

impl DerefMut for InFlight {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [InFlightEntry] {
        &mut self.0
    }
}

/// The bytes of a chain; `None` if it has no segments or more than 2³² − 1 bytes.
pub(crate) fn total(segments: &[Element]) -> Option<u32> {
    if segments.is_empty() {
        return None;
    }
    segments.iter().try_fold(0u32, |sum, s| sum.checked_add(s.len))
}

/// Returns the number of finished entries if there are any. A fault is reported only if nothing was finished
/// before it; it is found again then.
#[cold]
#[inline(never)]
pub(crate) fn done_or(done: usize, fault: PeerFault) -> Result<usize, PeerFault> {
    if done > 0 { Ok(done) } else { Err(fault) }
}

impl IndirectTables {
    /// Writes the descriptor at `index`, counted over all tables.
    pub(crate) fn write(&self, index: usize, addr: u64, meta: u64) {
        let Some(cells) = self.memory.cells::<u64>(index * 16, 2) else {
            debug_assert!(false, "indirect table entry {index} outside the memory checked at start");
            return;
        };
        for (k, word) in [addr, meta].into_iter().enumerate() {
            if let Some(cell) = cells.at(k) {
                cell.store(word, Relaxed);
            }
        }
    }
}
