//! Payload in and out.

use bytes::{Buf, Bytes};

use super::Packet;
use crate::error::NoRoom;

/// A packet of one segment, lent to `bytes` until the last view is gone.
struct Lent(Packet);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.0.data()
    }
}

impl Packet {
    /// Makes `bytes` the data of a packet that is otherwise fresh.
    ///
    /// # Errors
    /// The data room is smaller, or clones keep the buffer and the pool has no other. Nothing is done then.
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

    /// All data, copied.
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

    /// All data, without copying when the packet is one segment or fits into one; it returns to its pool when the last view
    /// of the bytes is dropped. A peer that breaks the protocol could write to them meanwhile.
    #[must_use]
    #[track_caller]
    pub fn into_bytes(mut self) -> Bytes {
        if self.linearize().is_ok() { Bytes::from_owner(Lent(self)) } else { self.to_bytes() }
    }
}
