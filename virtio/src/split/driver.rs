//! The driver half of a split ring.

mod complete;

use core::mem::MaybeUninit;

use super::ring::{Ring, write_if_different};
use crate::config::{DriverConfig, IndirectTables};
use crate::error::{Error, NotLent};
use crate::event::PublishedCount;
use crate::fault::PeerFault;
use crate::layout::{F_INDIRECT, F_NEXT, F_NO_NOTIFY, RingMemory, direction};
use crate::queue::{Buffer, Completion, DriverQueue, Element};
use crate::slot::{InFlight, InFlightEntry, done_or, total};
use crate::suppression::{Unasked, split_wants};
use crate::sync::{Acquire, Relaxed, Release, full_fence};

/// The driver half of a split ring; see [`DriverQueue`]. Starts with interrupts off.
///
/// ```
/// # use core::ptr::NonNull;
/// # use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{split, Buffer, DriverConfig, DriverQueue, Layout, RingMemory};
///
/// let mut zone = vec![0u128; Layout::Split.bytes(8) / 16];
/// # let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` outlives the queue and nothing else touches it.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Split, 8)?;
/// let mut tx = split::Driver::<false, false>::new(&ring, DriverConfig::default().size(8))?;
/// tx.add(Buffer { addr: 0x1000, len: 60, token: 1 })?;
/// tx.publish();
/// assert_eq!(tx.free(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Driver<const IN_ORDER: bool, const WRITABLE: bool> {
    ring: Ring,
    /// The buffers in flight, by the id of the chain's head. Never read back from the ring.
    slots: InFlight,
    /// Free descriptor ids, a FIFO from `taken` to `given`; unused when IN_ORDER (ids are positions then).
    ids: Box<[u16]>,
    /// The next descriptor of a direct chain; unused when IN_ORDER.
    next: Box<[u16]>,
    /// The numbers of descriptors ever taken, and ever returned plus the ring size. The difference is the
    /// number of free ones.
    taken: u16,
    given: u16,
    /// The available index: the next entry to write, and the published value.
    avail: u16,
    published: u16,
    notify: PublishedCount,
    /// The used index: the next entry to read, and the value last read from the device.
    used: u16,
    used_seen: u16,
    /// IN_ORDER, WRITABLE: a batch that the device returned by naming its last buffer.
    batch: Batch,
    event_idx: bool,
    indirect: Option<IndirectTables>,
}

/// Buffers of a batch that are still to be reported: `left` in total, all full except the last, which has
/// `len` bytes.
#[derive(Clone, Copy, Default)]
struct Batch {
    left: u16,
    len: u32,
}

impl<const IN_ORDER: bool, const WRITABLE: bool> Driver<IN_ORDER, WRITABLE> {
    /// The `flags` of a direct descriptor at the end of a chain.
    const FLAGS: u16 = direction(WRITABLE);

    /// Creates a queue on `memory`, which should be zeroed. Sets both indices to the start position.
    ///
    /// # Errors
    /// An [`Error`] for an invalid size, area, position or table.
    pub fn new(memory: &RingMemory, config: DriverConfig) -> Result<Self, Error> {
        let ring = Ring::new(memory, config.size)?;
        let base = config.base.unwrap_or(0);
        let start = u16::try_from(base).map_err(|_| Error::Base { base, size: config.size })?;
        if let Some(tables) = &config.indirect {
            tables.check(config.size)?;
        }
        let size = config.size;
        ring.avail_idx.store(start, Relaxed);
        ring.used_idx.store(start, Relaxed);
        let mut queue = Self {
            ring,
            slots: InFlight::new(size),
            ids: (0..size).collect(),
            next: vec![0; if IN_ORDER { 0 } else { usize::from(size) }].into(),
            taken: start,
            given: start.wrapping_add(size),
            avail: start,
            published: start,
            notify: PublishedCount::new(),
            used: start,
            used_seen: start,
            batch: Batch::default(),
            event_idx: config.event_idx,
            indirect: config.indirect,
        };
        queue.set_interrupts(false);
        Ok(queue)
    }

    /// The descriptor id for the value `taken` of the counter of taken descriptors.
    #[inline(always)]
    fn id_at(&self, taken: u16) -> u16 {
        let at = usize::from(taken) & self.ring.mask;
        if IN_ORDER {
            return at as u16;
        }
        // MEASURED: cargo xtask budget; with checks, the driver's arrays cost 11 to 15 more instructions per
        // packet and direction.
        // SAFETY: `ids` has `size` entries and `at <= mask = size - 1`.
        unsafe { *self.ids.get_unchecked(at) }
    }

    /// Returns an id to the FIFO.
    #[inline(always)]
    fn give(&mut self, given: usize, id: u16) {
        // MEASURED: see `id_at`.
        // SAFETY: `ids` has `size` entries and the masked index is at most `size - 1`.
        *unsafe { self.ids.get_unchecked_mut(given & self.ring.mask) } = id;
    }

    /// The entry of an id that is known to be below the ring size.
    #[inline(always)]
    fn slot(&mut self, id: usize) -> &mut InFlightEntry {
        debug_assert!(id <= self.ring.mask);
        // MEASURED: see `id_at`.
        // SAFETY: `slots` has `size` entries. Ids come from `ids`, which only contains 0..size, from a masked
        // position, or were compared with the mask.
        unsafe { self.slots.get_unchecked_mut(id) }
    }

    /// Acts as if `entries` entries had been published since the last decision.
    #[cfg(all(test, loom))]
    pub(crate) fn published_unasked(&mut self, entries: u16) {
        self.notify.published(entries);
    }

    /// Reads the used index again and returns how many completions are known. If the index is impossible, the
    /// `known` completions are still collected first, as in [`done_or`].
    #[inline(always)]
    fn refresh(&mut self, known: u16) -> Result<u16, PeerFault> {
        // A1, pairs with the device's release store of used.idx: the elements before it are visible.
        let to = self.ring.used_idx.load(Acquire);
        let (window, in_flight) = (to.wrapping_sub(self.used), self.published.wrapping_sub(self.used));
        if window <= in_flight {
            self.used_seen = to;
            return Ok(window);
        }
        if known > 0 {
            return Ok(known);
        }
        Err(PeerFault::UsedJump { from: self.used, to, in_flight })
    }

    /// Adds `segments`, which fit the free descriptors, as a direct chain.
    fn add_direct(&mut self, segments: &[Element], token: u64, lent: u32) {
        let head = self.id_at(self.taken);
        let mut id = head;
        for (k, segment) in segments.iter().enumerate() {
            self.taken = self.taken.wrapping_add(1);
            let last = k + 1 == segments.len();
            let next = if last { 0 } else { self.id_at(self.taken) };
            let flags = Self::FLAGS | if last { 0 } else { F_NEXT };
            self.write_desc(id, segment.addr, segment.len, flags, next);
            if let Some(link) = self.next.get_mut(usize::from(id)) {
                *link = next;
            }
            id = next;
        }
        self.lend(head, InFlightEntry { token, lent, descs: segments.len() as u32 });
    }

    /// Adds `segments`, which fit a table, as one indirect descriptor.
    fn add_indirect(&mut self, tables: IndirectTables, segments: &[Element], token: u64, lent: u32) {
        let head = self.id_at(self.taken);
        self.taken = self.taken.wrapping_add(1);
        let first = usize::from(head) * usize::from(tables.entries);
        for (k, segment) in segments.iter().enumerate() {
            let last = k + 1 == segments.len();
            let flags = Self::FLAGS | if last { 0 } else { F_NEXT };
            let next = if last { 0 } else { k as u16 + 1 };
            tables.write(first + k, segment.addr, meta(segment.len, flags, next));
        }
        let addr = tables.addr.wrapping_add(first as u64 * 16);
        self.write_desc(head, addr, segments.len() as u32 * 16, F_INDIRECT, 0);
        self.lend(head, InFlightEntry { token, lent, descs: 1 });
    }

    #[inline(always)]
    fn write_desc(&self, id: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let Some([addr_cell, meta_cell]) = self.ring.desc(id) else { return };
        addr_cell.store(addr, Relaxed);
        meta_cell.store(meta(len, flags, next), Relaxed);
    }

    /// Puts the chain that starts at `head` into the available ring.
    #[inline(always)]
    fn lend(&mut self, head: u16, slot: InFlightEntry) {
        *self.slot(usize::from(head)) = slot;
        write_if_different(self.ring.avail(usize::from(self.avail)), head);
        self.avail = self.avail.wrapping_add(1);
    }
}

/// Counts the buffers added in a burst. The queue's counters move when it is dropped, even if the caller's
/// iterator panics.
struct Count<'a> {
    n: usize,
    taken: &'a mut u16,
    avail: &'a mut u16,
}

impl Drop for Count<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.taken = self.taken.wrapping_add(self.n as u16);
        *self.avail = self.avail.wrapping_add(self.n as u16);
    }
}

/// The second word of a descriptor.
#[inline(always)]
const fn meta(len: u32, flags: u16, next: u16) -> u64 {
    len as u64 | (flags as u64) << 32 | (next as u64) << 48
}

// SAFETY: a token enters `slots` in `lend` and leaves it in `complete` or `take_all`. By id, `descs` is
// cleared when it leaves, and entries with 0 are refused; by position, `used` never passes `published`. `len
// <= lent` is checked before `len` is reported. `slots` is private memory.
unsafe impl<const IN_ORDER: bool, const WRITABLE: bool> DriverQueue for Driver<IN_ORDER, WRITABLE> {
    const WRITABLE: bool = WRITABLE;

    #[inline]
    fn size(&self) -> u16 {
        self.ring.size()
    }

    #[inline]
    fn free(&self) -> u16 {
        self.given.wrapping_sub(self.taken)
    }

    #[inline]
    fn add_burst(&mut self, buffers: impl Iterator<Item = Buffer>) -> usize {
        let (ring, free) = (self.ring, self.free());
        let (taken, avail) = (usize::from(self.taken), usize::from(self.avail));
        let (slots, ids) = (&mut *self.slots, &*self.ids);
        let mut count = Count { n: 0, taken: &mut self.taken, avail: &mut self.avail };
        for Buffer { addr, len, token } in buffers.take(usize::from(free)) {
            let at = (taken + count.n) & ring.mask;
            // MEASURED: this loop: see `id_at` and `Ring::desc_unchecked`.
            // SAFETY: `ids` has `size` entries and `at <= mask = size - 1`.
            let id = if IN_ORDER { at } else { usize::from(*unsafe { ids.get_unchecked(at) }) };
            // SAFETY: `at` is below the size, and `ids` holds only ids below it.
            let [addr_cell, meta_cell] = unsafe { ring.desc_unchecked(id) };
            addr_cell.store(addr, Relaxed);
            meta_cell.store(meta(len, Self::FLAGS, 0), Relaxed);
            // SAFETY: `slots` has `size` entries, and `ids` holds only ids below it.
            *unsafe { slots.get_unchecked_mut(id) } = InFlightEntry { token, lent: len, descs: 1 };
            write_if_different(ring.avail(avail + count.n), id as u16);
            count.n += 1;
        }
        count.n
    }

    fn add_chain(&mut self, segments: &[Element], token: u64) -> Result<(), NotLent> {
        let lent = total(segments).ok_or(NotLent)?;
        let free = usize::from(self.free());
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
        // D1, pairs with the device's acquire load of avail.idx: descriptors and entries before it are
        // visible.
        self.ring.avail_idx.store(self.avail, Release);
        self.notify.published(self.avail.wrapping_sub(self.published));
        self.published = self.avail;
    }

    #[inline]
    fn kick_hint(&self) -> bool {
        let ring = &self.ring;
        split_wants(self.notify, self.published, self.event_idx, ring.used_flags, ring.avail_event)
    }

    #[inline]
    fn unasked(&self) -> Option<Unasked> {
        if self.kick_hint() {
            return None;
        }
        // Without events, the end position is not needed.
        Some(Unasked::new(self.notify, if self.event_idx { self.published } else { 0 }))
    }

    #[inline]
    fn kick_needed(&mut self) -> bool {
        // N1, pairs with N2 in the device's `set_notifications` (virtio 1.3, Available Buffer Notification
        // Suppression): avail.idx must be visible before flags or avail_event are read; otherwise both sides
        // sleep.
        full_fence();
        let needed = self.kick_hint();
        self.notify.asked();
        needed
    }

    #[inline]
    fn complete(&mut self, out: &mut [MaybeUninit<Completion>]) -> Result<usize, PeerFault> {
        let mut window = self.used_seen.wrapping_sub(self.used);
        if usize::from(window) < out.len() {
            window = self.refresh(window)?;
        }
        let n = out.len().min(usize::from(window));
        let (out, _) = out.split_at_mut(n);
        let mut taken = 0;
        loop {
            let (_, rest) = out.split_at_mut(taken);
            taken += if IN_ORDER { self.complete_in_order(rest) } else { self.complete_by_id(rest) };
            let Some(done) = out.get_mut(taken) else { return Ok(taken) };
            let odd = if IN_ORDER { self.complete_odd_in_order(done) } else { self.complete_odd(done) };
            if let Err(fault) = odd {
                return done_or(taken, fault);
            }
            taken += 1;
        }
    }

    fn completed(&self) -> u16 {
        // A1, as in `refresh`, although no element is read here.
        let to = self.ring.used_idx.load(Acquire);
        to.wrapping_sub(self.used).min(self.published.wrapping_sub(self.used))
    }

    fn set_interrupts(&mut self, on: bool) -> bool {
        if self.event_idx {
            // An event just before the next index is a whole lap of 65 536 away.
            let event = if on { self.used } else { self.used.wrapping_sub(1) };
            self.ring.used_event.store(event, Relaxed);
            self.ring.avail_flags.store(0, Relaxed);
        } else {
            self.ring.avail_flags.store(if on { 0 } else { F_NO_NOTIFY }, Relaxed);
        }
        if !on {
            return false;
        }
        // N4, pairs with N3 in the device's `call_needed`: the request for interrupts must be visible before
        // used.idx is read once more; otherwise a completion published in between causes no interrupt.
        full_fence();
        self.ring.used_idx.load(Acquire) != self.used
    }

    fn take_all(self, f: &mut dyn FnMut(u64)) {
        if IN_ORDER {
            // The free positions are those from `taken` to `given`; the rest of the ring is in flight.
            let in_flight = self.ring.size().wrapping_sub(self.free());
            self.slots.drain_in_order(usize::from(self.given) & self.ring.mask, in_flight, f);
        } else {
            self.slots.drain(f);
        }
    }
}
