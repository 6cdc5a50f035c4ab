//! The two halves of a virtqueue as traits, on which the burst loops of frontends and backends are based.
//!
//! Both halves use the same verbs. The driver half *adds* and *publishes* on one side and *completes* on the
//! other; the device half *peeks*, then *completes* (or *takes*), then *publishes*. Nothing becomes visible
//! to the peer before `publish`, and a burst needs one release store. Whether the peer must be notified is a
//! separate decision (`kick_needed`, `call_needed`), made once per burst, because it is the only one that
//! needs a fence.
//!
//! The traits use addresses, lengths and tokens, never packets. They are meant for monomorphised callers: the
//! burst methods take iterators and closures so that ring state stays in registers for the whole burst.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::error::NotLent;
use crate::fault::PeerFault;
use crate::segments::SegList;
use crate::suppression::Unasked;

/// The memory of one descriptor, which a driver makes available to the device.
///
/// ```
/// let buffer = linecard_virtio::Buffer { addr: 0x10_0000, len: 2048, token: 7 };
/// assert_eq!(buffer.len, 2048);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The address as the device sees it (for vhost-user: the frontend's own virtual address).
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// A value that the completion returns to the caller; usually a pointer.
    pub token: u64,
}

/// A buffer that the device returned.
///
/// ```
/// let done = linecard_virtio::Completion { token: 7, len: 64 };
/// assert_eq!((done.token, done.len), (7, 64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The token passed to [`DriverQueue::add_burst`] or [`DriverQueue::add_chain`].
    pub token: u64,
    /// The bytes reported as written, at most the buffer's length. Always 0 on a readable (transmit) queue.
    pub len: u32,
}

/// One element of a buffer (virtio 1.3, Virtqueues): an address as the device sees it, and a length in bytes.
///
/// ```
/// let elements = [linecard_virtio::Element { addr: 0x1000, len: 12 }, linecard_virtio::Element { addr: 0x2000, len: 60 }];
/// assert_eq!(elements.iter().map(|e| e.len).sum::<u32>(), 72);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// The address as the device sees it.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
}

/// The driver half: the frontend's side of one queue, in one direction.
///
/// The ring is in the caller's own memory, but the peer can write anywhere in it. Data needed later is
/// therefore kept in private memory, and every id and length that the peer returns is checked.
///
/// ```
/// use core::mem::MaybeUninit;
/// use linecard_virtio::{Buffer, DriverQueue, PeerFault};
///
/// /// Hands `buffers` to the device and collects what it has finished; `kick` wakes it when it sleeps.
/// fn turn<Q: DriverQueue>(q: &mut Q, buffers: &[Buffer], kick: impl Fn()) -> Result<usize, PeerFault> {
///     let added = q.add_burst(buffers.iter().copied());
///     if added > 0 {
///         q.publish();
///         if q.kick_needed() {
///             kick();
///         }
///     }
///     let mut done = [const { MaybeUninit::uninit() }; 32];
///     q.complete(&mut done)
/// }
/// ```
///
/// # Safety
/// Implementors guarantee that every token accepted by `add`, `add_burst` or `add_chain` is returned exactly
/// once, from `complete` or `take_all`, whatever the peer writes; that the first `n` elements are initialised
/// when `complete` returns `Ok(n)`; and that a completion's `len` is at most the bytes of that buffer.
/// Callers may therefore turn tokens back into owned pointers.
pub unsafe trait DriverQueue: Send + Sized {
    /// Whether the device writes into the buffers (receive) or reads them (transmit).
    const WRITABLE: bool;

    /// The number of descriptors of the ring (virtio 1.3, Queue Size), without indirect tables.
    fn size(&self) -> u16;

    /// The number of descriptors that are not in flight.
    fn free(&self) -> u16;

    /// Adds one-descriptor buffers until the iterator ends or the ring is full. Returns how many were added.
    ///
    /// An element is taken from the iterator only if there is room for it. The device sees the buffers after
    /// [`publish`](Self::publish).
    fn add_burst(&mut self, buffers: impl Iterator<Item = Buffer>) -> usize;

    /// Adds a buffer of one descriptor.
    ///
    /// # Errors
    /// The ring is full.
    #[inline]
    fn add(&mut self, buffer: Buffer) -> Result<(), NotLent> {
        if self.add_burst(core::iter::once(buffer)) == 1 { Ok(()) } else { Err(NotLent) }
    }

    /// Adds a buffer of several segments: as one indirect descriptor if the queue has indirect tables and the
    /// segments fit one, otherwise as a direct chain.
    ///
    /// # Errors
    /// The buffer is empty, does not fit the free descriptors, or is longer than 2³² − 1 bytes. It is not added then.
    fn add_chain(&mut self, segments: &[Element], token: u64) -> Result<(), NotLent>;

    /// Makes everything added since the last call visible to the device, by one release store.
    fn publish(&mut self);

    /// The current value of the device's suppression flag, read without a fence: a hint that may be stale. False means
    /// that the device probably polls: a caller that is sure to return may skip [`kick_needed`](Self::kick_needed) now
    /// and call it at its next poll or before it sleeps. Published buffers count until `kick_needed` is called.
    fn kick_hint(&self) -> bool;

    /// `None` if [`kick_hint`](Self::kick_hint) is true. Otherwise what was published since the last
    /// [`kick_needed`](Self::kick_needed), so that another thread can decide for this queue
    /// ([`DeviceSuppression::kick_needed`](crate::DeviceSuppression::kick_needed)).
    fn unasked(&self) -> Option<Unasked>;

    /// Whether the device must be notified of what was published since the last call. Executes one full fence.
    #[must_use = "a kick that is not sent leaves the device asleep"]
    fn kick_needed(&mut self) -> bool;

    /// Collects finished buffers into the front of `out`, and returns how many.
    ///
    /// # Errors
    /// A [`PeerFault`] if the device's next entry is impossible (an id that is not in flight, a length above
    /// the buffer's, an index jump). Buffers finished before it are returned first, by an `Ok`. After an
    /// error, stop the queue and reclaim its buffers by [`take_all`](Self::take_all).
    fn complete(&mut self, out: &mut [MaybeUninit<Completion>]) -> Result<usize, PeerFault>;

    /// Descriptors that the device has finished with and [`complete`](Self::complete) has not collected; in a split ring
    /// a chain counts as one. Reads shared memory, and walks the descriptors of a packed ring, so it is for statistics
    /// and tests. If the device writes nonsense, the result is at most the number in flight.
    fn completed(&self) -> u16;

    /// Enables or disables interrupts on completion. When enabling, returns true if a completion has arrived already: the
    /// caller must then [`complete`](Self::complete) before it sleeps. Enabling executes one full fence.
    fn set_interrupts(&mut self, on: bool) -> bool;

    /// Ends the queue after the device has been stopped: calls `f` with every token still in flight. To use
    /// the ring again, create a new queue. Dropping a queue without this call loses the tokens.
    ///
    /// ```compile_fail,E0382
    /// fn reset<Q: linecard_virtio::DriverQueue>(mut queue: Q) {
    ///     queue.take_all(&mut |token| drop(token));
    ///     let _ = queue.free(); // what the device writes from here on can complete nothing
    /// }
    /// ```
    fn take_all(self, f: &mut dyn FnMut(u64));
}

/// The access of the device half to a peer's memory.
///
/// ```
/// use linecard_virtio::Access;
/// assert_eq!(Access::of(true), Access::Write);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A read of a transmit queue's buffer or of an indirect table.
    Read,
    /// A write to a receive queue's buffer.
    Write,
}

impl Access {
    /// The access to the buffers of a queue that the device may write (`writable`) or only read.
    #[must_use]
    pub const fn of(writable: bool) -> Self {
        if writable { Self::Write } else { Self::Read }
    }
}

/// The translation of a peer's address.
///
/// ```
/// use linecard_virtio::Translation;
/// let mut byte = 0u8;
/// assert_ne!(Translation::Present(core::ptr::NonNull::from(&mut byte), 1), Translation::Absent);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// The location of this many contiguous bytes, at least one.
    Present(NonNull<u8>, u32),
    /// There is no memory at this address: a protocol violation.
    Absent,
    /// The translation has been requested from an IOMMU and is not known yet. The chain stays in the ring
    /// until it is looked at again.
    NotYet,
}

/// Translates for memory whose translations are all known: `None` is [`Absent`](Translation::Absent).
impl From<Option<(NonNull<u8>, u32)>> for Translation {
    fn from(piece: Option<(NonNull<u8>, u32)>) -> Self {
        piece.map_or(Self::Absent, |(start, len)| Self::Present(start, len))
    }
}

/// Guest memory as the device half sees it.
///
/// ```
/// use core::ptr::NonNull;
/// use linecard_virtio::{Access, DeviceMemory, Translation};
///
/// /// One region that starts at address 0.
/// struct Flat { start: NonNull<u8>, len: u64 }
///
/// // SAFETY: pointers are handed out only for ranges inside the region, which outlives `self`.
/// unsafe impl DeviceMemory for Flat {
///     fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
///         let end = addr.checked_add(u64::from(len))?;
///         // SAFETY: `addr <= end <= len`, so the result stays inside the region.
///         (end <= self.len).then(|| unsafe { self.start.add(addr as usize) })
///     }
///     fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
///         let room = u32::try_from(self.len.saturating_sub(addr)).unwrap_or(u32::MAX);
///         match self.translate(addr, len.min(room), access) {
///             Some(start) if len.min(room) > 0 => Translation::Present(start, len.min(room)),
///             _ => Translation::Absent,
///         }
///     }
/// }
/// let mut bytes = [0u8; 64];
/// let memory = Flat { start: NonNull::from(&mut bytes).cast(), len: 64 };
/// assert!(memory.translate(60, 4, Access::Read).is_some());
/// assert!(memory.translate(60, 5, Access::Read).is_none());
/// ```
///
/// # Safety
/// A returned pointer must be valid for reads and writes of the returned number of bytes (for `translate`: of
/// `len`) by raw-pointer and atomic access, for as long as the consumer uses this memory. Memory for which
/// the peer does not *allow* the requested access is not returned.
pub unsafe trait DeviceMemory {
    /// The location of `len` bytes at `addr`, if all of them are contiguous in this process. Otherwise
    /// [`translate_part`](Self::translate_part) gives the reason.
    fn translate(&self, addr: u64, len: u32, access: Access) -> Option<NonNull<u8>>;

    /// The location of the longest contiguous prefix of `len` bytes at `addr`; its length is 1 to `len`.
    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation;
}

/// A *simple* available chain: one direct descriptor of the right direction, translated, contiguous in this process.
///
/// ```
/// let chain = linecard_virtio::Chain { ptr: core::ptr::null_mut(), len: 0, id: 3 };
/// assert_eq!(linecard_virtio::Used::from(chain), linecard_virtio::Used { id: 3, descs: 1, len: 0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The location of the bytes. The peer may change them at any time: copy, never borrow.
    pub ptr: *mut u8,
    /// The length of the buffer in bytes, as read once from the descriptor.
    pub len: u32,
    /// Split: index of the descriptor. Packed: buffer id.
    pub id: u16,
}

/// The next chain of any shape; its memory is in the [`SegList`] passed to the call.
///
/// ```
/// use linecard_virtio::{Lookahead, Head};
/// let head = Head { id: 3, descs: 2, len: 72 };
/// assert_eq!(Lookahead::default().past(head), Lookahead { chains: 1, descs: 2 });
/// assert_eq!(head.used(12).len, 12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Split: index of the head descriptor. Packed: buffer id.
    pub id: u16,
    /// Ring slots that it occupies (an indirect chain occupies one).
    pub descs: u16,
    /// Bytes in all its segments, or in those that a [limited](SegList::limited) list accepted.
    pub len: u32,
}

impl Head {
    /// This chain as used, with `len` bytes written.
    #[must_use]
    pub const fn used(self, len: u32) -> Used {
        Used { id: self.id, descs: self.descs, len }
    }
}

/// How far to look beyond the next chain: a number of chains, and the ring slots that they occupy.
///
/// ```
/// // behind three simple chains:
/// let ahead = linecard_virtio::Lookahead { chains: 3, descs: 3 };
/// assert_ne!(ahead, linecard_virtio::Lookahead::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookahead {
    /// Chains skipped.
    pub chains: u16,
    /// Ring slots that they occupy.
    pub descs: u16,
}

impl Lookahead {
    /// The position after `head`, too.
    #[must_use]
    pub const fn past(self, head: Head) -> Lookahead {
        Lookahead { chains: self.chains.wrapping_add(1), descs: self.descs.wrapping_add(head.descs) }
    }
}

/// A chain to return: its id, its number of ring slots, and the bytes written into it.
///
/// ```
/// let used = linecard_virtio::Used { id: 3, descs: 1, len: 76 };
/// assert_eq!(used.descs, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The id, as in [`Chain::id`] or [`Head::id`].
    pub id: u16,
    /// Ring slots of the chain; 1 for a [`Chain`].
    pub descs: u16,
    /// Bytes written from the start of the chain; 0 on a readable queue.
    pub len: u32,
}

impl From<Chain> for Used {
    fn from(chain: Chain) -> Self {
        Self { id: chain.id, descs: 1, len: 0 }
    }
}

/// The device half: the backend's side of one queue, in one direction.
///
/// The ring is in the peer's memory. Indices and descriptors are read once, into values, and checked.
///
/// ```
/// use core::mem::MaybeUninit;
/// use linecard_virtio::{Chain, DeviceMemory, DeviceQueue, PeerFault, SegList, Lookahead};
///
/// /// Gives every available buffer back untouched; `call` wakes the driver when it sleeps.
/// fn drain<Q: DeviceQueue, M: DeviceMemory>(q: &mut Q, memory: &M, call: impl Fn()) -> Result<(), PeerFault> {
///     let mut chains = [const { MaybeUninit::<Chain>::uninit() }; 32];
///     let mut segments = SegList::new();
///     loop {
///         let n = q.peek(memory, &mut chains)?;
///         // SAFETY: `peek` initialised the first `n` chains.
///         let simple = unsafe { chains[..n].assume_init_ref() };
///         q.complete_burst(simple, |_| 0);
///         if n == 0 {
///             let Some(head) = q.peek_chain(memory, Lookahead::default(), &mut segments)? else { break };
///             q.complete(head.used(0));
///         }
///     }
///     q.publish();
///     if q.call_needed() {
///         call();
///     }
///     Ok(())
/// }
/// ```
///
/// # Safety
/// Implementors guarantee that when `peek` returns `Ok(n)` the first `n` chains are initialised, and that
/// every pointer in a [`Chain`] or [`SegList`] came from the given [`DeviceMemory`] for exactly the length
/// next to it, whatever the peer writes. Callers may therefore copy through those pointers.
pub unsafe trait DeviceQueue: Send {
    /// Whether this side writes into the buffers (the driver's receive queue) or reads them (its transmit queue).
    const WRITABLE: bool;

    /// The number of descriptors of the ring (virtio 1.3, Queue Size).
    fn size(&self) -> u16;

    /// Copies up to `out.len()` consecutive *simple* chains, from the next unconsumed one on, without consuming them.
    ///
    /// Stops before the first chain that is not simple, so `Ok(0)` means that nothing is available or that
    /// the next chain needs [`peek_chain`](Self::peek_chain). The shared index is read again only if fewer
    /// chains are known than requested.
    ///
    /// # Errors
    /// A [`PeerFault`] if the driver wrote an impossible index or descriptor number.
    fn peek<M: DeviceMemory>(
        &mut self,
        memory: &M,
        out: &mut [MaybeUninit<Chain>],
    ) -> Result<usize, PeerFault>;

    /// The chain at `ahead` beyond the next unconsumed one, of any shape (direct, chained, indirect, crossing
    /// regions), as segments in `out`. `None` if there is none, or if a translation is [not known
    /// yet](Translation::NotYet). Does not consume the chain. The cold path.
    ///
    /// # Errors
    /// A [`PeerFault`] if the chain loops, is longer than the ring or than 2³² − 1 bytes, points outside the
    /// memory, has a descriptor of the wrong direction, or is indirect although that was not negotiated.
    fn peek_chain<M: DeviceMemory>(
        &mut self,
        memory: &M,
        ahead: Lookahead,
        out: &mut SegList,
    ) -> Result<Option<Head>, PeerFault>;

    /// The number of chains available and not consumed. Reads shared memory, and walks the descriptors of a packed ring,
    /// so it is for statistics and tests. If the peer writes nonsense, the result is at most [`size`](Self::size).
    fn available(&mut self) -> u16;

    /// Whether nothing is available. Reads shared memory once if no chain is known.
    fn is_empty(&mut self) -> bool;

    /// Prepares chains after the next one for the time when they are needed. Does nothing by default.
    #[inline]
    fn look_ahead(&mut self) {}

    /// Consumes the next simple chains, in the order in which they were peeked, and writes them back as used,
    /// with `written(k)` bytes in `chains[k]`. The driver sees nothing before [`publish`](Self::publish).
    ///
    /// On an in-order readable queue this has no cost per chain.
    fn complete_burst(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32);

    /// Consumes the next chain, in peek order, and writes it back as used.
    #[inline]
    fn complete(&mut self, used: Used) {
        self.take(Lookahead { chains: 1, descs: used.descs });
        self.complete_taken(used);
    }

    /// Consumes the next chains without writing them back yet. The caller may return them in any order (in
    /// order if IN_ORDER was negotiated) by [`complete_taken`](Self::complete_taken).
    fn take(&mut self, ahead: Lookahead);

    /// Writes back a chain consumed earlier by [`take`](Self::take).
    fn complete_taken(&mut self, used: Used);

    /// Makes everything completed since the last call visible to the driver, by one release store.
    fn publish(&mut self);

    /// The current value of the driver's suppression flag, read without a fence; see [`DriverQueue::kick_hint`].
    fn call_hint(&self) -> bool;

    /// Whether the driver must be notified of what was published since the last call. Executes one full fence.
    #[must_use = "a call that is not made leaves the driver asleep"]
    fn call_needed(&mut self) -> bool;

    /// Enables or disables kicks. When enabling, returns true if a buffer is available already: the caller
    /// must not sleep then. Enabling executes one full fence.
    fn set_notifications(&mut self, on: bool) -> bool;

    /// The position of this queue, in the format of vhost-user's `GET_VRING_BASE`. Split: the next available index.
    /// Packed: bits 0–14 next slot, bit 15 its wrap counter, bits 16–30 next used slot, bit 31 its wrap counter.
    fn base(&self) -> u32;
}
