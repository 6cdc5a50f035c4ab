//! Access to one segment by pointer: the only code that reads and writes fields of [`Meta`].

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::meta::Meta;
use crate::pool::{PoolShared, Site, get};

/// A segment that its user owns or borrows through a packet. No reference to the whole [`Meta`] is ever
/// created, because other holders may change `refcnt` at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Seg(NonNull<Meta>);

macro_rules! fields {
    ($($field:ident, $set:ident: $type:ty;)*) => {$(
        #[inline(always)]
        pub(crate) fn $field(self) -> $type {
            // SAFETY: `Seg::new` requires that the segment may be read.
            unsafe { (*self.0.as_ptr()).$field }
        }

        #[inline(always)]
        pub(crate) fn $set(self, value: $type) {
            // SAFETY: `Seg::new` requires that the caller of a setter owns the segment.
            unsafe { (*self.0.as_ptr()).$field = value }
        }
    )*};
}

impl Seg {
    /// # Safety
    /// The segment is in use (not free), and the caller owns it, or borrows it and calls no setter, while the value
    /// or a copy is used.
    #[inline(always)]
    pub(crate) const unsafe fn new(meta: NonNull<Meta>) -> Self {
        Self(meta)
    }

    fields! {
        data_off, set_data_off: u16;
        state, set_state: u8;
        nb_segs, set_nb_segs: u8;
        port, set_port: u16;
        buf_len, set_buf_len: u16;
        pkt_len, set_pkt_len: u32;
        data_len, set_data_len: u16;
        vlan_tci, set_vlan_tci: u16;
        ol_flags, set_ol_flags: u32;
        packet_type, set_packet_type: u32;
        hash, set_hash: u32;
        tx_offload, set_tx_offload: u64;
        buf, set_buf: NonNull<u8>;
        next, set_next: Option<NonNull<Meta>>;
    }

    #[inline(always)]
    pub(crate) fn raw(self) -> NonNull<Meta> {
        self.0
    }

    #[inline(always)]
    pub(crate) fn following(self) -> Option<Self> {
        self.next().map(Self)
    }

    #[inline(always)]
    pub(crate) fn pool(self) -> NonNull<PoolShared> {
        // SAFETY: written once, when the pool was created.
        unsafe { (*self.0.as_ptr()).pool }
    }

    fn refcnt<'a>(self) -> &'a AtomicU32 {
        // SAFETY: an atomic in memory that lives as long as the packet is out.
        unsafe { &(*self.0.as_ptr()).refcnt }
    }

    pub(crate) fn has(self, bits: u8) -> bool {
        self.state() & bits != 0
    }

    pub(crate) fn set_bits(self, bits: u8) {
        self.set_state(self.state() | bits);
    }

    pub(crate) fn clear_bits(self, bits: u8) {
        self.set_state(self.state() & !bits);
    }

    /// The address of the first byte of data.
    #[inline(always)]
    pub(crate) fn data(self) -> *mut u8 {
        self.buf().as_ptr().wrapping_add(usize::from(self.data_off()))
    }

    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        usize::from(self.data_len())
    }

    #[inline(always)]
    pub(crate) fn tailroom(self) -> usize {
        usize::from(self.buf_len()).saturating_sub(usize::from(self.data_off()) + self.len())
    }

    pub(crate) fn last(self) -> Self {
        let mut last = self;
        while let Some(next) = last.following() {
            last = next;
        }
        last
    }

    /// The segment's own buffer and its length; its number in the pool determines it.
    fn home(self) -> (NonNull<u8>, u16) {
        // SAFETY: the pool lives as long as one of its packets is out.
        let pool = unsafe { self.pool().as_ref() };
        (pool.home(pool.index(self.0)), pool.buf_len() as u16)
    }

    /// Restores the segment's own buffer, with full headroom and no data.
    pub(crate) fn go_home(self) {
        let (buf, len) = self.home();
        self.set_buf(buf);
        self.set_buf_len(len);
        self.set_data_off(self.headroom_of_pool());
        self.set_data_len(0);
    }

    pub(crate) fn headroom_of_pool(self) -> u16 {
        // SAFETY: the pool lives as long as one of its packets is out.
        unsafe { self.pool().as_ref() }.config.headroom
    }

    pub(crate) fn data_room_of_pool(self) -> u16 {
        // SAFETY: the pool lives as long as one of its packets is out.
        unsafe { self.pool().as_ref() }.config.data_room
    }

    /// Copies the data of `source` into this segment's own buffer, with the same headroom if possible.
    /// Returns whether it fits.
    pub(crate) fn copy_home(self, source: Self) -> bool {
        let (from, len, off) = (source.data(), source.data_len(), source.data_off());
        let (buf, room) = self.home();
        if len > room {
            return false;
        }
        let off = off.min(room - len);
        let to = buf.as_ptr().wrapping_add(usize::from(off));
        // SAFETY: `off + len <= room`; nothing uses `self`'s own buffer, so it is not `source`'s.
        unsafe { to.copy_from_nonoverlapping(from, usize::from(len)) };
        self.set_buf(buf);
        self.set_buf_len(room);
        self.set_data_off(off);
        self.set_data_len(len);
        true
    }

    /// Copies the fields that describe a whole packet: lengths of the chain, port, offloads.
    pub(crate) fn copy_description(self, source: Self) {
        self.set_port(source.port());
        self.set_pkt_len(source.pkt_len());
        self.set_vlan_tci(source.vlan_tci());
        self.set_ol_flags(source.ol_flags());
        self.set_packet_type(source.packet_type());
        self.set_hash(source.hash());
        self.set_tx_offload(source.tx_offload());
    }

    fn attachment(self) -> NonNull<*mut ()> {
        // SAFETY: the pool lives as long as one of its packets is out.
        unsafe { self.pool().as_ref() }.attachment(self.0)
    }

    pub(crate) fn attached(self) -> *mut () {
        // SAFETY: each packet of the pool has an initialised attachment, which the owner of the packet owns
        // (`new`).
        unsafe { self.attachment().read() }
    }

    pub(crate) fn attach(self, to: *mut ()) {
        // SAFETY: the owner of the packet owns its attachment, and nothing else reads it meanwhile.
        unsafe { self.attachment().write(to) }
    }

    /// The segment whose buffer contains the data: itself, unless it is a clone.
    pub(crate) fn holder(self) -> Self {
        match NonNull::new(self.attached().cast()).filter(|_| self.has(Meta::INDIRECT)) {
            Some(holder) => Self(holder),
            None => self,
        }
    }

    /// Whether a clone's data is in memory that was attached to its original.
    pub(crate) fn lies_outside(self) -> bool {
        // The original's state belongs to its owner, who may write it now; its pool and its number never
        // change.
        self.has(Meta::INDIRECT) && self.buf() != self.holder().home().0
    }

    /// Whether the data has no other user. If so, a packet that was shared is marked as not shared.
    pub(crate) fn exclusive(self) -> bool {
        if !self.has(Meta::SHARED | Meta::INDIRECT) {
            return true;
        }
        // R1, pairs with R2: the other holders' last reads happen before this holder's writes.
        if self.holder().refcnt().load(Ordering::Acquire) != 1 {
            return false;
        }
        self.clear_bits(Meta::SHARED);
        true
    }

    /// Makes `clone`, a fresh segment, refer to this one's data. `false` if there are too many clones.
    pub(crate) fn share_with(self, clone: Self) -> bool {
        let holder = self.holder();
        if self.has(Meta::SHARED | Meta::INDIRECT) {
            // As in `Arc`: an existing reference creates a new one, nothing to order. The limit stays far
            // from wrapping.
            if holder.refcnt().fetch_add(1, Ordering::Relaxed) > u32::MAX / 2 {
                holder.refcnt().fetch_sub(1, Ordering::Relaxed);
                return false;
            }
        } else {
            holder.refcnt().store(2, Ordering::Relaxed);
            self.set_bits(Meta::SHARED);
        }
        clone.attach(holder.0.as_ptr().cast());
        clone.set_bits(Meta::INDIRECT);
        clone.set_buf(self.buf());
        clone.set_buf_len(self.buf_len());
        clone.set_data_off(self.data_off());
        clone.set_data_len(self.data_len());
        true
    }

    /// Releases one reference to a shared segment. Returns whether it was the last: then the caller owns the
    /// segment.
    pub(crate) fn unhold(self) -> bool {
        // R2, pairs with R1 and, for the last reference, with every other R2: no read of the data happens
        // after it is free.
        self.refcnt().fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// A fresh segment of `pool`.
    ///
    /// # Safety
    /// The pool exists.
    pub(crate) unsafe fn fresh(pool: NonNull<PoolShared>, site: Site) -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "`get` writes it, or it is not looked at")]
        let mut item = NonNull::dangling();
        // SAFETY: the pool exists (this function's condition), and `item` has room for one pointer.
        if !unsafe { get(pool, &raw mut item, 1, site) } {
            return None;
        }
        // SAFETY: the packet just taken keeps the pool until this returns.
        let rearm = unsafe { pool.as_ref() }.rearm;
        // SAFETY: `get` gave the packet to the caller alone; no data behind the pool's headroom is within its
        // buffer.
        unsafe { Meta::write_plain(item, rearm, 0) };
        Some(Self(item))
    }
}
