//! Conversion between packet data and `Bytes` or slices.

use bytes::{Buf, Bytes};

use super::Packet;
use crate::error::NoRoom;

/// A packet of one segment that a `Bytes` owns until its last view is dropped.
struct PacketBytes(Packet);

impl AsRef<[u8]> for PacketBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.data()
    }
}

impl Packet {
    /// Resets the packet and makes `bytes` its data.
    ///
    /// # Errors
    /// The data room is too small, or clones share the buffer and the pool has no other. Nothing is changed
    /// then.
    #[track_caller]
    pub fn copy_from_slice(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let (asked, room) = (bytes.len(), usize::from(self.head().data_room_of_pool()));
        if asked > room {
            return Err(NoRoom::Full { asked, room });
        }
        self.reset()?;
        self.append(asked).ok_or(NoRoom::Full { asked, room })?.copy_from_slice(bytes);
        Ok(())
    }

    /// Copies all data.
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let mut packet = pool.get().ok_or("empty")?;
    /// packet.copy_from_slice(b"hello")?;
    /// assert_eq!(packet.to_bytes(), "hello");
    /// assert_eq!(packet.into_bytes(), "hello"); // not copied
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.reader().copy_to_bytes(self.len())
    }

    /// Converts the packet to `Bytes`, without copying if it is one segment or can be linearized. The packet
    /// returns to its pool when the last view of the bytes is dropped. A peer that violates the protocol
    /// could change the bytes meanwhile.
    #[must_use]
    #[track_caller]
    pub fn into_bytes(mut self) -> Bytes {
        if self.linearize().is_ok() { Bytes::from_owner(PacketBytes(self)) } else { self.to_bytes() }
    }
}
