//! The packet: an owning handle to metadata, with DPDK's operations on its data.

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

/// An owned packet of one or more segments. Dropping it returns it to its pool.
///
/// Its data may be in memory that a peer maps. While this process owns the packet, only the protocol forbids
/// the peer to write there: read values that decide something once, and never assume that two reads agree.
///
/// Writes only affect this packet: if clones share its bytes, it gets its own copy first.
///
/// `Send` and `Sync`: any thread may drop it; the packet then goes to that thread's cache of the pool.
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

// SAFETY: a packet owns its metadata and its reference to the buffer; returning it works from any thread.
unsafe impl Send for Packet {}
// SAFETY: a shared reference only allows reads; other holders only count in the atomic `refcnt`.
unsafe impl Sync for Packet {}

impl Packet {
    #[inline(always)]
    fn head(&self) -> Seg {
        // SAFETY: this packet owns it; setters are called only from methods with `&mut self`.
        unsafe { Seg::new(self.0) }
    }

    /// The data of the first segment. For all segments see [`Packet::segments`], [`Packet::reader`],
    /// [`Packet::read_at`].
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let seg = self.head();
        // SAFETY: every operation keeps `data_off + data_len <= buf_len`; nothing in this process writes
        // there while the slice is borrowed.
        unsafe { std::slice::from_raw_parts(seg.data(), seg.len()) }
    }

    /// The data of the first segment, writable. `None` if clones share it and the pool has no packet for a
    /// copy, which never happens to a packet that was not cloned.
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
        // SAFETY: the segment's `len` bytes of data are in its buffer, which lives as long as the packet; no
        // clone exists, by the test above, and `&mut self` excludes other users.
        Some(unsafe { std::slice::from_raw_parts_mut(seg.data(), seg.len()) })
    }

    /// The address of the first segment's data, valid for reads of [`Packet::data_len`] bytes while the
    /// packet exists.
    #[inline]
    #[must_use]
    pub fn data_ptr(&self) -> *mut u8 {
        self.head().data()
    }

    /// The length of the data in all segments (`pkt_len`), in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.head().pkt_len() as usize
    }

    /// Whether the packet has no data.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of the data in the first segment, in bytes.
    #[inline]
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.head().len()
    }

    /// The number of bytes that [`Packet::prepend`] can add.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.head().data_off())
    }

    /// The number of bytes that [`Packet::append`] can add behind the last segment's data.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        self.head().last().tailroom()
    }

    /// Extends the data by `n` bytes at the start and returns these bytes (`rte_pktmbuf_prepend`), with
    /// arbitrary content. `None`, without any change, if the headroom is smaller or the pool has no packet
    /// for a necessary copy.
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
        // A copy may have moved the data towards the start of the buffer.
        let off = seg.data_off().checked_sub(n as u16)?;
        seg.set_data_off(off);
        seg.set_data_len(seg.data_len() + n as u16);
        seg.set_pkt_len(seg.pkt_len() + n as u32);
        // SAFETY: `n` bytes that were headroom and are data now; exclusive by the test above.
        Some(unsafe { std::slice::from_raw_parts_mut(seg.data(), n) })
    }

    /// Extends the data of the last segment by `n` bytes at the end and returns these bytes
    /// (`rte_pktmbuf_append`), with arbitrary content. Unlike `append` of collections in `std`, it moves no
    /// elements; [`Packet::chain`] joins packets. `None`, without any change, if the tailroom is smaller or
    /// the pool has no packet for a necessary copy.
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
        // SAFETY: `n` bytes that were tailroom and are data now; exclusive by the test above.
        Some(unsafe { std::slice::from_raw_parts_mut(start, n) })
    }

    /// Removes `n` bytes at the start (`rte_pktmbuf_adj`).
    ///
    /// # Errors
    /// The first segment has fewer bytes; it stays unchanged.
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
    /// The last segment has fewer bytes; it stays unchanged.
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

    /// Returns the packet to its pool, as dropping does, and tells debug mode the source location.
    #[track_caller]
    pub fn free(self) {
        // SAFETY: `into_raw` consumes the only handle, so the packet is owned here and not used afterwards.
        unsafe { free::one(self.into_raw(), Some(Location::caller())) };
    }

    /// The metadata, for drivers that write fields on the thread that owns the packet. The packet stays
    /// owned.
    #[inline]
    #[must_use]
    pub const fn as_raw(&self) -> NonNull<Meta> {
        self.0
    }

    /// Releases ownership without returning the packet. [`Packet::from_raw`] or
    /// [`Pool::put_raw`](crate::Pool::put_raw) take it back.
    #[inline]
    #[must_use]
    pub const fn into_raw(self) -> NonNull<Meta> {
        let meta = self.0;
        std::mem::forget(self);
        meta
    }

    /// Takes ownership of a packet.
    ///
    /// # Safety
    /// `meta` came from [`Packet::into_raw`] or [`Pool::get_raw`](crate::Pool::get_raw) (and was filled in),
    /// its fields describe memory of its buffer, and no other handle exists.
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
