//! The device half of a packed ring.

use core::mem::MaybeUninit;

use super::chain::follow;
use super::ring::{Pending, Ring, RingPosition, meta, phase_of, suppression, with_phase};
use crate::config::DeviceConfig;
use crate::error::Error;
use crate::fault::PeerFault;
use crate::layout::{F_NEXT, RingMemory, direction};
use crate::queue::{Access, Chain, DeviceMemory, DeviceQueue, Head, Lookahead, Used};
use crate::segments::SegList;
use crate::sync::{Acquire, Relaxed, full_fence};
use crate::walk::found;

/// The device half of a packed ring; see [`DeviceQueue`]. Starts with kicks off.
///
/// ```
/// # use core::ptr::NonNull;
/// # use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{packed, DeviceConfig, DeviceQueue, Layout, RingMemory};
///
/// let mut zone = vec![0u128; Layout::Packed.bytes(6) / 16];
/// # let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` outlives the queue and nothing else touches it.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Packed, 6)?;
/// let queue = packed::Device::<false, false>::new(&ring, DeviceConfig::default().size(6))?;
/// assert_eq!(queue.base(), 0x8000_8000); // slot 0 with wrap counter 1, for both places
/// # Ok::<(), linecard_virtio::Error>(())
/// ```
pub struct Device<const IN_ORDER: bool, const WRITABLE: bool> {
    ring: Ring,
    /// The positions of the next available descriptor to read and of the next used one to write.
    next: RingPosition,
    used: RingPosition,
    /// Slots taken and not yet written back.
    held: u16,
    pending: Pending,
    /// In-order and readable: the slots of the unpublished batch, and its last buffer.
    batch: u16,
    last: u16,
    event_idx: bool,
    indirect: bool,
}

impl<const IN_ORDER: bool, const WRITABLE: bool> Device<IN_ORDER, WRITABLE> {
    /// Whether one used descriptor stands for a batch. Not on writable queues, where skipped buffers count as
    /// completely written (virtio 1.3, In-order use of descriptors).
    const BATCHED: bool = IN_ORDER && !WRITABLE;

    /// The `flags` of a used descriptor without the phase flags: its length is valid if the device writes the
    /// buffers.
    const FLAGS: u16 = direction(WRITABLE);

    /// Creates a queue on `memory`, and writes the device's event area.
    ///
    /// Both positions start at bits 0–15 of the base: buffers that an earlier device took and did not write
    /// back are not resumed, and some frontends leave bits 16–31 zero.
    ///
    /// # Errors
    /// An [`Error`] for an invalid size, area or position.
    pub fn new(memory: &RingMemory, config: DeviceConfig) -> Result<Self, Error> {
        let ring = Ring::new(memory, config.size)?;
        let (size, base) = (config.size, config.base.unwrap_or(0x8000));
        let start = RingPosition::start(base as u16, size).ok_or(Error::Base { base, size })?;
        let mut queue = Self {
            ring,
            next: start,
            used: start,
            held: 0,
            pending: Pending::new(start),
            batch: 0,
            last: 0,
            event_idx: config.event_idx,
            indirect: config.indirect,
        };
        queue.set_notifications(false);
        Ok(queue)
    }

    /// Acts as if `slots` slots had been published since the last decision.
    #[cfg(all(test, loom))]
    pub(crate) fn published_unasked(&mut self, slots: u16) {
        self.pending.published_unasked(slots);
    }

    /// The second word of the descriptor at `place`, if it is available.
    #[inline(always)]
    fn available_at(&self, place: RingPosition) -> Option<u64> {
        let [_, cell] = self.ring.desc(place);
        // T1, pairs with the driver's release store of the first descriptor of a burst.
        let meta = cell.load(Acquire);
        (phase_of(meta) == place.available()).then_some(meta)
    }

    /// Fills `out` with simple chains from `place` on, all in one lap. Returns how many there were.
    #[inline(always)]
    fn peek_run<M: DeviceMemory>(
        &self,
        memory: &M,
        place: RingPosition,
        out: &mut [MaybeUninit<Chain>],
    ) -> usize {
        // Atomic accesses make the compiler reload fields, so the loop uses local copies.
        let (ring, slot0) = (self.ring, usize::from(place.slot()));
        debug_assert!(out.len() <= place.run(ring.size()));
        // One comparison for available, simple and of the right direction; reserved bits select the cold
        // path.
        let want = place.available() | direction(WRITABLE);
        for (k, chain) in out.iter_mut().enumerate() {
            // MEASURED: see `Ring::desc_unchecked`.
            // SAFETY: `out` is at most as long as the rest of the lap.
            let [addr, cell] = unsafe { ring.desc_unchecked(slot0 + k) };
            // T1, pairs with the driver's release store of the first descriptor of a burst.
            let meta = cell.load(Acquire);
            if (meta >> 48) as u16 != want {
                return k;
            }
            let len = meta as u32;
            let Some(ptr) = memory.translate(addr.load(Relaxed), len, Access::of(WRITABLE)) else { return k };
            chain.write(Chain { ptr: ptr.as_ptr(), len, id: (meta >> 32) as u16 });
        }
        out.len()
    }

    /// Slots that may still be taken: a driver never makes more available than the ring has.
    #[inline(always)]
    const fn room(&self) -> u16 {
        self.ring.size().saturating_sub(self.held)
    }

    /// Writes one used descriptor that stands for `descs` slots.
    #[inline(always)]
    fn write_used(&mut self, id: u16, descs: u16, len: u32) {
        let place = self.used;
        self.pending.write(&self.ring, place, meta(len, id, Self::FLAGS | place.used()), descs);
        let size = self.ring.size();
        self.used = if descs == 1 { place.next(size) } else { place.forward(descs, size) };
    }

    /// Sets the phase flags of used descriptors in the later descriptors of a chain. No driver reads them
    /// before it writes them again; a device that takes the ring over recognizes the end of the chain by
    /// them: see [`recover`](super::recover()).
    #[cold]
    fn mark_used(&self, descs: u16) {
        let size = self.ring.size();
        let mut place = self.used;
        for _ in 1..descs.min(size) {
            place = place.next(size);
            let [_, cell] = self.ring.desc(place);
            let word = cell.load(Relaxed);
            cell.store(with_phase(word, place.used()), Relaxed);
        }
    }

    /// Writes used descriptors for simple chains, all in one lap. A descriptor must be pending already.
    #[inline(always)]
    fn write_run(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        let (ring, place) = (self.ring, self.used);
        let (slot0, tag) = (usize::from(place.slot()), meta(0, 0, Self::FLAGS | place.used()));
        let chains = chains.get(..place.run(ring.size())).unwrap_or(chains);
        for (k, chain) in chains.iter().enumerate() {
            // MEASURED: see `Ring::desc_unchecked`.
            // SAFETY: `k` is below the slots left in this lap.
            let [_, cell] = unsafe { ring.desc_unchecked(slot0 + k) };
            cell.store(tag | meta(written(k), chain.id, 0), Relaxed);
        }
        self.pending.count_written(chains.len() as u16);
        self.used = place.forward(chains.len() as u16, ring.size());
    }
}

// SAFETY: `peek` writes `out[k]` before it counts it; the memory returned the pointers of chains and pieces
// for the lengths next to them, both from one read of the descriptor.
unsafe impl<const IN_ORDER: bool, const WRITABLE: bool> DeviceQueue for Device<IN_ORDER, WRITABLE> {
    const WRITABLE: bool = WRITABLE;

    #[inline]
    fn size(&self) -> u16 {
        self.ring.size()
    }

    #[inline(always)]
    fn peek<M: DeviceMemory>(
        &mut self,
        memory: &M,
        out: &mut [MaybeUninit<Chain>],
    ) -> Result<usize, PeerFault> {
        let n = out.len().min(usize::from(self.room()));
        let (out, _) = out.split_at_mut(n);
        let (first, second) = out.split_at_mut(n.min(self.next.run(self.ring.size())));
        let got = self.peek_run(memory, self.next, first);
        if got < first.len() || second.is_empty() {
            return Ok(got);
        }
        let place = self.next.forward(got as u16, self.ring.size());
        Ok(got + self.peek_run(memory, place, second))
    }

    fn peek_chain<M: DeviceMemory>(
        &mut self,
        memory: &M,
        ahead: Lookahead,
        out: &mut SegList,
    ) -> Result<Option<Head>, PeerFault> {
        out.clear();
        if ahead.descs >= self.room() {
            return Ok(None);
        }
        let place = self.next.forward(ahead.descs, self.ring.size());
        let Some(first) = self.available_at(place) else { return Ok(None) };
        let room = self.room().saturating_sub(ahead.descs);
        found(follow::<M, WRITABLE>(&self.ring, memory, (place, first), room, self.indirect, out))
    }

    fn available(&mut self) -> u16 {
        let (mut place, mut chains) = (self.next, 0);
        for _ in 0..self.room() {
            let Some(meta) = self.available_at(place) else { break };
            chains += u16::from((meta >> 48) as u16 & F_NEXT == 0);
            place = place.next(self.ring.size());
        }
        chains
    }

    #[inline]
    fn is_empty(&mut self) -> bool {
        self.room() == 0 || self.available_at(self.next).is_none()
    }

    #[inline(always)]
    fn complete_burst(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        let (count, size) = (chains.len() as u16, self.ring.size());
        self.next = self.next.forward(count, size);
        if Self::BATCHED {
            self.batch = self.batch.wrapping_add(count);
            self.last = chains.last().map_or(self.last, |chain| chain.id);
            return;
        }
        // The first descriptor of a burst may have to be written last.
        let Some((first, rest)) = chains.split_first() else { return };
        self.write_used(first.id, 1, written(0));
        let (run, rest) = rest.split_at(rest.len().min(self.used.run(size)));
        self.write_run(run, |k| written(k + 1));
        self.write_run(rest, |k| written(k + 1 + run.len()));
    }

    #[inline]
    fn take(&mut self, ahead: Lookahead) {
        self.next = self.next.forward(ahead.descs, self.ring.size());
        self.held = self.held.saturating_add(ahead.descs);
    }

    #[inline]
    fn complete_taken(&mut self, used: Used) {
        self.held = self.held.saturating_sub(used.descs);
        if Self::BATCHED {
            self.batch = self.batch.wrapping_add(used.descs);
            self.last = used.id;
        } else {
            if used.descs > 1 {
                self.mark_used(used.descs);
            }
            self.write_used(used.id, used.descs, used.len);
        }
    }

    #[inline]
    fn publish(&mut self) {
        if Self::BATCHED && self.batch > 0 {
            // The descriptor that stands for the batch is at the start of the batch.
            let (slots, last) = (self.batch, self.last);
            self.write_used(last, slots, 0);
            self.batch = 0;
        }
        self.pending.publish(&self.ring, self.used);
    }

    #[inline]
    fn call_hint(&self) -> bool {
        self.pending.needs_notification(self.ring.driver_event, self.event_idx, self.ring.size())
    }

    #[inline]
    fn call_needed(&mut self) -> bool {
        // N3, pairs with N4 in the driver's `set_interrupts` (virtio 1.3, Device Event Suppression): the used
        // descriptors must be visible before the driver's event area is read; otherwise both sides sleep.
        full_fence();
        let needed = self.call_hint();
        self.pending.mark_decided();
        needed
    }

    fn set_notifications(&mut self, on: bool) -> bool {
        self.ring.device_event.store(suppression(on, self.event_idx, self.next), Relaxed);
        if !on {
            return false;
        }
        // N2, pairs with N1 in the driver's `kick_needed`: the event area must be visible before the next
        // descriptor is read once more; otherwise a buffer published in between causes no notification.
        full_fence();
        !self.is_empty()
    }

    fn base(&self) -> u32 {
        u32::from(self.next.base()) | u32::from(self.used.base()) << 16
    }
}
