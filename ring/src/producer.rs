//! The producer side of a ring.

use crate::config::{Plain, SharedMemory};
use crate::end::End;
use crate::layout::Half;
use crate::mode::{Claim, Exclusive, Mode, MultiThread};
use crate::view::Reservation;
use crate::{Error, Moved, prefetch};

/// A handle that enqueues. In mode [`Single`](crate::Single) it is the only one and `Send`; in the shared
/// modes it is also `Clone` and, except in [`Adaptive`](crate::Adaptive), `Sync`.
///
/// ```
/// use linecard_ring::mpmc;
/// let (producer, consumer) = mpmc::ring::<u32>(256)?;
/// std::thread::scope(|s| {
///     for worker in 0..4 {
///         let producer = producer.clone();
///         s.spawn(move || assert_eq!(producer.enqueue_bulk(&[worker; 32]).count, 32));
///     }
/// });
/// assert_eq!(consumer.count(), 128);
/// # Ok::<(), linecard_ring::Error>(())
/// ```
pub struct Producer<T, M: Mode> {
    end: End<T, M>,
}

impl<T, M: MultiThread> Clone for Producer<T, M> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone() }
    }
}

impl<T, M: Mode> std::fmt::Debug for Producer<T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("mode", &crate::mode::name(M::KIND))
            .field("capacity", &self.capacity())
            .field("free_count", &self.free_count())
            .finish()
    }
}

impl<T: Plain, M: Mode> Producer<T, M> {
    /// Attaches to the producer side of a ring in `memory`.
    ///
    /// # Errors
    /// The memory has no ring, or one with another layout version, element size or producer mode.
    ///
    /// # Safety
    /// In mode [`Single`](crate::Single) no other producer handle of the ring exists, in any process.
    pub unsafe fn attach(memory: SharedMemory) -> Result<Self, Error> {
        Ok(Self { end: End::attach(memory, Half::Producer)? })
    }
}

impl<T, M: Mode> Producer<T, M> {
    pub(crate) fn new(end: End<T, M>) -> Self {
        Self { end }
    }

    /// The number of elements that the ring can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }

    /// The number of free slots now.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.end.available()
    }

    /// The number of elements in the ring now, including those being dequeued.
    #[must_use]
    pub fn count(&self) -> usize {
        self.end.capacity() - self.end.available()
    }
}

impl<T: Copy + Send, M: Mode> Producer<T, M> {
    /// Enqueues all of `items`, or none if they do not fit.
    #[inline]
    pub fn enqueue_bulk(&self, items: &[T]) -> Moved {
        self.write::<true>(items)
    }

    /// Enqueues as many of the first `items` as fit.
    #[inline]
    pub fn enqueue_burst(&self, items: &[T]) -> Moved {
        self.write::<false>(items)
    }

    /// Enqueues one element.
    ///
    /// # Errors
    /// The element, if the ring is full.
    #[inline]
    pub fn enqueue(&self, item: T) -> Result<(), T> {
        let claim = self.end.claim::<true>(1);
        if claim.count == 0 {
            return Err(item);
        }
        // SAFETY: the claim is the one slot `start`, which this thread owns until `finish`.
        unsafe { self.end.slots.put(claim.start, item) };
        self.end.finish(claim);
        Ok(())
    }

    #[inline(always)]
    fn write<const EXACT: bool>(&self, items: &[T]) -> Moved {
        let claim = self.end.claim::<EXACT>(items.len());
        let count = claim.count as usize;
        if count != 0 {
            // `count <= items.len()`, because a claim never exceeds the request; an exact one equals it.
            let items = if EXACT { items } else { items.get(..count).unwrap_or(items) };
            // SAFETY: `count` slots from `start` on are claimed, at most the ring's capacity.
            unsafe { self.end.slots.write(claim.start, items) };
            self.end.prefetch_ahead(claim, prefetch::write);
            self.end.finish(claim);
        }
        Moved { count, left: claim.left() as usize, high: self.high(claim) }
    }

    /// Whether the ring is at its watermark after this claim. Reads the consumers' tail again before it
    /// answers yes.
    #[inline(always)]
    fn high(&self, claim: Claim) -> bool {
        claim.left() < self.end.high_below && self.free_count() < self.end.high_below as usize
    }
}

impl<T: Copy + Send, M: Exclusive> Producer<T, M> {
    /// Reserves up to `count` slots to be written in place. Nothing is visible before
    /// [`publish`](Reservation::publish); dropping the view returns all slots.
    ///
    /// In mode [`Hts`](crate::Hts) other producers wait while the view is open: do not enqueue through
    /// another handle on the same thread meanwhile, and do not leak the view.
    #[inline]
    pub fn reserve(&mut self, count: usize) -> Reservation<'_, T, M> {
        Reservation::new(&self.end, self.end.claim::<false>(count))
    }

    /// As [`reserve`](Self::reserve), but all or nothing: `None` if fewer than `count` slots are free.
    #[inline]
    pub fn reserve_bulk(&mut self, count: usize) -> Option<Reservation<'_, T, M>> {
        let claim = self.end.claim::<true>(count);
        (claim.count as usize == count).then(|| Reservation::new(&self.end, claim))
    }
}
