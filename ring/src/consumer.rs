//! The consumer side of a ring.

use std::mem::MaybeUninit;

use crate::config::{Plain, SharedMemory};
use crate::end::End;
use crate::layout::Half;
use crate::mode::{Exclusive, Mode, MultiThread};
use crate::view::Peek;
use crate::{Error, Moved, prefetch};

/// A handle that dequeues. In mode [`Single`](crate::Single) it is the only one and `Send`; in the shared
/// modes it is also `Clone` and, except in [`Adaptive`](crate::Adaptive), `Sync`.
///
/// ```
/// let (producer, consumer) = linecard_ring::spsc::ring::<u32>(256)?;
/// let feeder = std::thread::spawn(move || producer.enqueue_bulk(&[1, 2, 3]).count);
/// assert_eq!(feeder.join().ok(), Some(3));
/// let mut out = [0; 32];
/// assert_eq!(consumer.dequeue_burst(&mut out).count, 3);
/// assert_eq!(out[..3], [1, 2, 3]);
/// # Ok::<(), linecard_ring::Error>(())
/// ```
pub struct Consumer<T, M: Mode> {
    end: End<T, M>,
}

impl<T, M: MultiThread> Clone for Consumer<T, M> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone() }
    }
}

impl<T, M: Mode> std::fmt::Debug for Consumer<T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("mode", &crate::mode::name(M::KIND))
            .field("capacity", &self.capacity())
            .field("count", &self.count())
            .finish()
    }
}

impl<T: Plain, M: Mode> Consumer<T, M> {
    /// Attaches to the consumer side of a ring in `memory`.
    ///
    /// # Errors
    /// The memory has no ring, or one with another layout version, element size or consumer mode.
    ///
    /// # Safety
    /// In mode [`Single`](crate::Single) no other consumer handle of the ring exists, in any process.
    pub unsafe fn attach(memory: SharedMemory) -> Result<Self, Error> {
        Ok(Self { end: End::attach(memory, Half::Consumer)? })
    }
}

impl<T, M: Mode> Consumer<T, M> {
    pub(crate) fn new(end: End<T, M>) -> Self {
        Self { end }
    }

    /// The number of elements that the ring can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }

    /// The number of elements that can be dequeued now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.end.available()
    }

    /// The number of free slots now, not counting those being enqueued.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.end.capacity() - self.end.available()
    }
}

impl<T: Copy + Send, M: Mode> Consumer<T, M> {
    /// Fills all of `out`, or dequeues nothing if the ring has fewer elements.
    #[inline]
    pub fn dequeue_bulk(&self, out: &mut [T]) -> Moved {
        self.read::<true>(as_uninit(out))
    }

    /// Dequeues as many elements as there are, at most `out.len()`, to the front of `out`.
    #[inline]
    pub fn dequeue_burst(&self, out: &mut [T]) -> Moved {
        self.read::<false>(as_uninit(out))
    }

    /// [`dequeue_bulk`](Self::dequeue_bulk) into uninitialised memory: all of `out` is initialised if
    /// [`Moved::count`] is not 0.
    #[inline]
    pub fn dequeue_bulk_uninit(&self, out: &mut [MaybeUninit<T>]) -> Moved {
        self.read::<true>(out)
    }

    /// [`dequeue_burst`](Self::dequeue_burst) into uninitialised memory: the first [`Moved::count`] elements
    /// of `out` are initialised.
    #[inline]
    pub fn dequeue_burst_uninit(&self, out: &mut [MaybeUninit<T>]) -> Moved {
        self.read::<false>(out)
    }

    /// Dequeues one element, or returns `None` if the ring is empty.
    #[inline]
    pub fn dequeue(&self) -> Option<T> {
        let claim = self.end.claim::<true>(1);
        if claim.count == 0 {
            return None;
        }
        // SAFETY: the slot is claimed; slots that can be claimed hold values (in shared memory any bytes are
        // a value).
        let item = unsafe { self.end.slots.take(claim.start) };
        self.end.finish(claim);
        Some(item)
    }

    #[inline(always)]
    fn read<const EXACT: bool>(&self, out: &mut [MaybeUninit<T>]) -> Moved {
        let claim = self.end.claim::<EXACT>(out.len());
        let count = claim.count as usize;
        if count != 0 {
            // `count <= out.len()`, because a claim never exceeds the request; an exact one equals it.
            let out = if EXACT { out } else { out.get_mut(..count).unwrap_or_default() };
            // SAFETY: `count` slots from `start` on are claimed, at most the ring's capacity.
            unsafe { self.end.slots.read(claim.start, out) };
            self.end.prefetch_ahead(claim, prefetch::read);
            self.end.finish(claim);
        }
        Moved { count, left: claim.left() as usize, high: false }
    }
}

impl<T: Copy + Send, M: Exclusive> Consumer<T, M> {
    /// Returns a view of up to `count` elements in place. They stay in the ring until
    /// [`release`](Peek::release); dropping the view dequeues nothing.
    ///
    /// In mode [`Hts`](crate::Hts) other consumers wait while the view is open: do not dequeue through
    /// another handle on the same thread meanwhile, and do not leak the view.
    #[inline]
    pub fn peek(&mut self, count: usize) -> Peek<'_, T, M> {
        Peek::new(&self.end, self.end.claim::<false>(count))
    }
}

/// Elements may be written to initialised memory as to uninitialised memory.
#[inline(always)]
fn as_uninit<T: Copy>(out: &mut [T]) -> &mut [MaybeUninit<T>] {
    let (start, len) = (out.as_mut_ptr().cast(), out.len());
    // SAFETY: same layout and lifetime; only this module uses the slice, and it writes only values.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}
