//! The four rings of an XDP socket, from the application's side: `reserve · write · publish` on rings that it
//! produces, `peek · read · release` on rings that it consumes. The only module of this driver that makes
//! handles from raw pointers.
//!
//! ```text
//!   fill, tx     we produce:  entries ──► producer (ours) ········ consumer (the kernel's)
//!   rx, done     we consume:  entries ◄── producer (the kernel's)  consumer (ours)
//! ```
//! Both indices run freely through 32 bits (`linux/if_xdp.h`, `struct xdp_ring_offset`). Each half keeps its
//! own index and the last known value of the kernel's, so that a burst costs at most one load and one store
//! of shared indices.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use linecard_eal::shared::{Shared, SharedBytes, SharedSlice};
use memmap2::MmapRaw;

/// Returns the entries ready for a consumer; never more than the ring has, whatever the other side wrote.
#[must_use]
pub(super) const fn ready(producer: u32, consumer: u32, size: u32) -> u32 {
    let count = producer.wrapping_sub(consumer);
    if count > size { size } else { count }
}

/// Returns the entries that a producer may write.
#[must_use]
pub(super) const fn free(producer: u32, consumer: u32, size: u32) -> u32 {
    size - ready(producer, consumer, size)
}

/// The offsets of the parts of one ring, in bytes from the start of its mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) entries: usize,
}

impl Offsets {
    /// Returns the bytes to map for `size` entries of `words` words.
    pub(super) const fn bytes(&self, size: u32, words: usize) -> usize {
        self.entries + size as usize * words * 8
    }
}

/// A ring's memory, unmapped when the last half that uses it is dropped.
pub(super) enum RingMapping {
    /// A mapping of the socket.
    Map(MmapRaw),
    /// A ring without a kernel, for tests.
    #[cfg(test)]
    Heap(tests::Heap),
}

impl RingMapping {
    fn bytes(&self) -> (*mut u8, usize) {
        match self {
            Self::Map(map) => (map.as_mut_ptr(), map.len()),
            #[cfg(test)]
            Self::Heap(heap) => heap.bytes(),
        }
    }
}

/// The cells of one ring, and the mapping that they need.
pub(super) struct Ring<const WORDS: usize> {
    producer: Shared<u32>,
    consumer: Shared<u32>,
    flags: Shared<u32>,
    entries: SharedSlice<u64>,
    size: u32,
    _memory: Arc<RingMapping>,
}

impl<const WORDS: usize> Ring<WORDS> {
    /// Returns the ring of `size` entries (a power of two) at `offsets`; `None` if they exceed the memory.
    pub(super) fn new(memory: Arc<RingMapping>, offsets: Offsets, size: u32) -> Option<Self> {
        let (start, len) = memory.bytes();
        // SAFETY: the mapping is readable and writable for `len` bytes, only accessed through these cells,
        // and kept by `_memory` as long as they exist.
        let bytes = unsafe { SharedBytes::new(NonNull::new(start)?, len) };
        size.is_power_of_two().then_some(())?;
        Some(Self {
            producer: bytes.cell(offsets.producer)?,
            consumer: bytes.cell(offsets.consumer)?,
            flags: bytes.cell(offsets.flags)?,
            entries: bytes.cells(offsets.entries, size as usize * WORDS)?,
            size,
            _memory: memory,
        })
    }

    /// Returns whether the kernel sleeps until it is called. A stale answer costs one poll, since each poll
    /// checks again.
    #[inline(always)]
    fn needs_wakeup(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    #[inline(always)]
    fn word(&self, at: u32, word: usize) -> Option<Shared<u64>> {
        self.entries.at((at & (self.size - 1)) as usize * WORDS + word)
    }
}

/// The half that writes entries: fill and tx.
pub(super) struct Producer<const WORDS: usize> {
    ring: Ring<WORDS>,
    /// The index of the next entry, as last published.
    next: u32,
    /// The last known index of the kernel.
    seen: u32,
}

impl<const WORDS: usize> Producer<WORDS> {
    /// Continues at the ring's present index.
    pub(super) fn new(ring: Ring<WORDS>) -> Self {
        let (next, seen) = (ring.producer.load(Ordering::Relaxed), ring.consumer.load(Ordering::Acquire));
        Self { ring, next, seen }
    }

    /// Returns room for at least `want` entries, or for as many as there are.
    #[inline(always)]
    pub(super) fn reserve(&mut self, want: u32) -> Slots<'_, WORDS> {
        if free(self.next, self.seen, self.ring.size) < want {
            // X1, pairs with the kernel's release of its consumer index (`__xskq_cons_release`): it has read the
            // entries before we write over them.
            self.seen = self.ring.consumer.load(Ordering::Acquire);
        }
        let room = free(self.next, self.seen, self.ring.size);
        Slots { at: self.next, end: self.next.wrapping_add(room), producer: self }
    }

    /// Returns the number of entries that the kernel has not taken yet.
    #[inline(always)]
    pub(super) fn pending(&mut self) -> u32 {
        self.seen = self.ring.consumer.load(Ordering::Acquire);
        ready(self.next, self.seen, self.ring.size)
    }

    /// See [`Ring::needs_wakeup`].
    #[inline(always)]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// Free entries, which [`publish`](Self::publish) passes to the kernel all at once.
#[must_use = "what is not published is not sent"]
pub(super) struct Slots<'a, const WORDS: usize> {
    producer: &'a mut Producer<WORDS>,
    at: u32,
    end: u32,
}

impl<const WORDS: usize> Slots<'_, WORDS> {
    /// Returns the number of entries left.
    #[inline(always)]
    pub(super) fn room(&self) -> u32 {
        self.end.wrapping_sub(self.at)
    }

    /// Writes the next entry; false if none is left.
    #[inline(always)]
    pub(super) fn write(&mut self, entry: [u64; WORDS]) -> bool {
        if self.at == self.end {
            return false;
        }
        for (i, value) in entry.into_iter().enumerate() {
            if let Some(word) = self.producer.ring.word(self.at, i) {
                word.store(value, Ordering::Relaxed);
            }
        }
        self.at = self.at.wrapping_add(1);
        true
    }

    /// Publishes the written entries; returns their number.
    #[inline(always)]
    pub(super) fn publish(self) -> u32 {
        let count = self.at.wrapping_sub(self.producer.next);
        if count > 0 {
            self.producer.next = self.at;
            // X2, pairs with the kernel's acquire of our producer index (`__xskq_cons_peek`): the entries are
            // written.
            self.producer.ring.producer.store(self.at, Ordering::Release);
        }
        count
    }
}

/// The half that reads entries: rx and completion.
pub(super) struct Consumer<const WORDS: usize> {
    ring: Ring<WORDS>,
    next: u32,
    seen: u32,
}

impl<const WORDS: usize> Consumer<WORDS> {
    /// Continues at the ring's present index.
    pub(super) fn new(ring: Ring<WORDS>) -> Self {
        let (next, seen) = (ring.consumer.load(Ordering::Relaxed), ring.producer.load(Ordering::Acquire));
        Self { ring, next, seen }
    }

    /// Returns up to `want` entries for reading.
    #[inline(always)]
    pub(super) fn peek(&mut self, want: u32) -> Entries<'_, WORDS> {
        let mut count = ready(self.seen, self.next, self.ring.size);
        if count < want {
            // X3, pairs with the kernel's release of its producer index (`__xskq_prod_submit`): the entries,
            // and the packets that they describe, are written.
            self.seen = self.ring.producer.load(Ordering::Acquire);
            count = ready(self.seen, self.next, self.ring.size);
        }
        Entries { at: self.next, end: self.next.wrapping_add(count.min(want)), consumer: self }
    }

    /// Returns whether there is nothing to read.
    pub(super) fn is_empty(&mut self) -> bool {
        let entries = self.peek(1);
        entries.at == entries.end
    }
}

/// Entries to read, which [`release`](Self::release) returns to the kernel all at once.
#[must_use = "what is not released is seen again"]
pub(super) struct Entries<'a, const WORDS: usize> {
    consumer: &'a mut Consumer<WORDS>,
    at: u32,
    end: u32,
}

impl<const WORDS: usize> Entries<'_, WORDS> {
    /// Returns the number of entries left.
    #[cfg(test)]
    pub(super) fn len(&self) -> u32 {
        self.end.wrapping_sub(self.at)
    }

    /// Reads the next entry, once.
    #[inline(always)]
    pub(super) fn read(&mut self) -> Option<[u64; WORDS]> {
        if self.at == self.end {
            return None;
        }
        let mut entry = [0; WORDS];
        for (i, value) in entry.iter_mut().enumerate() {
            *value = self.consumer.ring.word(self.at, i)?.load(Ordering::Relaxed);
        }
        self.at = self.at.wrapping_add(1);
        Some(entry)
    }

    /// Returns the entries that were read to the kernel.
    #[inline(always)]
    pub(super) fn release(self) {
        if self.at != self.consumer.next {
            self.consumer.next = self.at;
            // X4, pairs with the kernel's acquire of our consumer index (`xskq_prod_nb_free`): we have read the entries
            // before it writes over them.
            self.consumer.ring.consumer.store(self.at, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
