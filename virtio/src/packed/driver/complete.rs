//! Collecting completions from a packed ring: by id, or by position if the device keeps the order.

use core::mem::MaybeUninit;

use super::{Batch, Driver};
use crate::fault::PeerFault;
use crate::packed::ring::{RingPosition, phase_of};
use crate::queue::Completion;
use crate::slot::InFlightEntry;
use crate::sync::Acquire;

impl<const IN_ORDER: bool, const WRITABLE: bool> Driver<IN_ORDER, WRITABLE> {
    /// The used descriptor at `used`, if the device has written one: its id and length, read once.
    #[inline(always)]
    pub(super) fn peek_used(&self) -> Option<(u16, u32)> {
        self.used_at(self.used)
    }

    /// The used descriptor at `place`, if the device has written one.
    #[inline(always)]
    pub(super) fn used_at(&self, place: RingPosition) -> Option<(u16, u32)> {
        let [_, cell] = self.ring.desc(place);
        // T1, pairs with the device's release store of the first used descriptor of a burst.
        let meta = cell.load(Acquire);
        (phase_of(meta) == place.used()).then_some(((meta >> 32) as u16, meta as u32))
    }

    /// Collects completions by id, up to the end of the lap or the first entry that is not a valid completion
    /// of a one-descriptor buffer.
    #[inline]
    pub(super) fn complete_by_id(&mut self, out: &mut [MaybeUninit<Completion>]) -> usize {
        // Atomic accesses make the compiler reload fields, so the loop uses local copies.
        let (ring, size, slot0) = (self.ring, usize::from(self.ring.size()), usize::from(self.used.slot()));
        let (phase, free_ids) = (self.used.used(), usize::from(self.fill.free_ids));
        let (slots, ids, mut taken) = (&mut *self.slots, &mut *self.ids, 0);
        for done in out.iter_mut().take(self.used.run(size as u16)) {
            // MEASURED: this loop: see `Driver::take_id` and `Ring::desc_unchecked`.
            // SAFETY: `slot0 + taken` stays below the end of the lap.
            let [_, cell] = unsafe { ring.desc_unchecked(slot0 + taken) };
            // T1, pairs with the device's release store of the first used descriptor of a burst.
            let meta = cell.load(Acquire);
            let (id, len) = (usize::from((meta >> 32) as u16), meta as u32);
            if phase_of(meta) != phase || id >= size {
                break;
            }
            // SAFETY: `slots` has `size` entries.
            let slot = unsafe { slots.get_unchecked_mut(id) };
            if slot.descs != 1 || WRITABLE && len > slot.lent {
                break;
            }
            slot.descs = 0;
            // SAFETY: `ids` has `size` entries; each of the `taken` ids was in flight, so with this one at
            // most `size` are free.
            *unsafe { ids.get_unchecked_mut(free_ids + taken) } = id as u16;
            done.write(Completion { token: slot.token, len: if WRITABLE { len } else { 0 } });
            taken += 1;
        }
        self.fill.free_ids = (free_ids + taken) as u16;
        self.retire(taken as u16);
        taken
    }

    /// Collects the next completion by id, of any kind. Returns false if there is none.
    #[inline(never)]
    pub(super) fn complete_odd(&mut self, done: &mut MaybeUninit<Completion>) -> Result<bool, PeerFault> {
        let Some((id, len)) = self.peek_used() else { return Ok(false) };
        let (completion, descs) = self.slots.finish::<WRITABLE>(u32::from(id), len)?;
        self.retire(descs);
        self.give_id(id);
        done.write(completion);
        Ok(true)
    }

    /// Frees `descs` more slots.
    #[inline(always)]
    pub(super) fn retire(&mut self, descs: u16) {
        self.used = self.used.forward(descs, self.ring.size());
        self.fill.free = self.fill.free.wrapping_add(descs);
    }

    /// Collects completions by position, up to the end of the lap or the first entry that is not a valid
    /// completion of a one-descriptor buffer. [`Self::complete_odd_in_order`] handles the used descriptors of
    /// batches.
    #[inline]
    pub(super) fn complete_in_order(&mut self, out: &mut [MaybeUninit<Completion>]) -> usize {
        let (ring, size, slot0) = (self.ring, self.ring.size(), usize::from(self.used.slot()));
        let run = self.used.run(size);
        // In an open batch, all buffers except the last are full.
        let (batch, run) = match self.batch {
            Some(batch) => (true, run.min(usize::from(self.used.distance(batch.last, size)))),
            None => (false, run),
        };
        let (phase, in_flight, slots, mut taken) =
            (self.used.used(), usize::from(size.wrapping_sub(self.fill.free)), &*self.slots, 0);
        for done in out.iter_mut().take(run.min(in_flight)) {
            let at = slot0 + taken;
            // MEASURED: this loop: see `Driver::take_id` and `Ring::desc_unchecked`.
            // SAFETY: `at` stays below the end of the lap and `slots` has `size` entries.
            let slot = unsafe { slots.get_unchecked(at) };
            let mut len = slot.lent;
            if !batch {
                // SAFETY: `at` stays below the end of the lap, and the ring has `size` descriptors.
                let [_, cell] = unsafe { ring.desc_unchecked(at) };
                // T1, pairs with the device's release store of the first used descriptor of a burst.
                let meta = cell.load(Acquire);
                len = meta as u32;
                if phase_of(meta) != phase
                    || usize::from((meta >> 32) as u16) != at
                    || WRITABLE && len > slot.lent
                {
                    break;
                }
            }
            if slot.descs != 1 {
                break;
            }
            done.write(Completion { token: slot.token, len: if WRITABLE { len } else { 0 } });
            taken += 1;
        }
        self.retire(taken as u16);
        taken
    }

    /// Collects the next completion by position, of any kind. Returns false if there is none.
    #[inline(never)]
    pub(super) fn complete_odd_in_order(
        &mut self,
        done: &mut MaybeUninit<Completion>,
    ) -> Result<bool, PeerFault> {
        let batch = match self.batch {
            Some(batch) => batch,
            None => match self.next_batch()? {
                Some(batch) => batch,
                None => return Ok(false),
            },
        };
        let head = self.used.slot();
        let InFlightEntry { token, lent, descs } = *self.slot(head);
        let last = head == batch.last;
        let len = match (WRITABLE, last) {
            (false, _) => 0,
            (true, false) => lent,
            (true, true) => batch.len,
        };
        self.batch = if last { None } else { Some(batch) };
        self.retire(descs as u16);
        done.write(Completion { token, len });
        Ok(true)
    }

    /// The batch that the next used descriptor ends, if there is one. Checks its id and length.
    #[inline(always)]
    fn next_batch(&mut self) -> Result<Option<Batch>, PeerFault> {
        let Some((last, len)) = self.peek_used() else { return Ok(None) };
        let size = self.ring.size();
        // An entry of an earlier lap may be there, which is not in flight.
        if last >= size || self.used.distance(last, size) >= size.wrapping_sub(self.fill.free) {
            return Err(PeerFault::UnknownId { id: u32::from(last), size });
        }
        self.slots.named::<WRITABLE>(u32::from(last), len)?;
        Ok(Some(Batch { last, len }))
    }
}
