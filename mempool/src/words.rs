//! Metadata in whole words, for drivers in which every instruction counts.

use std::mem::size_of;
use std::ptr::NonNull;

use crate::meta::Meta;

// The shifts below give the position of a field in its word; `Meta` asserts its offsets.
const _: () = assert!(cfg!(target_endian = "little") && size_of::<Meta>() == 64);

/// The metadata of a packet that a driver owns, read and written one word at a time. Accesses touch one cache
/// line of private memory.
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

/// The position of a segment's data in its buffer, and whether it is the only segment of the packet, from one
/// read each of words 0 and 1.
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

    /// The offset of the data from the start of the buffer, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn data_off(self) -> u64 {
        self.first & 0xffff
    }

    /// The length of the data in this segment, in bytes.
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
    /// `meta` is the metadata of a packet, which was initialised when its pool was created, and nothing else
    /// accesses it while this value or a copy is used.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(meta: NonNull<Meta>) -> Self {
        Self(meta)
    }

    /// The metadata at an address from [`address`](Self::address). The lowest six bits, which are 0 there,
    /// are ignored: the driver may use them as flags.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    #[inline(always)]
    #[must_use]
    pub unsafe fn from_address(address: u64) -> Self {
        // SAFETY: the address of metadata is a nonzero multiple of 64, so masking the flags restores it.
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
        // SAFETY: metadata is 64 bytes long and 64-aligned, so every word of it is in bounds.
        let at = unsafe { self.0.cast::<u64>().add(WORD) };
        // SAFETY: in bounds; all words were initialised when the pool was created, and nothing else accesses
        // them (`new`).
        unsafe { at.read() }
    }

    #[inline(always)]
    fn write<const WORD: usize>(self, value: u64) {
        const { assert!(WORD < 3) };
        // SAFETY: metadata is 64 bytes long and 64-aligned, so every word of it is in bounds.
        let at = unsafe { self.0.cast::<u64>().add(WORD) };
        // SAFETY: in bounds, and nothing else accesses it (`new`); the fields of words 0 to 2 are integers,
        // for which any value is valid.
        unsafe { at.write(value) };
    }

    /// Reads words 0 and 1.
    #[inline(always)]
    #[must_use]
    pub fn extent(self) -> Extent {
        Extent { first: self.read::<0>(), lengths: self.read::<1>() }
    }

    /// [`Meta::SHARED`] and the other state bits; 0 for a plain packet.
    #[inline(always)]
    #[must_use]
    pub fn state(self) -> u8 {
        (self.read::<0>() >> 16) as u8
    }

    /// The bits of the [`Offload`](crate::Offload) flags.
    #[inline(always)]
    #[must_use]
    pub fn ol_flags(self) -> u32 {
        self.read::<2>() as u32
    }

    /// The address of the buffer.
    #[inline(always)]
    #[must_use]
    pub fn buf(self) -> u64 {
        self.read::<6>()
    }

    /// The identifier of the packet's pool: [`Pool::id`](crate::Pool::id).
    #[inline(always)]
    #[must_use]
    pub fn pool_id(self) -> u64 {
        self.read::<7>()
    }

    /// Makes it a packet of one segment with `len` bytes and no flags, as [`Meta::write_plain`] does, with
    /// three single-word stores.
    ///
    /// # Safety
    /// No [`Packet`](crate::Packet) of this metadata exists; `rearm` and `len` describe data within the
    /// buffer, or are checked before a packet is made of it.
    #[inline(always)]
    pub unsafe fn write_received(self, rearm: u64, len: u32) {
        self.write::<0>(rearm);
        self.write::<1>(u64::from(len) | (u64::from(len) & 0xffff) << 32);
        self.write::<2>(0);
    }

    /// Writes only the first word, see [`Meta::rearm`]: enough to return a packet to its pool.
    ///
    /// # Safety
    /// As for [`write_received`](Self::write_received), for `rearm`.
    #[inline(always)]
    pub unsafe fn write_rearm(self, rearm: u64) {
        self.write::<0>(rearm);
    }
}
