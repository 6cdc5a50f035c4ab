//! The side that takes elements out.

use std::mem::MaybeUninit;

use crate::config::{Plain, SharedMemory};
use crate::end::End;
use crate::layout::Half;
use crate::mode::{Exclusive, Mode, MultiThread};
use crate::view::Peek;
use crate::{Error, Moved, prefetch};

/// A handle that dequeues. In mode [`Single`](crate::Single) it is the only one and `Send`; in the shared
/// modes it is `Clone` and `Sync` as well.
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
    /// Joins the consuming side of a ring that was laid out in `memory`.
    ///
    /// # Errors
    /// The memory holds no ring, or one with another layout version, element size or consumer mode.
    ///
    /// # Safety
    /// In mode [`Single`](crate::Single) no other consumer handle of the ring lives, in any process.
    pub unsafe fn attach(memory: SharedMemory) -> Result<Self, Error> {
        Ok(Self { end: End::attach(memory, Half::Consumer)? })
    }
}

impl<T, M: Mode> Consumer<T, M> {
    pub(crate) fn new(end: End<T, M>) -> Self {
        Self { end }
    }

    /// Elements the ring holds when full.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }

    /// Elements that can be dequeued now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.end.available()
    }

    /// Free slots now, not counting those being enqueued.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.end.capacity() - self.end.available()
    }
}

impl<T: Copy + Send, M: Mode> Consumer<T, M> {
    /// Fills all of `out`, or takes nothing if the ring holds fewer elements.
    #[inline]
    pub fn dequeue_bulk(&self, out: &mut [T]) -> Moved {
        self.read::<true>(as_uninit(out))
    }

    /// Fills as much of the front of `out` as there are elements.
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

    /// Takes one element, or `None` if the ring is empty.
    #[inline]
    pub fn dequeue(&self) -> Option<T> {
        let claim = self.end.claim::<true>(1);
        if claim.count == 0 {
            return None;
        }
        // SAFETY: the slot is claimed; claimable slots hold values (in shared memory: any bytes are one).
        let item = unsafe { self.end.slots.take(claim.start) };
        self.end.finish(claim);
        Some(item)
    }

    #[inline(always)]
    fn read<const EXACT: bool>(&self, out: &mut [MaybeUninit<T>]) -> Moved {
        let claim = self.end.claim::<EXACT>(out.len());
        let count = claim.count as usize;
        if count != 0 {
            // `count <= out.len()`, as a claim is never more than was wanted; an exact one is all of it.
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
    /// Looks at up to `count` elements in place. They stay in the ring until
    /// [`release`](Peek::release); dropping the view takes nothing.
    ///
    /// In mode [`Hts`](crate::Hts) other consumers wait while the view is open, so do not dequeue through
    /// another handle from the same thread meanwhile, and do not leak it.
    #[inline]
    pub fn peek(&mut self, count: usize) -> Peek<'_, T, M> {
        Peek::new(&self.end, self.end.claim::<false>(count))
    }
}

/// Initialised memory is as good as uninitialised to write elements into.
#[inline(always)]
fn as_uninit<T: Copy>(out: &mut [T]) -> &mut [MaybeUninit<T>] {
    let (start, len) = (out.as_mut_ptr().cast(), out.len());
    // SAFETY: same layout and lifetime; only this module gets the slice, and it writes nothing but values.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}
