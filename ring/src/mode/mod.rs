//! Synchronisation modes: how the threads of one side agree on who uses which slots.
//!
//! Producers and consumers run the same protocol. A side may advance up to a *limit*: the other side's tail
//! (for consumers), or that tail plus the capacity (for producers). A thread *claims* a range below the
//! limit, copies, and *finishes*: publishes its own side's tail. The modes are those of `rte_ring`.

mod adaptive;
mod hts;
mod multi;
mod rts;
mod single;

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use crate::layout::Side;
use crate::prefetch::compiler_barrier;

/// One thread at a time owns this side (SP or SC): private indices, no locked instruction, no waiting.
///
/// ```
/// use linecard_ring::{Config, Single};
/// let (producer, consumer) = Config::power_of_two(8).heap::<u32, Single, Single>()?;
/// assert_eq!(producer.enqueue(1), Ok(()));
/// assert_eq!(consumer.dequeue(), Some(1));
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug)]
pub enum Single {}

/// Any number of threads (MP or MC). Each claims a range with one compare-and-swap. Ranges are published in
/// the order of the claims, so a thread that is preempted delays the others of its side.
///
/// ```
/// use linecard_ring::{Config, Multi, Single};
/// let (producer, consumer) = Config::power_of_two(8).heap::<u32, Multi, Single>()?;
/// std::thread::scope(|s| {
///     s.spawn(|| producer.enqueue(1));
///     s.spawn(|| producer.enqueue(2));
/// });
/// assert_eq!(consumer.count(), 2);
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug)]
pub enum Multi {}

/// As [`Single`] while the side has one handle, as [`Multi`] from the second on. Handles are counted, so a
/// side with one thread executes no locked instruction. In exchange, one thread at a time owns a handle;
/// every thread clones its own. In memory given by the caller it always works as [`Multi`].
///
/// ```
/// use linecard_ring::{Adaptive, Config};
/// let (producer, consumer) = Config::power_of_two(8).heap::<u32, Adaptive, Adaptive>()?;
/// assert_eq!(producer.enqueue(1), Ok(())); // no locked instruction
/// let other = producer.clone();
/// std::thread::spawn(move || other.enqueue(2)).join().ok(); // from here on one per enqueue, until `other` is gone
/// assert_eq!(consumer.count(), 2);
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug)]
pub enum Adaptive {}

/// Relaxed tail sync (RTS): as [`Multi`], but threads do not wait for each other to publish; the last one to
/// finish publishes for all. Suitable for more threads than cores.
///
/// ```
/// use linecard_ring::{Config, Rts};
/// let (producer, consumer) = Config::power_of_two(8).heap::<u32, Rts, Rts>()?;
/// assert_eq!(producer.clone().enqueue_burst(&[1, 2, 3]).count, 3);
/// assert_eq!(consumer.clone().dequeue(), Some(1));
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug)]
pub enum Rts {}

/// Head-tail sync (HTS): only one thread of this side at a time has a claim; the others wait before they
/// claim. Slower than [`Multi`] on dedicated cores, steady on shared ones, and supports zero-copy views.
///
/// ```
/// use linecard_ring::{Config, Hts};
/// let (producer, mut consumer) = Config::power_of_two(8).heap::<u32, Hts, Hts>()?;
/// assert_eq!(producer.clone().enqueue_burst(&[1, 2, 3]).count, 3);
/// let mut view = consumer.peek(2);
/// assert_eq!((view.read(), view.get(0)), (Some(1), Some(2)));
/// assert_eq!(view.release(), 1);
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug)]
pub enum Hts {}

/// A way to synchronise one side: [`Single`], [`Multi`], [`Adaptive`], [`Rts`] or [`Hts`].
pub trait Mode: protocol::Protocol {}

/// Modes for sides with several threads: handles are `Clone` and, except in [`Adaptive`], `Sync`.
pub trait MultiThread: Mode {}

/// Modes with at most one open claim, so that views (`reserve`, `peek`) can return a part of it.
pub trait Exclusive: Mode {}

impl<M: protocol::Protocol> Mode for M {}
impl MultiThread for Multi {}
impl MultiThread for Adaptive {}
impl MultiThread for Rts {}
impl MultiThread for Hts {}
impl Exclusive for Single {}
impl Exclusive for Hts {}

/// The numbers of the modes in a ring's header.
pub(crate) const SINGLE: u32 = 1;
pub(crate) const MULTI: u32 = 2;
pub(crate) const RTS: u32 = 3;
pub(crate) const HTS: u32 = 4;
pub(crate) const ADAPTIVE: u32 = 5;

/// The name of a mode number.
pub(crate) fn name(kind: u32) -> &'static str {
    match kind {
        SINGLE => "single",
        MULTI => "multi",
        RTS => "rts",
        HTS => "hts",
        ADAPTIVE => "adaptive",
        _ => "unknown",
    }
}

/// The initial head word of a side.
pub(crate) fn first_word(kind: u32, start: u32, limit: u32) -> u64 {
    match kind {
        MULTI | ADAPTIVE => pack(start, limit),
        HTS => pack(start, start),
        _ => pack(start, 0),
    }
}

/// Two 32-bit values in one word that is swapped atomically.
#[inline(always)]
pub(crate) const fn pack(low: u32, high: u32) -> u64 {
    (low as u64) | ((high as u64) << 32)
}

/// The index half of a word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

/// The other half of a word.
#[inline(always)]
pub(crate) const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Both sides, from the view of one of them.
#[derive(Clone, Copy)]
pub struct Sides {
    own: NonNull<Side>,
    peer: NonNull<Side>,
    /// The limit minus the peer's tail: the capacity for producers, 0 for consumers.
    limit_offset: u32,
    capacity: u32,
}

impl Sides {
    /// # Safety
    /// Both cells stay valid for as long as this value and its copies are used.
    pub(crate) unsafe fn new(
        sides: (NonNull<Side>, NonNull<Side>),
        limit_offset: u32,
        capacity: u32,
    ) -> Self {
        Self { own: sides.0, peer: sides.1, limit_offset, capacity }
    }

    #[inline(always)]
    pub(crate) fn own(&self) -> &Side {
        // SAFETY: valid while `self` is used (`new`); a `Side` is only atomics.
        unsafe { self.own.as_ref() }
    }

    #[inline(always)]
    fn peer(&self) -> &Side {
        // SAFETY: valid while `self` is used (the condition of `new`); a `Side` is only atomics.
        unsafe { self.peer.as_ref() }
    }

    /// The current limit of this side.
    #[inline(always)]
    fn limit(&self) -> u32 {
        // T2, pairs with T1 in every `finish` of the other side: its copies, in or out, are done.
        low(self.peer().tail.load(Ordering::Acquire)).wrapping_add(self.limit_offset)
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The number of slots between this side's published tail and the limit; at most the capacity.
    pub(crate) fn available(&self) -> u32 {
        let tail = low(self.own().tail.load(Ordering::Acquire));
        self.limit().wrapping_sub(tail).min(self.capacity)
    }
}

/// A range of slots that only this thread may access until it finishes.
#[derive(Clone, Copy)]
pub struct Claim {
    /// The index of the first slot.
    pub(crate) start: u32,
    /// The number of slots; 0 is no claim and needs no finish.
    pub(crate) count: u32,
    /// The limit of this side at the time of the claim.
    pub(crate) limit: u32,
}

impl Claim {
    /// The claim for `want` slots from `start` on, below `limit`: all or none if `EXACT`.
    #[inline(always)]
    fn new<const EXACT: bool>(start: u32, limit: u32, want: u32) -> Self {
        let available = limit.wrapping_sub(start);
        if available < want {
            compiler_barrier();
            return Self { start, count: if EXACT { 0 } else { available }, limit };
        }
        Self { start, count: want, limit }
    }

    /// The number of slots known to be available behind the claim.
    #[inline(always)]
    pub(crate) const fn left(self) -> u32 {
        self.limit.wrapping_sub(self.start).wrapping_sub(self.count)
    }

    const fn none(start: u32) -> Self {
        Self { start, count: 0, limit: start }
    }
}

pub(crate) mod protocol {
    use super::{Claim, Sides};

    /// The protocol of one mode.
    pub trait Protocol: Sized {
        /// The private state of a handle.
        type Local: Send;
        /// The mode's number in the header.
        const KIND: u32;

        /// Creates the private state of a handle that joins now.
        fn join(sides: &Sides) -> Self::Local;

        /// Undoes [`join`](Self::join).
        #[inline(always)]
        fn leave(_: &Self::Local, _: &Sides) {}

        /// Claims `want` slots, or as many as there are unless `EXACT`.
        fn claim<const EXACT: bool>(local: &Self::Local, sides: &Sides, want: u32) -> Claim;

        /// Publishes the first `count` slots of a claim. `count` is `claim.count`, except in
        /// [`Exclusive`](super::Exclusive) modes, where the others are returned.
        fn finish(local: &Self::Local, sides: &Sides, claim: Claim, count: u32);
    }
}
