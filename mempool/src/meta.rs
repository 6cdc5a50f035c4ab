//! The metadata of one packet: a cache line of private memory.

use std::mem::{align_of, offset_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use crate::pool::PoolShared;

/// Metadata of one packet segment. Drivers access it through [`Packet::into_raw`](crate::Packet::into_raw)
/// and [`Pool::get_raw`](crate::Pool::get_raw); all other code uses [`Packet`](crate::Packet).
///
/// `state == 0` means: one segment, own buffer, no clones. Such a packet is freed without further checks. The
/// first 24 bytes are three words that a driver may write as a whole; see [`Meta::rearm`].
///
/// ```
/// assert_eq!(size_of::<linecard_mempool::Meta>(), 64);
/// ```
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Meta {
    /// The offset of the data from `buf`, in bytes.
    pub data_off: u16,
    /// [`Meta::SHARED`] and the other state bits; 0 for a plain packet.
    pub state: u8,
    /// The number of segments of the packet; valid in its first segment.
    pub nb_segs: u8,
    /// The receiving port, [`Meta::NO_PORT`] if none.
    pub port: u16,
    /// The length of the buffer at `buf` in bytes.
    pub buf_len: u16,
    /// The length of the data in all segments, in bytes; valid in the first segment.
    pub pkt_len: u32,
    /// The length of the data in this segment, in bytes.
    pub data_len: u16,
    /// VLAN tag control information; valid if the flags say so.
    pub vlan_tci: u16,
    /// [`Offload`](crate::Offload) flags.
    pub ol_flags: u32,
    /// [`PacketType`](crate::PacketType).
    pub packet_type: u32,
    /// Receive-side-scaling hash; valid if the flags say so.
    pub hash: u32,
    /// The number of packets whose data is in this one's buffer, including itself; valid with
    /// [`Meta::SHARED`] only.
    pub refcnt: AtomicU32,
    /// [`TxOffload`](crate::TxOffload); valid if a transmit flag is set.
    pub tx_offload: u64,
    /// The next segment of the chain; `None` in the last one and in every free packet.
    pub next: Option<NonNull<Meta>>,
    /// The start of the buffer, where the headroom begins.
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
    /// State bit: clones of this packet may exist; `refcnt` counts the holders.
    pub const SHARED: u8 = 1;
    /// State bit: this is a clone; its data is in another packet's buffer.
    pub const INDIRECT: u8 = 2;
    /// State bit: the data is in attached external memory.
    pub const EXTERNAL: u8 = 4;
    /// State bit: this is the first segment of a chain.
    pub const CHAINED: u8 = 8;
    /// The value of `port` for a packet without a receiving port.
    pub const NO_PORT: u16 = u16::MAX;

    /// The first word (`data_off`, `state`, `nb_segs`, `port`, `buf_len`) of a plain packet, to be written in
    /// one store.
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

    /// Makes a packet from [`Pool::get_raw`](crate::Pool::get_raw) a plain one with `len` bytes and no flags.
    /// `rearm` is its first word; see [`Meta::rearm`].
    ///
    /// # Safety
    /// The caller alone owns the packet, and `rearm` and `len` describe data within its buffer.
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
        // SAFETY: the caller owns the packet; its first 24 bytes are integers, for which any value is valid.
        unsafe { meta.cast::<[u64; 3]>().write([rearm, lengths, flags]) };
    }

    /// Writes only the first word, see [`Meta::rearm`]: enough to return a packet to its pool.
    ///
    /// # Safety
    /// The caller alone owns the packet.
    #[inline(always)]
    pub unsafe fn write_rearm(meta: NonNull<Self>, rearm: u64) {
        // SAFETY: the caller owns the packet; its first 8 bytes are integers, for which any value is valid.
        unsafe { meta.cast::<u64>().write(rearm) };
    }

    /// The identifier of the packet's pool: [`Pool::id`](crate::Pool::id).
    #[must_use]
    pub fn pool_id(&self) -> usize {
        self.pool.as_ptr().addr()
    }
}
