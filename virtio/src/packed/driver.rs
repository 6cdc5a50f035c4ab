//! The driver half of a packed ring.

mod complete;

use core::mem::MaybeUninit;

use super::ring::{Pending, Ring, RingPosition, meta, suppression};
use crate::config::{DriverConfig, IndirectTables};
use crate::error::{Error, NotLent};
use crate::fault::PeerFault;
use crate::layout::{F_INDIRECT, F_NEXT, RingMemory, direction};
use crate::queue::{Buffer, Completion, DriverQueue, Element};
use crate::slot::{InFlight, InFlightEntry, done_or, total};
use crate::suppression::Unasked;
use crate::sync::{Relaxed, full_fence};

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
/// let mut rx = packed::Driver::<false, true>::new(&ring, DriverConfig::default().size(6))?;
/// rx.add(Buffer { addr: 0x1000, len: 2048, token: 1 })?;
/// rx.publish();
/// assert_eq!(rx.free(), 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Driver<const IN_ORDER: bool, const WRITABLE: bool> {
    ring: Ring,
    /// The buffers in flight, by buffer id, which is the slot of the head if IN_ORDER. Never read back from
    /// the ring.
    slots: InFlight,
    /// Free buffer ids, a stack of `free_ids` entries; unused when IN_ORDER.
    ids: Box<[u16]>,
    fill: Fill,
    /// The position of the device's next used descriptor.
    used: RingPosition,
    /// IN_ORDER: the device returned the buffers up to this one together.
    batch: Option<Batch>,
    event_idx: bool,
    indirect: Option<IndirectTables>,
}

/// The side of the ring on which descriptors are made available.
struct Fill {
    /// The position of the next descriptor.
    next: RingPosition,
    /// The numbers of ring slots and of buffer ids not in flight.
    free: u16,
    free_ids: u16,
    pending: Pending,
}

/// The last buffer of a batch, and the bytes written into it; the buffers before it are full.
#[derive(Clone, Copy)]
struct Batch {
    last: u16,
    len: u32,
}

impl<const IN_ORDER: bool, const WRITABLE: bool> Driver<IN_ORDER, WRITABLE> {
    /// The `flags` of a direct descriptor at the end of a chain, without the phase flags.
    const FLAGS: u16 = direction(WRITABLE);

    /// Creates a queue on `memory`, and marks all descriptors as used, as in a new ring.
    ///
    /// # Errors
    /// An [`Error`] for an invalid size, area, position or table.
    pub fn new(memory: &RingMemory, config: DriverConfig) -> Result<Self, Error> {
        let ring = Ring::new(memory, config.size)?;
        let (size, base) = (config.size, config.base.unwrap_or(0x8000));
        let next = RingPosition::start(base as u16, size).ok_or(Error::Base { base, size })?;
        if let Some(tables) = &config.indirect {
            tables.check(size)?;
        }
        let mut place = next;
        for _ in 0..size {
            // The state of this slot at the end of the previous lap: used, with the opposite wrap counter.
            let [_, cell] = ring.desc(place);
            cell.store(meta(0, 0, place.forward(size, size).used()), Relaxed);
            place = place.next(size);
        }
        let mut queue = Self {
            ring,
            slots: InFlight::new(size),
            ids: (0..if IN_ORDER { 0 } else { size }).rev().collect(),
            fill: Fill { next, free: size, free_ids: size, pending: Pending::new(next) },
            used: next,
            batch: None,
            event_idx: config.event_idx,
            indirect: config.indirect,
        };
        queue.set_interrupts(false);
        Ok(queue)
    }

    /// Acts as if `slots` slots had been published since the last decision.
    #[cfg(all(test, loom))]
    pub(crate) fn published_unasked(&mut self, slots: u16) {
        self.fill.pending.published_unasked(slots);
    }

    /// Takes an id for the buffer whose head goes to `next`. The caller has checked that a ring slot is free.
    #[inline(always)]
    fn take_id(&mut self) -> u16 {
        if IN_ORDER {
            return self.fill.next.slot();
        }
        debug_assert!(self.fill.free_ids > 0);
        self.fill.free_ids = self.fill.free_ids.wrapping_sub(1);
        // MEASURED: cargo xtask budget; with checks, the driver's arrays cost 11 to 15 more instructions per
        // packet and direction.
        // SAFETY: a buffer in flight has one id and at least one ring slot, so if a slot is free, an id is
        // too: 0 < free_ids <= size = ids.len() before the subtraction.
        unsafe { *self.ids.get_unchecked(usize::from(self.fill.free_ids)) }
    }

    /// Returns an id that was in flight.
    #[inline(always)]
    fn give_id(&mut self, id: u16) {
        let at = usize::from(self.fill.free_ids);
        debug_assert!(at < self.ids.len());
        // MEASURED: see `take_id`.
        // SAFETY: the id was in flight, according to its entry, so fewer than `size` ids were free.
        *unsafe { self.ids.get_unchecked_mut(at) } = id;
        self.fill.free_ids = self.fill.free_ids.wrapping_add(1);
    }

    /// The entry of an id that is known to be below the ring size.
    #[inline(always)]
    fn slot(&mut self, id: u16) -> &mut InFlightEntry {
        debug_assert!(id < self.ring.size());
        // MEASURED: see `take_id`.
        // SAFETY: `slots` has `size` entries. Ids come from `ids`, which only contains 0..size, from a
        // `RingPosition`, or were compared with the size.
        unsafe { self.slots.get_unchecked_mut(usize::from(id)) }
    }

    /// Adds one buffer. The caller has checked that a ring slot is free.
    #[inline(always)]
    fn add_one(&mut self, Buffer { addr, len, token }: Buffer) {
        let id = self.take_id();
        *self.slot(id) = InFlightEntry { token, lent: len, descs: 1 };
        self.write_desc(addr, len, id, Self::FLAGS);
    }

    /// Adds buffers up to the end of the lap or of the free slots. Returns false if the iterator ended. A
    /// descriptor must be pending already, because none is held back here.
    #[inline(always)]
    fn add_run(&mut self, buffers: &mut impl Iterator<Item = Buffer>) -> bool {
        // Atomic accesses make the compiler reload fields, so the loop uses local copies.
        let (ring, size, place) = (self.ring, self.ring.size(), self.fill.next);
        let run = place.run(size).min(usize::from(self.fill.free));
        let (slot0, free_ids) = (usize::from(place.slot()), usize::from(self.fill.free_ids));
        let tag = meta(0, 0, Self::FLAGS | place.available());
        let (slots, ids) = (&mut *self.slots, &*self.ids);
        let mut run_so_far = Run { n: 0, size, fill: &mut self.fill, takes_ids: !IN_ORDER };
        while run_so_far.n < run {
            let Some(Buffer { addr, len, token }) = buffers.next() else { return false };
            let n = run_so_far.n;
            let id = if IN_ORDER {
                slot0 + n
            } else {
                // MEASURED: this loop: see `take_id` and `Ring::desc_unchecked`.
                // SAFETY: `n < free <= free_ids <= size = ids.len()`: a buffer in flight has one id and at
                // least one slot.
                usize::from(*unsafe { ids.get_unchecked(free_ids.wrapping_sub(n + 1)) })
            };
            // SAFETY: `slots` has `size` entries and `ids` holds only ids below the size; `slot0 + n < size`.
            *unsafe { slots.get_unchecked_mut(id) } = InFlightEntry { token, lent: len, descs: 1 };
            // SAFETY: `n < run`, so the slot lies before the end of the lap.
            let [addr_cell, meta_cell] = unsafe { ring.desc_unchecked(slot0 + n) };
            addr_cell.store(addr, Relaxed);
            meta_cell.store(tag | meta(len, id as u16, 0), Relaxed);
            run_so_far.n = n + 1;
        }
        true
    }

    /// Adds `segments`, which fit the free slots, as a direct chain.
    fn add_direct(&mut self, segments: &[Element], token: u64, lent: u32) {
        let id = self.take_id();
        *self.slot(id) = InFlightEntry { token, lent, descs: segments.len() as u32 };
        for (k, segment) in segments.iter().enumerate() {
            if IN_ORDER && k > 0 {
                // Not a head: a used descriptor with this id is refused.
                let at = self.fill.next.slot();
                *self.slot(at) = InFlightEntry::FREE;
            }
            let more = if k + 1 == segments.len() { 0 } else { F_NEXT };
            self.write_desc(segment.addr, segment.len, id, Self::FLAGS | more);
        }
    }

    /// Adds `segments`, which fit a table, as one indirect descriptor.
    fn add_indirect(&mut self, tables: IndirectTables, segments: &[Element], token: u64, lent: u32) {
        let id = self.take_id();
        let first = usize::from(id) * usize::from(tables.entries);
        for (k, segment) in segments.iter().enumerate() {
            // Only WRITE has a meaning inside a table (virtio 1.3, packed: Indirect Flag).
            tables.write(first + k, segment.addr, meta(segment.len, 0, Self::FLAGS));
        }
        *self.slot(id) = InFlightEntry { token, lent, descs: 1 };
        let addr = tables.addr.wrapping_add(first as u64 * 16);
        self.write_desc(addr, segments.len() as u32 * 16, id, F_INDIRECT);
    }

    /// Writes the next descriptor. The caller has checked that one is free.
    #[inline(always)]
    fn write_desc(&mut self, addr: u64, len: u32, id: u16, flags: u16) {
        let place = self.fill.next;
        let [addr_cell, _] = self.ring.desc(place);
        addr_cell.store(addr, Relaxed);
        self.fill.pending.write(&self.ring, place, meta(len, id, flags | place.available()), 1);
        self.fill.next = place.next(self.ring.size());
        self.fill.free = self.fill.free.wrapping_sub(1);
    }
}

/// Counts the buffers added in a run. The queue's positions move when it is dropped, even if the caller's
/// iterator panics.
struct Run<'a> {
    n: usize,
    size: u16,
    fill: &'a mut Fill,
    takes_ids: bool,
}

impl Drop for Run<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let n = self.n as u16;
        self.fill.next = self.fill.next.forward(n, self.size);
        self.fill.free = self.fill.free.wrapping_sub(n);
        if self.takes_ids {
            self.fill.free_ids = self.fill.free_ids.wrapping_sub(n);
        }
        self.fill.pending.count_written(n);
    }
}

// SAFETY: a token enters `slots` with its id and leaves in `complete` or `take_all`. By id, `descs` is
// cleared when it leaves, and entries with 0 are refused; by position, only slots between `used` and `next`
// are taken. `len <= lent` is checked before `len` is reported. `slots` is private memory.
unsafe impl<const IN_ORDER: bool, const WRITABLE: bool> DriverQueue for Driver<IN_ORDER, WRITABLE> {
    const WRITABLE: bool = WRITABLE;

    #[inline]
    fn size(&self) -> u16 {
        self.ring.size()
    }

    #[inline]
    fn free(&self) -> u16 {
        self.fill.free
    }

    #[inline]
    fn add_burst(&mut self, buffers: impl Iterator<Item = Buffer>) -> usize {
        let mut buffers = buffers;
        let before = self.fill.free;
        // The first descriptor of a burst may have to be written last.
        match before {
            0 => return 0,
            _ => match buffers.next() {
                Some(first) => self.add_one(first),
                None => return 0,
            },
        }
        // In runs, within which the phase is constant and positions do not wrap.
        while self.fill.free > 0 && self.add_run(&mut buffers) {}
        usize::from(before.wrapping_sub(self.fill.free))
    }

    fn add_chain(&mut self, segments: &[Element], token: u64) -> Result<(), NotLent> {
        let lent = total(segments).ok_or(NotLent)?;
        let free = usize::from(self.fill.free);
        match self.indirect {
            Some(tables)
                if free > 0 && segments.len() > 1 && segments.len() <= usize::from(tables.entries) =>
            {
                self.add_indirect(tables, segments, token, lent);
            }
            _ if segments.len() <= free => self.add_direct(segments, token, lent),
            _ => return Err(NotLent),
        }
        Ok(())
    }

    #[inline]
    fn publish(&mut self) {
        self.fill.pending.publish(&self.ring, self.fill.next);
    }

    #[inline]
    fn kick_hint(&self) -> bool {
        self.fill.pending.needs_notification(self.ring.device_event, self.event_idx, self.ring.size())
    }

    #[inline]
    fn unasked(&self) -> Option<Unasked> {
        (!self.kick_hint()).then(|| self.fill.pending.unasked(self.event_idx))
    }

    #[inline]
    fn kick_needed(&mut self) -> bool {
        // N1, pairs with N2 in the device's `set_notifications` (virtio 1.3, Driver Event Suppression): the
        // descriptors must be visible before the device's event area is read; otherwise both sides sleep.
        full_fence();
        let needed = self.kick_hint();
        self.fill.pending.mark_decided();
        needed
    }

    #[inline]
    fn complete(&mut self, out: &mut [MaybeUninit<Completion>]) -> Result<usize, PeerFault> {
        let mut taken = 0;
        loop {
            let (_, rest) = out.split_at_mut(taken);
            taken += if IN_ORDER { self.complete_in_order(rest) } else { self.complete_by_id(rest) };
            let Some(done) = out.get_mut(taken) else { return Ok(taken) };
            let odd = if IN_ORDER { self.complete_odd_in_order(done) } else { self.complete_odd(done) };
            match odd {
                Ok(true) => taken += 1,
                Ok(false) => return Ok(taken),
                Err(fault) => return done_or(taken, fault),
            }
        }
    }

    fn completed(&self) -> u16 {
        let (size, in_flight) = (self.ring.size(), self.ring.size().wrapping_sub(self.fill.free));
        let (mut place, mut count) = (self.used, 0_u16);
        let mut batch = self.batch.map(|batch| batch.last);
        while count < in_flight {
            let Some(id) = batch.take().or_else(|| self.used_at(place).map(|(id, _)| id)) else { break };
            let descs = self.slots.get(usize::from(id)).map_or(0, |slot| slot.descs as u16);
            // In order, the device may return several buffers by naming the last one.
            let before = if IN_ORDER && id < size { place.distance(id, size) } else { 0 };
            let more = before.saturating_add(descs);
            if descs == 0 || more > in_flight - count {
                break;
            }
            (place, count) = (place.forward(more, size), count + more);
        }
        count
    }

    fn set_interrupts(&mut self, on: bool) -> bool {
        self.ring.driver_event.store(suppression(on, self.event_idx, self.used), Relaxed);
        if !on {
            return false;
        }
        // N4, pairs with N3 in the device's `call_needed`: the event area must be visible before the next
        // used descriptor is read once more; otherwise a completion published in between causes no interrupt.
        full_fence();
        self.batch.is_some() || self.peek_used().is_some()
    }

    fn take_all(self, f: &mut dyn FnMut(u64)) {
        if IN_ORDER {
            let in_flight = self.ring.size().wrapping_sub(self.fill.free);
            self.slots.drain_in_order(usize::from(self.used.slot()), in_flight, f);
        } else {
            self.slots.drain(f);
        }
    }
}
