//! Collecting completions from a split ring: by id, or by position if the device keeps the order.

use core::mem::MaybeUninit;

use super::{Batch, Driver};
use crate::fault::PeerFault;
use crate::queue::Completion;
use crate::slot::InFlightEntry;
use crate::sync::Relaxed;

impl<const IN_ORDER: bool, const WRITABLE: bool> Driver<IN_ORDER, WRITABLE> {
    /// Collects completions by id, up to the first entry that is not a valid completion of a one-descriptor
    /// buffer.
    #[inline]
    pub(super) fn complete_by_id(&mut self, out: &mut [MaybeUninit<Completion>]) -> usize {
        // Atomic accesses make the compiler reload fields, so the loop uses local copies.
        let (ring, used, given) = (self.ring, usize::from(self.used), usize::from(self.given));
        let (slots, ids, mut taken) = (&mut *self.slots, &mut *self.ids, 0);
        for done in out {
            let [id_cell, len_cell] = ring.used(used + taken);
            let id = id_cell.load(Relaxed) as usize;
            let len = if WRITABLE { len_cell.load(Relaxed) } else { 0 };
            if id > ring.mask {
                break;
            }
            // MEASURED: this loop: see `Driver::id_at` and `Ring::desc_unchecked`.
            // SAFETY: `slots` has `size = mask + 1` entries.
            let slot = unsafe { slots.get_unchecked_mut(id) };
            if slot.descs != 1 || WRITABLE && len > slot.lent {
                break;
            }
            slot.descs = 0;
            // SAFETY: `ids` has `size` entries and the masked index is at most `size - 1`.
            *unsafe { ids.get_unchecked_mut((given + taken) & ring.mask) } = id as u16;
            done.write(Completion { token: slot.token, len });
            taken += 1;
        }
        (self.used, self.given) = ((used + taken) as u16, (given + taken) as u16);
        taken
    }

    /// Collects the next completion by id, of any kind.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_odd(&mut self, done: &mut MaybeUninit<Completion>) -> Result<(), PeerFault> {
        let [id, len] = self.ring.used(usize::from(self.used)).map(|cell| cell.load(Relaxed));
        let (completion, descs) = self.slots.finish::<WRITABLE>(id, len)?;
        self.give_chain(id as u16, descs);
        self.used = self.used.wrapping_add(1);
        done.write(completion);
        Ok(())
    }

    /// Returns the `descs` ids of a direct chain to the FIFO.
    fn give_chain(&mut self, head: u16, descs: u16) {
        let mut id = head;
        for _ in 0..descs {
            self.give(usize::from(self.given), id);
            self.given = self.given.wrapping_add(1);
            id = self.next.get(usize::from(id)).copied().unwrap_or(0);
        }
    }

    /// Collects completions by position, up to the first entry that is not a valid completion of a
    /// one-descriptor buffer. As the device keeps the order, its elements are needed only for lengths.
    #[inline]
    pub(super) fn complete_in_order(&mut self, out: &mut [MaybeUninit<Completion>]) -> usize {
        if WRITABLE && self.batch.left > 0 {
            return 0;
        }
        let (ring, used, given) = (self.ring, usize::from(self.used), usize::from(self.given));
        let (slots, mut taken) = (&mut *self.slots, 0);
        for done in out {
            let head = (given + taken) & ring.mask;
            // MEASURED: see `Driver::id_at`.
            // SAFETY: `slots` has `size = mask + 1` entries.
            let slot = unsafe { slots.get_unchecked_mut(head) };
            let mut len = 0;
            if WRITABLE {
                let [id_cell, len_cell] = ring.used(used + taken);
                len = len_cell.load(Relaxed);
                if id_cell.load(Relaxed) != head as u32 || len > slot.lent {
                    break;
                }
            }
            if slot.descs != 1 {
                break;
            }
            done.write(Completion { token: slot.token, len });
            taken += 1;
        }
        (self.used, self.given) = ((used + taken) as u16, (given + taken) as u16);
        taken
    }

    /// Collects the next completion by position, of any kind.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_odd_in_order(
        &mut self,
        done: &mut MaybeUninit<Completion>,
    ) -> Result<(), PeerFault> {
        let head = usize::from(self.given) & self.ring.mask;
        let InFlightEntry { token, lent, descs } = *self.slot(head);
        let len = if WRITABLE { self.length_in_order(head, lent)? } else { 0 };
        self.given = self.given.wrapping_add(descs as u16);
        self.used = self.used.wrapping_add(1);
        done.write(Completion { token, len });
        Ok(())
    }

    /// The bytes written into the next buffer. A device may write one used element for several buffers, of
    /// which only the last may be partly used. (virtio 1.3, In-order use of descriptors.)
    fn length_in_order(&mut self, head: usize, lent: u32) -> Result<u32, PeerFault> {
        if self.batch.left == 0 {
            let [id, len] = self.ring.used(usize::from(self.used)).map(|cell| cell.load(Relaxed));
            if id == head as u32 {
                return if len <= lent { Ok(len) } else { Err(PeerFault::UsedLen { len, lent }) };
            }
            self.start_batch(id, len)?;
        }
        self.batch.left -= 1;
        Ok(if self.batch.left > 0 { lent } else { self.batch.len })
    }

    /// Finds the buffer that a used element names among those known to be used, and starts a batch that ends
    /// with it.
    fn start_batch(&mut self, id: u32, len: u32) -> Result<(), PeerFault> {
        let (mut position, mut left) = (self.given, 0);
        let window = self.used_seen.wrapping_sub(self.used);
        while left < window {
            let at = usize::from(position) & self.ring.mask;
            let slot = *self.slot(at);
            if at as u32 == id {
                if len > slot.lent {
                    return Err(PeerFault::UsedLen { len, lent: slot.lent });
                }
                self.batch = Batch { left: left + 1, len };
                return Ok(());
            }
            position = position.wrapping_add(slot.descs as u16);
            left += 1;
        }
        Err(PeerFault::UnknownId { id, size: self.ring.size() })
    }
}
