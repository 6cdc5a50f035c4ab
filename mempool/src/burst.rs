//! A handful of packets that travel together.

#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut, RangeTo};
use std::panic::Location;
use std::{fmt, ptr};

use crate::packet::{Packet, free};

/// Packets in a burst at most.
pub const BURST: usize = 64;

/// Up to [`BURST`] packets, owned, without heap. Derefs to a slice of them; dropping it returns them in bulk. `Send` and
/// `Sync`, as packets are; a thread that polls has bursts of its own.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut burst = Burst::new();
/// pool.get_bulk(&mut burst, 32)?;
/// burst.retain(|packet| packet.headroom() == 128);
/// drop(burst.drain(..30));
/// assert_eq!((burst.len(), burst.clear(), pool.stats().in_use), (2, 2, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Burst {
    len: usize,
    /// Packets it takes, at most [`BURST`]; `len` never passes it.
    capacity: usize,
    /// The first `len` hold packets.
    packets: [MaybeUninit<Packet>; BURST],
}

impl Burst {
    /// An empty burst.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self::with_capacity(BURST)
    }

    /// An empty burst that takes `capacity` packets, at least one and at most [`BURST`]: what bounds a receive burst.
    ///
    /// ```
    /// use linecard_mempool::{BURST, Burst};
    /// assert_eq!(Burst::with_capacity(32).room(), 32);
    /// assert_eq!(Burst::with_capacity(1000).room(), BURST);
    /// ```
    #[must_use]
    #[inline]
    pub const fn with_capacity(capacity: usize) -> Self {
        let capacity = if capacity > BURST { BURST } else { capacity };
        let capacity = if capacity == 0 { 1 } else { capacity };
        Self { len: 0, capacity, packets: [const { MaybeUninit::uninit() }; BURST] }
    }

    /// Packets it can hold.
    #[must_use]
    #[inline]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Packets that can still be pushed.
    #[must_use]
    #[inline]
    pub const fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len)
    }

    /// Appends a packet.
    ///
    /// # Errors
    /// The packet comes back when the burst is full.
    #[inline]
    pub fn push(&mut self, packet: Packet) -> Result<(), Packet> {
        match self.spare_mut().first_mut() {
            Some(place) => {
                place.write(packet);
                self.len += 1;
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// Takes the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<Packet> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the place behind the new end held a packet, which is now ours.
        Some(unsafe { self.packets[self.len].assume_init_read() })
    }

    /// Takes packets from `source` while there is room; those it did not ask for stay in `source`. How many came.
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Burst, Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let (mut burst, mut other) = (Burst::with_capacity(4), Burst::new());
    /// assert_eq!(burst.fill_from(&mut std::iter::from_fn(|| pool.get()).take(3)), 3);
    /// pool.get_bulk(&mut other, 5)?;
    /// assert_eq!((burst.take_from(&mut other), burst.len(), other.len()), (1, 4, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // `Extend` has no place for what a full burst leaves, and would drop it.
    pub fn fill_from(&mut self, source: &mut impl Iterator<Item = Packet>) -> usize {
        let before = self.len;
        for packet in source.take(self.room()) {
            self.packets[self.len].write(packet);
            self.len += 1;
        }
        self.len - before
    }

    /// Moves packets from the front of `other` while there is room; the others stay there. How many came. Unlike `Vec::append`,
    /// which takes all: see [`fill_from`](Self::fill_from) for an example.
    pub fn take_from(&mut self, other: &mut Self) -> usize {
        let n = self.room().min(other.len);
        let to = self.packets.as_mut_ptr().wrapping_add(self.len);
        // SAFETY: `n` packets lie there, and `n` places are free here; two bursts do not overlap.
        unsafe { ptr::copy_nonoverlapping(other.packets.as_ptr(), to, n) };
        self.len += n;
        // SAFETY: the first `n` were copied to this burst, which owns them now; the other forgets them.
        unsafe { other.consume_front(n) };
        n
    }

    /// Takes packet `index` and puts the last one in its place.
    pub fn swap_remove(&mut self, index: usize) -> Option<Packet> {
        if index >= self.len {
            return None;
        }
        let last = self.len - 1;
        self.packets.swap(index, last);
        self.pop()
    }

    /// Keeps the packets for which `keep` says so, in order; the others return to their pools.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Packet) -> bool) {
        let len = std::mem::take(&mut self.len);
        // Packets not looked at yet are dropped if `keep` panics; those kept so far stay.
        let mut rest = Drain { next: 0, end: len, tail: len, burst: self };
        while let Some(mut packet) = rest.next() {
            if keep(&mut packet) {
                // `next` is past at least as many places as were kept.
                let kept = rest.burst.len;
                rest.burst.packets[kept].write(packet);
                rest.burst.len += 1;
            }
        }
    }

    /// Takes the first `range.end` packets (or all, when there are fewer), one by one. What the iterator does not hand out is dropped with it.
    pub fn drain(&mut self, range: RangeTo<usize>) -> Drain<'_> {
        let tail = std::mem::take(&mut self.len);
        Drain { next: 0, end: range.end.min(tail), tail, burst: self }
    }

    /// Returns all packets to their pools in bulk. How many there were.
    #[inline]
    #[track_caller]
    pub fn clear(&mut self) -> usize {
        let n = std::mem::take(&mut self.len);
        // SAFETY: `n` packets, ours, forgotten above; `Packet` is a transparent pointer to its metadata.
        unsafe { free::bulk(self.packets.as_ptr().cast(), n, Some(Location::caller())) };
        n
    }

    /// The places behind the packets, for a driver to fill; then [`Burst::set_len`].
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [MaybeUninit<Packet>] {
        let end = self.capacity.max(self.len);
        self.packets.get_mut(self.len..end).unwrap_or_default()
    }

    /// Says how many packets there are.
    ///
    /// # Safety
    /// `len <= capacity()`, and the first `len` places hold packets that nobody else owns.
    #[inline]
    pub const unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity);
        self.len = len;
    }

    /// Forgets the first `n` packets and moves the others to the front.
    ///
    /// # Safety
    /// `n <= len`, and the first `n` were moved out, for example with `ptr::read`.
    #[inline]
    pub unsafe fn consume_front(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        let rest = self.len - n;
        if rest > 0 {
            let packets = self.packets.as_mut_ptr();
            // SAFETY: `n + rest` places hold packets, the first `n` are free to overwrite; the ranges may overlap.
            unsafe { ptr::copy(packets.wrapping_add(n), packets, rest) };
        }
        self.len = rest;
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Burst {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

impl Deref for Burst {
    type Target = [Packet];

    #[inline]
    fn deref(&self) -> &[Packet] {
        // SAFETY: the first `len` places hold packets.
        unsafe { std::slice::from_raw_parts(self.packets.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Burst {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Packet] {
        // SAFETY: the first `len` places hold packets, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.packets.as_mut_ptr().cast(), self.len) }
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Packets on their way out of a [`Burst`]; made by [`Burst::drain`].
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut burst = Burst::new();
/// pool.get_bulk(&mut burst, 3)?;
/// assert_eq!(burst.drain(..2).count(), 2);
/// assert_eq!(burst.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Drain<'a> {
    /// Its `len` places at the front are in order; packets lie at `next..tail`, those before `end` go out.
    burst: &'a mut Burst,
    next: usize,
    end: usize,
    tail: usize,
}

impl Iterator for Drain<'_> {
    type Item = Packet;

    #[inline]
    fn next(&mut self) -> Option<Packet> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: a packet that has not been handed out; `next` moves past it.
        let packet = unsafe { self.burst.packets[self.next].assume_init_read() };
        self.next += 1;
        Some(packet)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
        let (kept, rest) = (self.burst.len, self.tail - self.end);
        let packets = self.burst.packets.as_mut_ptr();
        // SAFETY: the packets at `end..tail` stay and move behind those that were kept.
        let from = unsafe { packets.add(self.end) };
        // SAFETY: `kept <= end <= tail`, which is inside the burst's array.
        let to = unsafe { packets.add(kept) };
        // SAFETY: both inside the burst; they may overlap.
        unsafe { ptr::copy(from, to, rest) };
        self.burst.len = kept + rest;
    }
}
