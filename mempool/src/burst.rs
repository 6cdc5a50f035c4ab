//! Bursts: small groups of packets that move together.

#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut, RangeTo};
use std::panic::Location;
use std::{fmt, ptr};

use crate::packet::{Packet, free};

/// The maximum number of packets in a burst.
pub const BURST: usize = 64;

/// Up to [`BURST`] owned packets, without heap allocation. Derefs to a slice of packets; dropping it returns
/// them in bulk. `Send` and `Sync`, as packets are; each polling thread has its own bursts.
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
    /// The maximum number of packets, at most [`BURST`]; `len` never exceeds it.
    capacity: usize,
    /// The first `len` places hold packets.
    packets: [MaybeUninit<Packet>; BURST],
}

impl Burst {
    /// An empty burst.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self::with_capacity(BURST)
    }

    /// An empty burst for up to `capacity` packets, from one to [`BURST`]. This limits a receive burst.
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

    /// The number of packets that the burst can hold.
    #[must_use]
    #[inline]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of packets that can still be pushed.
    #[must_use]
    #[inline]
    pub const fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len)
    }

    /// Appends a packet.
    ///
    /// # Errors
    /// The packet, if the burst is full.
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

    /// Removes and returns the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<Packet> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the place behind the new end held a packet, which the caller now owns.
        Some(unsafe { self.packets[self.len].assume_init_read() })
    }

    /// Takes packets from `source` while there is room, and returns how many. The others stay in `source`.
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
    // Not `Extend`: it would have to drop the packets that do not fit.
    pub fn fill_from(&mut self, source: &mut impl Iterator<Item = Packet>) -> usize {
        let before = self.len;
        for packet in source.take(self.room()) {
            self.packets[self.len].write(packet);
            self.len += 1;
        }
        self.len - before
    }

    /// Moves packets from the front of `other` while there is room, and returns how many. The others stay
    /// there, unlike with `Vec::append`; see the example of [`fill_from`](Self::fill_from).
    pub fn take_from(&mut self, other: &mut Self) -> usize {
        let n = self.room().min(other.len);
        let to = self.packets.as_mut_ptr().wrapping_add(self.len);
        // SAFETY: `other` holds `n` packets, `n` places are free here, and two bursts do not overlap.
        unsafe { ptr::copy_nonoverlapping(other.packets.as_ptr(), to, n) };
        self.len += n;
        // SAFETY: the first `n` packets were copied to this burst, which owns them now.
        unsafe { other.consume_front(n) };
        n
    }

    /// Removes packet `index` and moves the last packet to its place.
    pub fn swap_remove(&mut self, index: usize) -> Option<Packet> {
        if index >= self.len {
            return None;
        }
        let last = self.len - 1;
        self.packets.swap(index, last);
        self.pop()
    }

    /// Keeps the packets for which `keep` returns true, in order; the others return to their pools.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Packet) -> bool) {
        let len = std::mem::take(&mut self.len);
        // If `keep` panics, packets not yet checked are dropped and those kept so far stay.
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

    /// Removes the first `range.end` packets (or all, if there are fewer), one by one. Packets that the
    /// iterator has not returned are dropped with it.
    pub fn drain(&mut self, range: RangeTo<usize>) -> Drain<'_> {
        let tail = std::mem::take(&mut self.len);
        Drain { next: 0, end: range.end.min(tail), tail, burst: self }
    }

    /// Returns all packets to their pools in bulk; returns how many there were.
    #[inline]
    #[track_caller]
    pub fn clear(&mut self) -> usize {
        let n = std::mem::take(&mut self.len);
        // SAFETY: this burst owned `n` packets and no longer counts them; `Packet` is a transparent pointer
        // to its metadata.
        unsafe { free::bulk(self.packets.as_ptr().cast(), n, Some(Location::caller())) };
        n
    }

    /// The free places behind the packets, for a driver to fill before it calls [`Burst::set_len`].
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [MaybeUninit<Packet>] {
        let end = self.capacity.max(self.len);
        self.packets.get_mut(self.len..end).unwrap_or_default()
    }

    /// Sets the number of packets.
    ///
    /// # Safety
    /// `len <= capacity()`, and the first `len` places hold packets that nothing else owns.
    #[inline]
    pub const unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity);
        self.len = len;
    }

    /// Removes the first `n` packets without dropping them and moves the others to the front.
    ///
    /// # Safety
    /// `n <= len`, and the first `n` were moved out, for example with `ptr::read`.
    #[inline]
    pub unsafe fn consume_front(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        let rest = self.len - n;
        if rest > 0 {
            let packets = self.packets.as_mut_ptr();
            // SAFETY: `n + rest` places hold packets, the first `n` may be overwritten; the ranges may
            // overlap.
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

/// An iterator over packets removed from a [`Burst`]; made by [`Burst::drain`].
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
    /// Its first `len` places are in order; packets are at `next..tail`, and those before `end` are to be
    /// returned.
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
        // SAFETY: the place holds a packet that was not returned yet; `next` moves past it.
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
