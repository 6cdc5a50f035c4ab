//! The device half of a split ring.

use core::mem::MaybeUninit;

use super::chain::follow;
use super::ring::{Ring, write_if_different};
use crate::config::DeviceConfig;
use crate::error::Error;
use crate::event::PublishedCount;
use crate::fault::PeerFault;
use crate::layout::{F_NO_NOTIFY, RingMemory, direction};
use crate::queue::{Access, Chain, DeviceMemory, DeviceQueue, Head, Lookahead, Used};
use crate::segments::SegList;
use crate::suppression::split_wants;
use crate::sync::{Acquire, Relaxed, Release, full_fence};
use crate::walk::found;

/// The device half of a split ring; see [`DeviceQueue`]. Starts with kicks off.
///
/// ```
/// # use core::ptr::NonNull;
/// # use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{split, DeviceConfig, DeviceQueue, Layout, RingMemory};
///
/// let mut zone = vec![0u128; Layout::Split.bytes(8) / 16];
/// # let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` outlives the queue and nothing else touches it.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Split, 8)?;
/// let config = DeviceConfig::default().size(8).base(65_535);
/// let queue = split::Device::<false, false>::new(&ring, config)?;
/// assert_eq!(queue.base(), 65_535);
/// # Ok::<(), linecard_virtio::Error>(())
/// ```
pub struct Device<const IN_ORDER: bool, const WRITABLE: bool> {
    ring: Ring,
    /// The available index: the next entry to consume, and the value last read from the driver.
    next: u16,
    seen: u16,
    /// The used index: the next entry to write, and the published value.
    used: u16,
    published: u16,
    notify: PublishedCount,
    /// The last completed chain; on an in-order readable queue it stands for the whole batch.
    last: u16,
    event_idx: bool,
    indirect: bool,
}

impl<const IN_ORDER: bool, const WRITABLE: bool> Device<IN_ORDER, WRITABLE> {
    /// Whether one used element stands for a batch. Not on writable queues, where skipped buffers count as
    /// completely written (virtio 1.3, In-order use of descriptors).
    const BATCHED: bool = IN_ORDER && !WRITABLE;

    /// Creates a queue on `memory`, and writes the used ring's flags or `avail_event`.
    ///
    /// # Errors
    /// An [`Error`] for an invalid size, area or position.
    pub fn new(memory: &RingMemory, config: DeviceConfig) -> Result<Self, Error> {
        let ring = Ring::new(memory, config.size)?;
        let base = config.base.unwrap_or(0);
        let start = u16::try_from(base).map_err(|_| Error::Base { base, size: config.size })?;
        let mut queue = Self {
            ring,
            next: start,
            seen: start,
            used: start,
            published: start,
            notify: PublishedCount::new(),
            last: 0,
            event_idx: config.event_idx,
            indirect: config.indirect,
        };
        queue.set_notifications(false);
        Ok(queue)
    }

    /// Acts as if `entries` entries had been published since the last decision.
    #[cfg(all(test, loom))]
    pub(crate) fn published_unasked(&mut self, entries: u16) {
        self.notify.published(entries);
    }

    /// Reads the available index again and returns how many chains are known. If the index is impossible, the
    /// `known` chains are still processed first, as with every other fault.
    #[inline(always)]
    fn refresh(&mut self, known: u16) -> Result<u16, PeerFault> {
        // D1, pairs with the driver's release store of avail.idx: entries and descriptors before it are
        // visible.
        let to = self.ring.avail_idx.load(Acquire);
        let (window, held) = (to.wrapping_sub(self.next), self.next.wrapping_sub(self.used));
        let size = self.ring.size();
        if window <= size.saturating_sub(held) {
            self.seen = to;
            return Ok(window);
        }
        if known > 0 {
            return Ok(known);
        }
        Err(PeerFault::AvailJump { from: self.used, to, size })
    }
}

/// The chain at available index `position`, if it is simple.
#[inline(always)]
fn simple<M: DeviceMemory, const WRITABLE: bool>(ring: &Ring, memory: &M, position: usize) -> Option<Chain> {
    let id = ring.avail(position).load(Relaxed);
    let [addr, meta] = ring.desc(id)?;
    let (addr, meta) = (addr.load(Relaxed), meta.load(Relaxed));
    // Reserved bits select the cold path, which ignores them.
    if (meta >> 32) as u16 != direction(WRITABLE) {
        return None;
    }
    let len = meta as u32;
    let ptr = memory.translate(addr, len, Access::of(WRITABLE))?;
    Some(Chain { ptr: ptr.as_ptr(), len, id })
}

#[inline(always)]
fn write_used(ring: &Ring, position: usize, id: u16, len: u32) {
    let [id_cell, len_cell] = ring.used(position);
    write_if_different(id_cell, u32::from(id));
    write_if_different(len_cell, len);
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
        let mut window = self.seen.wrapping_sub(self.next);
        if usize::from(window) < out.len() {
            window = self.refresh(window)?;
        }
        let n = out.len().min(usize::from(window));
        let (out, _) = out.split_at_mut(n);
        // Atomic accesses make the compiler reload fields, so the loop uses local copies.
        let (ring, next) = (self.ring, usize::from(self.next));
        // A single counter, because no register is left for a second one.
        for (position, chain) in (next..next + n).zip(out) {
            let Some(simple) = simple::<M, WRITABLE>(&ring, memory, position) else {
                return Ok(position - next);
            };
            chain.write(simple);
        }
        Ok(n)
    }

    fn peek_chain<M: DeviceMemory>(
        &mut self,
        memory: &M,
        ahead: Lookahead,
        out: &mut SegList,
    ) -> Result<Option<Head>, PeerFault> {
        out.clear();
        let mut window = self.seen.wrapping_sub(self.next);
        if window <= ahead.chains {
            window = self.refresh(window)?;
        }
        if window <= ahead.chains {
            return Ok(None);
        }
        let head = self.ring.avail(usize::from(self.next) + usize::from(ahead.chains)).load(Relaxed);
        found(follow::<M, WRITABLE>(&self.ring, memory, head, self.indirect, out))
    }

    fn available(&mut self) -> u16 {
        self.ring.avail_idx.load(Acquire).wrapping_sub(self.next).min(self.ring.size())
    }

    #[inline]
    fn is_empty(&mut self) -> bool {
        self.seen == self.next && self.ring.avail_idx.load(Relaxed) == self.next
    }

    #[inline]
    fn complete_burst(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        let count = chains.len() as u16;
        self.next = self.next.wrapping_add(count);
        if Self::BATCHED {
            self.used = self.used.wrapping_add(count);
            self.last = chains.last().map_or(self.last, |chain| chain.id);
            return;
        }
        let (ring, used) = (self.ring, usize::from(self.used));
        self.used = self.used.wrapping_add(count);
        for (k, chain) in chains.iter().enumerate() {
            write_used(&ring, used + k, chain.id, written(k));
        }
    }

    #[inline]
    fn take(&mut self, ahead: Lookahead) {
        let known = self.seen.wrapping_sub(self.next);
        self.next = self.next.wrapping_add(ahead.chains);
        // An earlier device took these chains; they were not peeked here.
        if known < ahead.chains {
            self.seen = self.next;
        }
    }

    #[inline]
    fn complete_taken(&mut self, used: Used) {
        if Self::BATCHED {
            self.used = self.used.wrapping_add(1);
            self.last = used.id;
        } else {
            write_used(&self.ring, usize::from(self.used), used.id, used.len);
            self.used = self.used.wrapping_add(1);
        }
    }

    #[inline]
    fn publish(&mut self) {
        if Self::BATCHED && self.used != self.published {
            // The element that stands for the batch is at the start of the batch.
            let [id, len] = self.ring.used(usize::from(self.published));
            write_if_different(id, u32::from(self.last));
            write_if_different(len, 0);
        }
        // A1, pairs with the driver's acquire load of used.idx: elements and payload before it are visible.
        self.ring.used_idx.store(self.used, Release);
        self.notify.published(self.used.wrapping_sub(self.published));
        self.published = self.used;
    }

    #[inline]
    fn call_hint(&self) -> bool {
        let ring = &self.ring;
        split_wants(self.notify, self.published, self.event_idx, ring.avail_flags, ring.used_event)
    }

    #[inline]
    fn call_needed(&mut self) -> bool {
        // N3, pairs with N4 in the driver's `set_interrupts` (virtio 1.3, Used Buffer Notification
        // Suppression): used.idx must be visible before flags or used_event are read; otherwise both sides
        // sleep.
        full_fence();
        let needed = self.call_hint();
        self.notify.asked();
        needed
    }

    fn set_notifications(&mut self, on: bool) -> bool {
        if self.event_idx {
            // An event just before the next index is a whole lap of 65 536 away.
            let event = if on { self.next } else { self.next.wrapping_sub(1) };
            self.ring.avail_event.store(event, Relaxed);
            self.ring.used_flags.store(0, Relaxed);
        } else {
            self.ring.used_flags.store(if on { 0 } else { F_NO_NOTIFY }, Relaxed);
        }
        if !on {
            return false;
        }
        // N2, pairs with N1 in the driver's `kick_needed`: the request for kicks must be visible before
        // avail.idx is read once more; otherwise a buffer published in between causes no notification.
        full_fence();
        self.ring.avail_idx.load(Acquire) != self.next
    }

    fn base(&self) -> u32 {
        u32::from(self.next)
    }
}
