//! The driver half of a packed ring.

use core::mem::MaybeUninit;

use super::ring::{Pending, Place, Ring, meta, turn_of, wish};
use crate::config::{DriverConfig, IndirectTables};
use crate::error::Error;
use crate::fault::PeerFault;
use crate::layout::{F_INDIRECT, F_NEXT, F_WRITE, RingMemory};
use crate::queue::{Buffer, Completion, DriverQueue, Segment};
use crate::slot::{Slot, stop, total};
use crate::sync::{Acquire, Relaxed, full_fence};

/// The driver half of a packed ring; see [`DriverQueue`]. Starts with interrupts off.
///
/// ```
/// # use core::ptr::NonNull;
/// # use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{packed, Buffer, DriverConfig, DriverQueue, Layout, RingMemory};
///
/// let mut zone = vec![0u128; Layout::Packed.bytes(6) / 16];
/// # let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` outlives the queue and nothing else touches it.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Packed, 6)?; // any size will do
/// let mut rx = packed::Driver::<false, true>::new(&ring, DriverConfig { size: 6, ..Default::default() })?;
/// assert!(rx.add(Buffer { addr: 0x1000, len: 2048, token: 1 }));
/// rx.publish();
/// assert_eq!(rx.free(), 5);
/// # Ok::<(), linecard_virtio::Error>(())
/// ```
pub struct Driver<const IN_ORDER: bool, const WRITABLE: bool> {
    ring: Ring,
    /// What was lent, by buffer id; when IN_ORDER the id is the slot of the head. Never read back from the ring.
    slots: Box<[Slot]>,
    /// Free buffer ids, a stack of `free_ids` entries; unused when IN_ORDER.
    ids: Box<[u16]>,
    free_ids: u16,
    /// Ring slots not in flight.
    free: u16,
    /// Where the next descriptor goes, and where the device writes the next used one.
    next: Place,
    used: Place,
    pending: Pending,
    /// IN_ORDER: the buffers up to this one were returned together.
    batch: Option<Batch>,
    event_idx: bool,
    indirect: Option<IndirectTables>,
}

/// The last buffer of a batch, and the bytes written into it; the ones before it are full.
#[derive(Clone, Copy)]
struct Batch {
    last: u16,
    len: u32,
}

impl<const IN_ORDER: bool, const WRITABLE: bool> Driver<IN_ORDER, WRITABLE> {
    /// `flags` of a direct descriptor that ends a chain, without the turn.
    const FLAGS: u16 = if WRITABLE { F_WRITE } else { 0 };

    /// A queue over `memory`; all descriptors are set to "used", as in a fresh ring.
    ///
    /// # Errors
    /// An [`Error`] that says which size, area, position or table does not fit.
    pub fn new(memory: &RingMemory, config: DriverConfig) -> Result<Self, Error> {
        let ring = Ring::new(memory, config.size)?;
        let (size, base) = (config.size, config.base.unwrap_or(0x8000));
        let next = Place::start(base as u16, size).ok_or(Error::Base { base, size })?;
        if let Some(tables) = &config.indirect {
            tables.check(size)?;
        }
        let mut place = next;
        for _ in 0..size {
            // What this slot looks like when the lap before ends: used, by the opposite wrap counter.
            let [_, cell] = ring.desc(place);
            cell.store(meta(0, 0, place.forward(size, size).used()), Relaxed);
            place = place.next(size);
        }
        let mut queue = Self {
            ring,
            slots: vec![Slot::FREE; usize::from(size)].into(),
            ids: (0..if IN_ORDER { 0 } else { size }).rev().collect(),
            free_ids: size,
            free: size,
            next,
            used: next,
            pending: Pending::new(next),
            batch: None,
            event_idx: config.event_idx,
            indirect: config.indirect,
        };
        queue.set_interrupts(false);
        Ok(queue)
    }

    /// An id for the buffer whose head goes to `next`. The caller has checked that a ring slot is free.
    #[inline(always)]
    fn take_id(&mut self) -> u16 {
        if IN_ORDER {
            return self.next.slot();
        }
        debug_assert!(self.free_ids > 0);
        self.free_ids = self.free_ids.wrapping_sub(1);
        // SAFETY: a buffer in flight has one id and at least one ring slot, so where a slot is free an id is:
        // 0 < free_ids <= size = ids.len() before the subtraction.
        unsafe { *self.ids.get_unchecked(usize::from(self.free_ids)) }
    }

    /// Takes back an id that was in flight.
    #[inline(always)]
    fn give_id(&mut self, id: u16) {
        let at = usize::from(self.free_ids);
        debug_assert!(at < self.ids.len());
        // SAFETY: the id was in flight (its slot said so), so fewer than `size` ids were free.
        *unsafe { self.ids.get_unchecked_mut(at) } = id;
        self.free_ids = self.free_ids.wrapping_add(1);
    }

    /// The slot of an id that is known to be below the ring size.
    #[inline(always)]
    fn slot(&mut self, id: u16) -> &mut Slot {
        debug_assert!(id < self.ring.size());
        // SAFETY: `slots` has `size` entries; ids come from `ids`, which only ever holds 0..size, from a `Place`, or
        // were compared with the size.
        unsafe { self.slots.get_unchecked_mut(usize::from(id)) }
    }

    /// The used descriptor at `used`, if the device has written one: id and length, read once.
    #[inline(always)]
    fn peek_used(&self) -> Option<(u16, u32)> {
        let [_, cell] = self.ring.desc(self.used);
        // T1, pairs with the device's release store of the first used descriptor of a burst.
        let meta = cell.load(Acquire);
        (turn_of(meta) == self.used.used()).then_some(((meta >> 32) as u16, meta as u32))
    }

    /// Takes completions by id, in whatever order they come.
    #[inline]
    fn complete_any(&mut self, out: &mut [MaybeUninit<Completion>]) -> Result<usize, PeerFault> {
        let size = self.ring.size();
        for (k, done) in out.iter_mut().enumerate() {
            let Some((id, len)) = self.peek_used() else { return Ok(k) };
            if id >= size {
                return stop(k, PeerFault::UnknownId { id: u32::from(id), size });
            }
            let slot = self.slot(id);
            let Slot { token, lent, descs } = *slot;
            if descs == 0 {
                return stop(k, PeerFault::UnknownId { id: u32::from(id), size });
            }
            if WRITABLE && len > lent {
                return stop(k, PeerFault::UsedLen { len, lent });
            }
            slot.descs = 0;
            self.retire(descs as u16);
            self.give_id(id);
            done.write(Completion { token, len: if WRITABLE { len } else { 0 } });
        }
        Ok(out.len())
    }

    /// The next used descriptor stood for `descs` slots.
    #[inline(always)]
    fn retire(&mut self, descs: u16) {
        let size = self.ring.size();
        self.used = if descs == 1 { self.used.next(size) } else { self.used.forward(descs, size) };
        self.free = self.free.wrapping_add(descs);
    }

    /// Takes completions by position: one used descriptor stands for every buffer up to the one it names.
    #[inline]
    fn complete_in_order(&mut self, out: &mut [MaybeUninit<Completion>]) -> Result<usize, PeerFault> {
        for (k, done) in out.iter_mut().enumerate() {
            let batch = match self.batch {
                Some(batch) => batch,
                None => match self.next_batch() {
                    Ok(Some(batch)) => batch,
                    Ok(None) => return Ok(k),
                    Err(fault) => return stop(k, fault),
                },
            };
            let head = self.used.slot();
            let Slot { token, lent, descs } = *self.slot(head);
            let last = head == batch.last;
            let len = match (WRITABLE, last) {
                (false, _) => 0,
                (true, false) => lent,
                (true, true) => batch.len,
            };
            self.batch = if last { None } else { Some(batch) };
            self.retire(descs as u16);
            done.write(Completion { token, len });
        }
        Ok(out.len())
    }

    /// The batch that the next used descriptor closes, if there is one and its id and length are possible.
    #[inline(always)]
    fn next_batch(&mut self) -> Result<Option<Batch>, PeerFault> {
        let Some((last, len)) = self.peek_used() else { return Ok(None) };
        let size = self.ring.size();
        let unknown = PeerFault::UnknownId { id: u32::from(last), size };
        if last >= size || self.used.distance(last, size) >= size.wrapping_sub(self.free) {
            return Err(unknown);
        }
        let Slot { lent, descs, .. } = *self.slot(last);
        if descs == 0 {
            return Err(unknown);
        }
        if WRITABLE && len > lent {
            return Err(PeerFault::UsedLen { len, lent });
        }
        Ok(Some(Batch { last, len }))
    }

    /// Lends a direct chain of `segments`, which fit.
    fn add_direct(&mut self, segments: &[Segment], token: u64, lent: u32) {
        let id = self.take_id();
        *self.slot(id) = Slot { token, lent, descs: segments.len() as u32 };
        for (k, segment) in segments.iter().enumerate() {
            if IN_ORDER && k > 0 {
                // Not a head: a used descriptor that names it is refused.
                let at = self.next.slot();
                *self.slot(at) = Slot::FREE;
            }
            let more = if k + 1 == segments.len() { 0 } else { F_NEXT };
            self.write_desc(segment.addr, segment.len, id, Self::FLAGS | more);
        }
    }

    /// Lends `segments`, which fit a table, through one indirect descriptor.
    fn add_indirect(&mut self, tables: IndirectTables, segments: &[Segment], token: u64, lent: u32) {
        let id = self.take_id();
        let first = usize::from(id) * usize::from(tables.entries);
        for (k, segment) in segments.iter().enumerate() {
            // Only WRITE means anything inside a table (virtio 1.3, packed: Indirect Flag).
            tables.write(first + k, segment.addr, meta(segment.len, 0, Self::FLAGS));
        }
        *self.slot(id) = Slot { token, lent, descs: 1 };
        let addr = tables.addr.wrapping_add(first as u64 * 16);
        self.write_desc(addr, segments.len() as u32 * 16, id, F_INDIRECT);
    }

    /// Fills the next descriptor. The caller has checked that one is free.
    #[inline(always)]
    fn write_desc(&mut self, addr: u64, len: u32, id: u16, flags: u16) {
        let place = self.next;
        let [addr_cell, _] = self.ring.desc(place);
        addr_cell.store(addr, Relaxed);
        self.pending.write(&self.ring, place, meta(len, id, flags | place.available()), 1);
        self.next = place.next(self.ring.size());
        self.free = self.free.wrapping_sub(1);
    }
}

// SAFETY: a token enters `slots` with its id and leaves in `complete` or `take_all`: by id, `descs` is cleared when
// it leaves and 0 is refused; by position, only slots between `used` and `next` are taken. `len <= lent` is compared
// before it is reported. `slots` is private memory.
unsafe impl<const IN_ORDER: bool, const WRITABLE: bool> DriverQueue for Driver<IN_ORDER, WRITABLE> {
    const WRITABLE: bool = WRITABLE;

    #[inline]
    fn size(&self) -> u16 {
        self.ring.size()
    }

    #[inline]
    fn free(&self) -> u16 {
        self.free
    }

    #[inline]
    fn add_burst(&mut self, buffers: impl Iterator<Item = Buffer>) -> usize {
        let before = self.free;
        for Buffer { addr, len, token } in buffers.take(usize::from(before)) {
            let id = self.take_id();
            *self.slot(id) = Slot { token, lent: len, descs: 1 };
            self.write_desc(addr, len, id, Self::FLAGS);
        }
        usize::from(before.wrapping_sub(self.free))
    }

    fn add_chain(&mut self, segments: &[Segment], token: u64) -> bool {
        let Some(lent) = total(segments) else { return false };
        let free = usize::from(self.free);
        match self.indirect {
            Some(tables)
                if free > 0 && segments.len() > 1 && segments.len() <= usize::from(tables.entries) =>
            {
                self.add_indirect(tables, segments, token, lent);
            }
            _ if segments.len() <= free => self.add_direct(segments, token, lent),
            _ => return false,
        }
        true
    }

    #[inline]
    fn publish(&mut self) {
        self.pending.publish(&self.ring, self.next);
    }

    #[inline]
    fn kick_hint(&self) -> bool {
        self.pending.wanted(self.ring.device_event, self.event_idx, self.ring.size())
    }

    #[inline]
    fn kick_needed(&mut self) -> bool {
        // N1, pairs with N2 in the device's `set_notifications` (virtio 1.3, Driver Event Suppression): our
        // descriptors must be visible before we read the device's event area; else both sides sleep.
        full_fence();
        let needed = self.kick_hint();
        self.pending.decided();
        needed
    }

    #[inline]
    fn complete(&mut self, out: &mut [MaybeUninit<Completion>]) -> Result<usize, PeerFault> {
        if IN_ORDER { self.complete_in_order(out) } else { self.complete_any(out) }
    }

    fn set_interrupts(&mut self, on: bool) -> bool {
        self.ring.driver_event.store(wish(on, self.event_idx, self.used), Relaxed);
        if !on {
            return false;
        }
        // N4, pairs with N3 in the device's `call_needed`: our wish must be visible before we look at the next used
        // descriptor once more; else a completion published in between wakes nobody.
        full_fence();
        self.batch.is_some() || self.peek_used().is_some()
    }

    fn take_all(&mut self, f: &mut dyn FnMut(u64)) {
        let size = self.ring.size();
        if IN_ORDER {
            while self.free < size {
                let Slot { token, descs, .. } = *self.slot(self.used.slot());
                self.retire(descs as u16);
                f(token);
            }
        } else {
            for id in 0..size {
                let Slot { token, descs, .. } = core::mem::replace(self.slot(id), Slot::FREE);
                if descs > 0 {
                    self.give_id(id);
                    self.free = self.free.wrapping_add(descs as u16);
                    f(token);
                }
            }
        }
        self.used = self.next;
        self.batch = None;
    }
}
