//! Metadata in whole words, for drivers whose every instruction counts.

use std::mem::size_of;
use std::ptr::NonNull;

use crate::meta::Meta;

// Shifts below say where a field lies in its word; `Meta` asserts its offsets.
const _: () = assert!(cfg!(target_endian = "little") && size_of::<Meta>() == 64);

/// The metadata of a packet that a driver owns, read and written a word at a time. One line of private memory is all that it
/// touches.
///
/// ```text
///  word 0   data_off:16 state:8 nb_segs:8 port:16 buf_len:16     (Meta::rearm)
///  word 1   pkt_len:32 data_len:16 vlan_tci:16
///  word 2   ol_flags:32 packet_type:32
///  word 6   buf            word 7   pool
/// ```
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{MetaWords, Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut packet = pool.get().ok_or("empty")?;
/// packet.copy_from_slice(b"hello")?;
/// // SAFETY: the packet is ours, and not touched while `words` is used.
/// let words = unsafe { MetaWords::new(packet.as_raw()) };
/// let extent = words.extent();
/// assert!(extent.is_plain());
/// assert_eq!((extent.data_off(), extent.data_len()), (pool.headroom().into(), 5));
/// assert_eq!(words.buf() + extent.data_off(), packet.data_ptr() as u64);
/// assert_eq!(words.pool_id(), pool.id() as u64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MetaWords(NonNull<Meta>);

/// Where a segment's data lies in its buffer, and whether the packet is that one segment: what words 0 and 1 say, from one read of
/// each.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    first: u64,
    lengths: u64,
}

impl Extent {
    /// Whether the packet is one segment in its own buffer, without clones (`state` 0, `nb_segs` 1).
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(self) -> bool {
        (self.first >> 16) as u16 == 0x0100
    }

    /// Where the data starts, in bytes from the start of the buffer.
    #[inline(always)]
    #[must_use]
    pub const fn data_off(self) -> u64 {
        self.first & 0xffff
    }

    /// Bytes of data in this segment.
    #[inline(always)]
    #[must_use]
    pub const fn data_len(self) -> u64 {
        (self.lengths >> 32) & 0xffff
    }
}

impl MetaWords {
    /// The metadata at `meta`.
    ///
    /// # Safety
    /// `meta` is the metadata of a packet, which was initialised when its pool was made, and nobody else touches it while this or a
    /// copy is used.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(meta: NonNull<Meta>) -> Self {
        Self(meta)
    }

    /// The metadata at an address from [`address`](Self::address). Its lowest six bits, which are 0 there, are ignored: the driver may
    /// keep marks in them.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    #[inline(always)]
    #[must_use]
    pub unsafe fn from_address(address: u64) -> Self {
        // SAFETY: the address of metadata is not 0 and a multiple of 64, so that it is the same and not 0 without the marks.
        Self(unsafe { NonNull::new_unchecked((address & !63) as *mut Meta) })
    }

    /// The pointer, for [`Packet::from_raw`](crate::Packet::from_raw) and [`Pool::put_raw`](crate::Pool::put_raw).
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(self) -> NonNull<Meta> {
        self.0
    }

    /// The metadata's address, a multiple of 64.
    #[inline(always)]
    #[must_use]
    pub fn address(self) -> u64 {
        self.0.as_ptr() as u64
    }

    #[inline(always)]
    fn read<const WORD: usize>(self) -> u64 {
        const { assert!(WORD < 8) };
        // SAFETY: metadata is 64 bytes and 64-aligned, so every word of it is in bounds.
        let at = unsafe { self.0.cast::<u64>().add(WORD) };
        // SAFETY: in bounds; all words were initialised when the pool was made, and nobody else touches them (`new`).
        unsafe { at.read() }
    }

    #[inline(always)]
    fn write<const WORD: usize>(self, value: u64) {
        const { assert!(WORD < 3) };
        // SAFETY: metadata is 64 bytes and 64-aligned, so every word of it is in bounds.
        let at = unsafe { self.0.cast::<u64>().add(WORD) };
        // SAFETY: in bounds, and nobody else touches them (`new`); the fields of words 0 to 2 are integers, of any value.
        unsafe { at.write(value) };
    }

    /// Reads words 0 and 1.
    #[inline(always)]
    #[must_use]
    pub fn extent(self) -> Extent {
        Extent { first: self.read::<0>(), lengths: self.read::<1>() }
    }

    /// [`Meta::SHARED`] and its neighbours; 0 for a plain packet.
    #[inline(always)]
    #[must_use]
    pub fn state(self) -> u8 {
        (self.read::<0>() >> 16) as u8
    }

    /// The [`Offload`](crate::Offload) flags' bits.
    #[inline(always)]
    #[must_use]
    pub fn ol_flags(self) -> u32 {
        self.read::<2>() as u32
    }

    /// Address of the buffer.
    #[inline(always)]
    #[must_use]
    pub fn buf(self) -> u64 {
        self.read::<6>()
    }

    /// Which pool the packet belongs to: [`Pool::id`](crate::Pool::id).
    #[inline(always)]
    #[must_use]
    pub fn pool_id(self) -> u64 {
        self.read::<7>()
    }

    /// Makes it a packet of one segment with `len` bytes and no flags, as [`Meta::write_plain`] does, three words one after the
    /// other.
    ///
    /// # Safety
    /// No [`Packet`](crate::Packet) of this metadata is alive; `rearm` and `len` describe data inside the buffer, or are checked before
    /// one is made of it.
    #[inline(always)]
    pub unsafe fn write_received(self, rearm: u64, len: u32) {
        self.write::<0>(rearm);
        self.write::<1>(u64::from(len) | (u64::from(len) & 0xffff) << 32);
        self.write::<2>(0);
    }

    /// Writes the first word alone, see [`Meta::rearm`]: enough to give a packet back.
    ///
    /// # Safety
    /// As for [`write_received`](Self::write_received), of `rearm`.
    #[inline(always)]
    pub unsafe fn write_rearm(self, rearm: u64) {
        self.write::<0>(rearm);
    }
}
