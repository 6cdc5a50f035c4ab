//! Creation of a packet from bytes, in as many buffers as needed.

use crate::packet::Packet;
use crate::pool::Pool;

impl Pool {
    /// A packet with these bytes, in segments of at most `piece` bytes that fit into a buffer of the pool.
    /// `None` if the pool has too few buffers, a packet cannot have that many segments, or `bytes` is empty.
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let packet = pool.packet_of(&[7; 100], 60).ok_or("empty")?;
    /// assert_eq!((packet.len(), packet.nb_segs()), (100, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn packet_of(&self, bytes: &[u8], piece: usize) -> Option<Packet> {
        let mut whole: Option<Packet> = None;
        for part in bytes.chunks(piece.clamp(1, usize::from(self.data_room()).max(1))) {
            let mut segment = self.get()?;
            segment.append(part.len())?.copy_from_slice(part);
            match &mut whole {
                None => whole = Some(segment),
                Some(head) => head.chain(segment).ok()?,
            }
        }
        whole
    }
}
