//! Addresses of a pool's buffers, for drivers whose device identifies a buffer by its address.

use std::ptr::NonNull;
use std::sync::Arc;

use linecard_eal::Segment;

use super::Pool;
use crate::meta::Meta;

/// The addresses of a pool's buffers, which have equal length and distance and are numbered from 0.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let buffers = pool.buffers();
/// let packet = pool.get().ok_or("empty")?;
/// let number = buffers.index_of(packet.data_ptr().addr()).ok_or("elsewhere")?;
/// assert_eq!(buffers.address(number).map(|start| start + 128), Some(packet.data_ptr().addr()));
/// assert_eq!(pool.packet_at(number), Some(packet.as_raw()));
/// assert_eq!(buffers.index_of(buffers.end()), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    start: usize,
    stride: usize,
    len: usize,
    count: u32,
}

impl Buffers {
    /// The address of the first byte of the first buffer.
    #[must_use]
    pub const fn start(&self) -> usize {
        self.start
    }

    /// The address behind the last byte of the last buffer.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.start + (self.count as usize - 1) * self.stride + self.len
    }

    /// The length of one buffer in bytes, including headroom.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The number of buffers.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The address of buffer `index`; `None` past the last.
    #[inline]
    #[must_use]
    pub const fn address(&self, index: u32) -> Option<usize> {
        if index < self.count { Some(self.start + index as usize * self.stride) } else { None }
    }

    /// The buffer that contains the byte at `address`; `None` outside all buffers and between two.
    #[inline]
    #[must_use]
    pub const fn index_of(&self, address: usize) -> Option<u32> {
        let offset = address.wrapping_sub(self.start);
        let index = offset / self.stride;
        if index < self.count as usize && offset % self.stride < self.len { Some(index as u32) } else { None }
    }
}

impl Pool {
    /// The addresses of the pool's buffers.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        let shared = self.shared();
        Buffers {
            start: shared.home(0).as_ptr().addr(),
            stride: shared.stride,
            len: shared.buf_len(),
            count: shared.config.packets,
        }
    }

    /// The segment that contains all buffers of the pool.
    #[must_use]
    pub fn segment(&self) -> &Arc<Segment> {
        self.shared().buffers.segment()
    }

    /// The metadata of packet `index`, whatever its current owner: for a driver that passed the buffer to its
    /// device and gets it back. Accessing the metadata requires ownership of the packet.
    #[inline]
    #[must_use]
    pub fn packet_at(&self, index: u32) -> Option<NonNull<Meta>> {
        (index < self.shared().config.packets).then(|| self.shared().item(index as usize))
    }

    /// The number of a packet of this pool, which is the number of its buffer; `None` for other packets.
    #[inline]
    #[must_use]
    pub fn index_of(&self, packet: NonNull<Meta>) -> Option<u32> {
        self.shared().owns(packet).then(|| self.shared().index(packet) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::Buffers;

    #[test]
    fn addresses_and_numbers_are_each_others_inverse() {
        let buffers = Buffers { start: 4096, stride: 192, len: 130, count: 3 };
        assert_eq!(buffers.end(), 4096 + 2 * 192 + 130);
        for (address, index) in [
            (4095, None),
            (4096, Some(0)),
            (4096 + 129, Some(0)),
            (4096 + 130, None),
            (4096 + 191, None),
            (4096 + 192, Some(1)),
            (4096 + 384 + 129, Some(2)),
            (4096 + 384 + 130, None),
            (4096 + 576, None),
            (0, None),
            (usize::MAX, None),
        ] {
            assert_eq!(buffers.index_of(address), index, "{address}");
        }
        assert_eq!([0, 2, 3].map(|index| buffers.address(index)), [Some(4096), Some(4096 + 384), None]);
    }
}
