//! Packets of several segments.

use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::Location;

use super::seg::Seg;
use super::{Packet, free};
use crate::error::{Exhausted, NoRoom};
use crate::meta::Meta;

/// One segment of a packet, borrowed. Derefs to its data.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let (mut packet, mut tail) = (pool.get().ok_or("empty")?, pool.get().ok_or("empty")?);
/// packet.copy_from_slice(b"he")?;
/// tail.copy_from_slice(b"llo")?;
/// packet.chain(tail).map_err(|_| "too long")?;
/// assert_eq!(packet.segments().map(|s| s.len()).collect::<Vec<_>>(), [2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PacketSegment<'a> {
    seg: Seg,
    packet: PhantomData<&'a Packet>,
}

impl<'a> PacketSegment<'a> {
    /// The data of the segment.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        // SAFETY: lengths stay within the buffer; the packet is borrowed, so this process does not write to
        // it.
        unsafe { std::slice::from_raw_parts(self.seg.data(), self.seg.len()) }
    }

    /// The address of the segment's data.
    #[inline]
    #[must_use]
    pub fn data_ptr(&self) -> *mut u8 {
        self.seg.data()
    }

    /// Whether the data may be in memory outside every pool.
    #[inline]
    #[must_use]
    pub fn is_external(&self) -> bool {
        // A clone does not record whether its original is external; only the address tells.
        self.seg.has(Meta::EXTERNAL) || self.seg.lies_outside()
    }
}

impl Deref for PacketSegment<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data()
    }
}

/// The segments of a packet, first to last; made by [`Packet::segments`].
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// assert_eq!(pool.get().ok_or("empty")?.segments().count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Segments<'a> {
    next: Option<Seg>,
    packet: PhantomData<&'a Packet>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = PacketSegment<'a>;

    #[inline]
    fn next(&mut self) -> Option<PacketSegment<'a>> {
        let seg = self.next?;
        self.next = seg.following();
        Some(PacketSegment { seg, packet: PhantomData })
    }
}

impl Packet {
    /// The maximum number of segments of a packet.
    pub const MAX_SEGS: u8 = u8::MAX;

    /// The segments, from first to last.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: Some(self.head()), packet: PhantomData }
    }

    /// Appends the segments of `tail`. The offload metadata of `tail` is discarded.
    ///
    /// # Errors
    /// `tail`, if there would be more than [`Packet::MAX_SEGS`] segments.
    pub fn chain(&mut self, tail: Packet) -> Result<(), Packet> {
        let (head, other) = (self.head(), tail.head());
        let Some(segments) = head.nb_segs().checked_add(other.nb_segs()) else { return Err(tail) };
        head.last().set_next(Some(tail.into_raw()));
        head.set_bits(Meta::CHAINED);
        head.set_nb_segs(segments);
        // At most 255 times 65 535.
        head.set_pkt_len(head.pkt_len() + other.pkt_len());
        other.clear_bits(Meta::CHAINED);
        other.set_nb_segs(1);
        Ok(())
    }

    /// Removes all segments behind the first and returns them as a packet without offload metadata; `None` if
    /// there are none.
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let (mut packet, mut tail) = (pool.get().ok_or("empty")?, pool.get().ok_or("empty")?);
    /// packet.copy_from_slice(b"he")?;
    /// tail.copy_from_slice(b"llo")?;
    /// packet.chain(tail).map_err(|_| "too long")?;
    /// let rest = packet.unchain().ok_or("one segment")?;
    /// assert_eq!((packet.len(), rest.data()), (2, &b"llo"[..]));
    /// assert!(packet.unchain().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unchain(&mut self) -> Option<Packet> {
        let head = self.head();
        let rest = head.following()?;
        // Fields of a later segment are stale, so those that describe a whole packet are rewritten.
        rest.set_nb_segs(head.nb_segs() - 1);
        rest.set_pkt_len(head.pkt_len() - u32::from(head.data_len()));
        rest.set_ol_flags(0);
        if rest.following().is_some() {
            rest.set_bits(Meta::CHAINED);
        }
        head.set_next(None);
        head.set_nb_segs(1);
        head.clear_bits(Meta::CHAINED);
        head.set_pkt_len(head.data_len().into());
        Some(Packet(rest.raw()))
    }

    /// Moves all data into the first segment.
    ///
    /// # Errors
    /// The tailroom is too small, or clones share the segment and the pool has no packet for a copy. Nothing
    /// is moved.
    #[track_caller]
    pub fn linearize(&mut self) -> Result<(), NoRoom> {
        let site = Some(Location::caller());
        if self.head().following().is_none() {
            return Ok(());
        }
        let rest = self.len() - self.data_len();
        let fits = |room| if rest > room { Err(NoRoom::Full { asked: rest, room }) } else { Ok(()) };
        fits(self.head().tailroom())?;
        if !self.own_head(site) {
            return Err(Exhausted.into());
        }
        // A copy may have moved the data within the buffer.
        fits(self.head().tailroom())?;
        let head = self.head();
        let mut to = head.data().wrapping_add(head.len());
        for segment in self.segments().skip(1) {
            // SAFETY: the tailroom is large enough for all segments; the first segment's buffer is
            // exclusively its own.
            unsafe { to.copy_from_nonoverlapping(segment.data_ptr(), segment.len()) };
            to = to.wrapping_add(segment.len());
        }
        // It fits into a buffer, so its length fits into 16 bits.
        head.set_data_len(head.pkt_len() as u16);
        self.cut(site);
        Ok(())
    }

    /// Returns all segments but the first to their pools; the data of the first one stays.
    pub(super) fn cut(&mut self, site: crate::pool::Site) {
        let head = self.head();
        let Some(tail) = head.following() else { return };
        head.set_next(None);
        head.set_nb_segs(1);
        head.clear_bits(Meta::CHAINED);
        head.set_pkt_len(head.data_len().into());
        // SAFETY: the packet owned these segments and no longer refers to them: its `next` is cleared above.
        unsafe { free::chain(tail, site) };
    }
}
