//! The packet: an owning handle around metadata, with DPDK's operations on its data.

mod chain;
mod edge;
mod external;
mod fields;
pub(crate) mod free;
mod of_bytes;
mod reader;
mod seg;
mod share;
#[cfg(test)]
mod tests;

use std::panic::Location;
use std::ptr::NonNull;

pub use self::chain::{PacketSegment, Segments};
pub use self::reader::Reader;
use self::seg::Seg;
use crate::error::TooShort;
use crate::meta::Meta;

/// A packet of one or more segments, owned. Dropping it returns it to its pool.
///
/// Its data may lie in memory that a peer maps. The protocol forbids the peer to write there while we hold the packet,
/// and nothing but the protocol does: read what decides once, and never assume that two reads agree.
///
/// Writing is always to data that nobody else sees: a packet that shares its bytes with clones gets its own copy first.
///
/// `Send` and `Sync`: it may go to any thread, which may drop it, and it then lies in that thread's cache of the pool.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut packet = pool.get().ok_or("empty")?;
/// packet.append(7).ok_or("no tailroom")?.copy_from_slice(b"payload");
/// packet.prepend(4).ok_or("no headroom")?.copy_from_slice(b"head");
/// assert_eq!((packet.data(), packet.len()), (&b"headpayload"[..], 11));
/// packet.adj(4)?;
/// packet.trim(4)?;
/// assert_eq!(packet.data(), b"pay");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(transparent)]
pub struct Packet(NonNull<Meta>);

// SAFETY: a packet owns its metadata and its hold on the buffer; returning it works from any thread.
unsafe impl Send for Packet {}
// SAFETY: through a shared reference one can only read; other holders only count in the atomic `refcnt`.
unsafe impl Sync for Packet {}

impl Packet {
    #[inline(always)]
    fn head(&self) -> Seg {
        // SAFETY: we own it; setters are called from methods with `&mut self` only.
        unsafe { Seg::new(self.0) }
    }

    /// The first segment's data; all segments': [`Packet::segments`], [`Packet::reader`], [`Packet::read_at`].
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let seg = self.head();
        // SAFETY: `data_off + data_len <= buf_len` is kept by every operation; nobody in this process writes while we
        // lend.
        unsafe { std::slice::from_raw_parts(seg.data(), seg.len()) }
    }

    /// The first segment's data, to write. `None` when clones share it and the pool has no packet left for a copy, which
    /// never happens to a packet that was not cloned.
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let mut packet = pool.get().ok_or("empty")?;
    /// packet.copy_from_slice(b"fame")?;
    /// if let Some([first, ..]) = packet.data_mut() {
    ///     *first = b'l';
    /// }
    /// assert_eq!(packet.data(), b"lame");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn data_mut(&mut self) -> Option<&mut [u8]> {
        if self.head().has(Meta::SHARED | Meta::INDIRECT) && !self.own_head(Some(Location::caller())) {
            return None;
        }
        let seg = self.head();
        // SAFETY: the segment's `len` bytes of data lie in its buffer, which lives while the packet does; no clone of
        // it exists, by the test above, and `&mut self` keeps others away.
        Some(unsafe { std::slice::from_raw_parts_mut(seg.data(), seg.len()) })
    }

    /// Address of the first segment's data; valid for reads of [`Packet::data_len`] bytes while the packet is.
    #[inline]
    #[must_use]
    pub fn data_ptr(&self) -> *mut u8 {
        self.head().data()
    }

    /// Bytes of data in all segments (`pkt_len`).
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.head().pkt_len() as usize
    }

    /// Whether there is no data.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of data in the first segment.
    #[inline]
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.head().len()
    }

    /// Bytes that [`Packet::prepend`] can take.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.head().data_off())
    }

    /// Bytes that [`Packet::append`] can take: behind the last segment's data.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        self.head().last().tailroom()
    }

    /// Makes the data start `n` bytes earlier, and lends those (`rte_pktmbuf_prepend`); they hold whatever was there.
    /// `None`, and nothing done, when the headroom is smaller, or a needed copy finds no packet.
    #[inline]
    #[track_caller]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.headroom() || n > usize::from(u16::MAX - self.head().data_len()) {
            return None;
        }
        if self.head().has(Meta::SHARED | Meta::INDIRECT) && !self.own_head(Some(Location::caller())) {
            return None;
        }
        let seg = self.head();
        // A copy may have had to move the data down.
        let off = seg.data_off().checked_sub(n as u16)?;
        seg.set_data_off(off);
        seg.set_data_len(seg.data_len() + n as u16);
        seg.set_pkt_len(seg.pkt_len() + n as u32);
        // SAFETY: `n` bytes of headroom, now data; exclusive by the test above.
        Some(unsafe { std::slice::from_raw_parts_mut(seg.data(), n) })
    }

    /// Makes the last segment's data `n` bytes longer, and lends those (`rte_pktmbuf_append`; a collection's `append` in `std`
    /// moves elements, this moves none: [`Packet::chain`] joins packets); they hold whatever was there.
    /// `None`, and nothing done, when the tailroom is smaller, or a needed copy finds no packet.
    #[inline]
    #[track_caller]
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        if self.head().last().has(Meta::SHARED | Meta::INDIRECT) && !self.own_last(Some(Location::caller())) {
            return None;
        }
        let last = self.head().last();
        if n > last.tailroom() {
            return None;
        }
        let start = last.data().wrapping_add(last.len());
        last.set_data_len(last.data_len() + n as u16);
        let head = self.head();
        head.set_pkt_len(head.pkt_len() + n as u32);
        // SAFETY: `n` bytes of tailroom, now data; exclusive by the test above.
        Some(unsafe { std::slice::from_raw_parts_mut(start, n) })
    }

    /// Removes `n` bytes at the start (`rte_pktmbuf_adj`).
    ///
    /// # Errors
    /// The first segment has fewer, and keeps them.
    #[inline]
    pub fn adj(&mut self, n: usize) -> Result<(), TooShort> {
        let seg = self.head();
        if n > seg.len() {
            return Err(TooShort { asked: n, len: seg.len() });
        }
        seg.set_data_off(seg.data_off() + n as u16);
        seg.set_data_len(seg.data_len() - n as u16);
        seg.set_pkt_len(seg.pkt_len() - n as u32);
        Ok(())
    }

    /// Removes `n` bytes at the end (`rte_pktmbuf_trim`).
    ///
    /// # Errors
    /// The last segment has fewer, and keeps them.
    #[inline]
    pub fn trim(&mut self, n: usize) -> Result<(), TooShort> {
        let (head, last) = (self.head(), self.head().last());
        if n > last.len() {
            return Err(TooShort { asked: n, len: last.len() });
        }
        last.set_data_len(last.data_len() - n as u16);
        head.set_pkt_len(head.pkt_len() - n as u32);
        Ok(())
    }

    /// Returns the packet to its pool, as dropping does; debug mode then knows the place in the source.
    #[track_caller]
    pub fn free(self) {
        // SAFETY: `into_raw` gives up the only handle, so we own the packet and nobody uses it afterwards.
        unsafe { free::one(self.into_raw(), Some(Location::caller())) };
    }

    /// The metadata, while the packet stays owned: for drivers that write fields, from the thread that owns the packet.
    #[inline]
    #[must_use]
    pub const fn as_raw(&self) -> NonNull<Meta> {
        self.0
    }

    /// Gives the packet up without returning it. [`Packet::from_raw`] or [`Pool::put_raw`](crate::Pool::put_raw) take it back.
    #[inline]
    #[must_use]
    pub const fn into_raw(self) -> NonNull<Meta> {
        let meta = self.0;
        std::mem::forget(self);
        meta
    }

    /// Takes a packet back.
    ///
    /// # Safety
    /// `meta` came from [`Packet::into_raw`] or [`Pool::get_raw`](crate::Pool::get_raw) (and is filled), its fields describe
    /// memory of its buffer, and no other handle exists.
    #[inline]
    #[must_use]
    pub const unsafe fn from_raw(meta: NonNull<Meta>) -> Self {
        Self(meta)
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the only handle, and it ends here.
        unsafe { free::one(self.0, None) };
    }
}
