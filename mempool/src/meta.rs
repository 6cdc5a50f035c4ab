//! One packet's metadata: a cache line of private memory.

use std::mem::{align_of, offset_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use crate::pool::PoolShared;

/// Metadata of one packet segment. Drivers reach it with [`Packet::into_raw`](crate::Packet::into_raw) and
/// [`Pool::get_raw`](crate::Pool::get_raw); everyone else uses [`Packet`](crate::Packet).
///
/// `state == 0` promises: one segment, own buffer, never cloned. Such a packet is freed without looking further.
/// The first 24 bytes are three words that a driver may write whole; see [`Meta::rearm`].
///
/// ```
/// assert_eq!(size_of::<linecard_mempool::Meta>(), 64);
/// ```
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Meta {
    /// Where the data starts, in bytes from `buf`.
    pub data_off: u16,
    /// [`Meta::SHARED`] and its neighbours; 0 for a plain packet.
    pub state: u8,
    /// Segments of the packet; meaningful in its first segment.
    pub nb_segs: u8,
    /// Port it came from, [`Meta::NO_PORT`] if none.
    pub port: u16,
    /// Bytes at `buf`.
    pub buf_len: u16,
    /// Bytes of data in all segments; meaningful in the first segment.
    pub pkt_len: u32,
    /// Bytes of data in this segment.
    pub data_len: u16,
    /// VLAN tag control information, valid when the flags say so.
    pub vlan_tci: u16,
    /// [`Offload`](crate::Offload) flags.
    pub ol_flags: u32,
    /// [`PacketType`](crate::PacketType).
    pub packet_type: u32,
    /// Receive-side-scaling hash, valid when the flags say so.
    pub hash: u32,
    /// Packets whose data lies in this one's buffer, itself included; meaningful with [`Meta::SHARED`] only.
    pub refcnt: AtomicU32,
    /// [`TxOffload`](crate::TxOffload), valid when a transmit flag is set.
    pub tx_offload: u64,
    /// Next segment of the chain; `None` in the last one and in every free packet.
    pub next: Option<NonNull<Meta>>,
    /// Start of the buffer (its headroom).
    pub buf: NonNull<u8>,
    pub(crate) pool: NonNull<PoolShared>,
}

const _: () = {
    assert!(size_of::<Meta>() == 64 && align_of::<Meta>() == 64);
    assert!(offset_of!(Meta, data_off) == 0 && offset_of!(Meta, state) == 2);
    assert!(offset_of!(Meta, nb_segs) == 3 && offset_of!(Meta, port) == 4);
    assert!(offset_of!(Meta, buf_len) == 6 && offset_of!(Meta, pkt_len) == 8);
    assert!(offset_of!(Meta, data_len) == 12 && offset_of!(Meta, vlan_tci) == 14);
    assert!(offset_of!(Meta, ol_flags) == 16 && offset_of!(Meta, packet_type) == 20);
    assert!(offset_of!(Meta, hash) == 24 && offset_of!(Meta, refcnt) == 28);
    assert!(offset_of!(Meta, tx_offload) == 32 && offset_of!(Meta, next) == 40);
    assert!(offset_of!(Meta, buf) == 48 && offset_of!(Meta, pool) == 56);
};

impl Meta {
    /// State bit: clones of this packet may exist; `refcnt` counts.
    pub const SHARED: u8 = 1;
    /// State bit: a clone; the data lies in another packet's buffer.
    pub const INDIRECT: u8 = 2;
    /// State bit: the data lies in memory that someone attached.
    pub const EXTERNAL: u8 = 4;
    /// State bit: first segment of a chain.
    pub const CHAINED: u8 = 8;
    /// `port` of a packet that came from none.
    pub const NO_PORT: u16 = u16::MAX;

    /// The first word (`data_off`, `state`, `nb_segs`, `port`, `buf_len`) of a plain packet, to be stored in one go.
    ///
    /// ```
    /// use linecard_mempool::Meta;
    ///
    /// let bytes = Meta::rearm(128, 7, 2176).to_ne_bytes();
    /// assert_eq!(bytes[..4], [128, 0, 0, 1]);
    /// ```
    #[must_use]
    pub const fn rearm(data_off: u16, port: u16, buf_len: u16) -> u64 {
        let (off, port, len) = (data_off.to_ne_bytes(), port.to_ne_bytes(), buf_len.to_ne_bytes());
        u64::from_ne_bytes([off[0], off[1], 0, 1, port[0], port[1], len[0], len[1]])
    }

    /// The words at bytes 8 and 16 of a plain packet with `len` bytes and no offload flags.
    ///
    /// ```
    /// use linecard_mempool::Meta;
    ///
    /// let [lengths, flags] = Meta::lengths(60);
    /// assert_eq!((lengths.to_ne_bytes(), flags), ([60, 0, 0, 0, 60, 0, 0, 0], 0));
    /// ```
    #[must_use]
    #[inline]
    pub const fn lengths(len: u16) -> [u64; 2] {
        let (pkt, seg) = ((len as u32).to_ne_bytes(), len.to_ne_bytes());
        [u64::from_ne_bytes([pkt[0], pkt[1], pkt[2], pkt[3], seg[0], seg[1], 0, 0]), 0]
    }

    /// Makes a packet from [`Pool::get_raw`](crate::Pool::get_raw) a plain one with `len` bytes and no flags; its first
    /// word is `rearm`, see [`Meta::rearm`].
    ///
    /// # Safety
    /// The packet is the caller's alone, and `rearm` and `len` describe data inside its buffer.
    ///
    /// ```
    /// # use std::mem::MaybeUninit;
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Meta, Packet, Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let mut raw = [MaybeUninit::uninit()];
    /// pool.get_raw(&mut raw)?;
    /// // SAFETY: `get_raw` filled the place.
    /// let meta = unsafe { raw[0].assume_init() };
    /// let rearm = Meta::rearm(pool.headroom(), Meta::NO_PORT, pool.headroom() + pool.data_room());
    /// // SAFETY: nobody else knows the packet; 60 bytes behind the headroom are inside.
    /// unsafe { Meta::write_plain(meta, rearm, 60) };
    /// // SAFETY: from `get_raw`, and its fields were just written.
    /// let packet = unsafe { Packet::from_raw(meta) };
    /// assert_eq!((packet.len(), packet.nb_segs()), (60, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub unsafe fn write_plain(meta: NonNull<Self>, rearm: u64, len: u16) {
        let [lengths, flags] = Self::lengths(len);
        // SAFETY: the packet is the caller's; its first 24 bytes are integers, of any value.
        unsafe { meta.cast::<[u64; 3]>().write([rearm, lengths, flags]) };
    }

    /// Writes the first word alone, see [`Meta::rearm`]: enough to give a packet back.
    ///
    /// # Safety
    /// The packet is the caller's alone.
    #[inline(always)]
    pub unsafe fn write_rearm(meta: NonNull<Self>, rearm: u64) {
        // SAFETY: the packet is the caller's; its first 8 bytes are integers, of any value.
        unsafe { meta.cast::<u64>().write(rearm) };
    }

    /// Which pool the packet belongs to: [`Pool::id`](crate::Pool::id).
    #[must_use]
    pub fn pool_id(&self) -> usize {
        self.pool.as_ptr().addr()
    }
}
