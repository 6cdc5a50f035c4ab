//! Sequential reading across segments.

use bytes::Buf;

use super::{Packet, Segments};

/// A packet's bytes from first to last, across its segments: a [`bytes::Buf`], made by [`Packet::reader`].
///
/// Borrows the packet and copies nothing; [`Buf::chunk`] is the rest of the current segment.
///
/// ```
/// use bytes::Buf;
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let (mut packet, mut tail) = (pool.get().ok_or("empty")?, pool.get().ok_or("empty")?);
/// packet.copy_from_slice(&[1])?;
/// tail.copy_from_slice(&[2, 0xff])?;
/// packet.chain(tail).map_err(|_| "too long")?;
/// let mut reader = packet.reader();
/// assert_eq!((reader.remaining(), reader.get_u16()), (3, 0x0102)); // across the cut
/// assert_eq!(reader.chunk(), [0xff]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<'a> {
    /// The rest of the current segment; empty only at the end of the packet.
    chunk: &'a [u8],
    segments: Segments<'a>,
    remaining: usize,
}

impl Reader<'_> {
    /// Skips segments that are used up or empty.
    fn settle(&mut self) {
        while self.chunk.is_empty() {
            let Some(segment) = self.segments.next() else { return };
            self.chunk = segment.data();
        }
    }
}

impl Buf for Reader<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunk
    }

    /// # Panics
    /// `count` is more than [`remaining`](Buf::remaining), as the trait requires.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count} of {} bytes", self.remaining);
        self.remaining -= count;
        while count > 0 {
            let step = count.min(self.chunk.len());
            self.chunk = &self.chunk[step..];
            count -= step;
            self.settle();
        }
    }
}

impl Packet {
    /// A reader of the packet's bytes from first to last.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        let mut reader = Reader { chunk: &[], segments: self.segments(), remaining: self.len() };
        reader.settle();
        reader
    }

    /// Copies bytes from `offset` on into `out`, across segments; returns how many were copied
    /// (`rte_pktmbuf_read`).
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let mut packet = pool.get().ok_or("empty")?;
    /// packet.copy_from_slice(b"headpayload")?;
    /// let mut out = [0; 8];
    /// assert_eq!((packet.read_at(4, &mut out), &out[..7]), (7, &b"payload"[..]));
    /// assert_eq!(packet.read_at(11, &mut out), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> usize {
        let (mut skip, mut done) = (offset, 0);
        for segment in self.segments() {
            let data = segment.data();
            let from = data.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(data.len());
            let count = from.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&from[..count]);
            done += count;
            if done == out.len() {
                break;
            }
        }
        done
    }
}
