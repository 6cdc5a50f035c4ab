//! One segment, by pointer: the only place that reads and writes fields of [`Meta`].

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::meta::Meta;
use crate::pool::{PoolShared, Site, get};

/// A segment that its user owns or borrows through a packet. No reference to the whole [`Meta`] is ever made: while
/// we own a segment, others may count in its `refcnt`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Seg(NonNull<Meta>);

macro_rules! fields {
    ($($field:ident, $set:ident: $type:ty;)*) => {$(
        #[inline(always)]
        pub(crate) fn $field(self) -> $type {
            // SAFETY: `Seg::new` promised that the segment may be read.
            unsafe { (*self.0.as_ptr()).$field }
        }

        #[inline(always)]
        pub(crate) fn $set(self, value: $type) {
            // SAFETY: `Seg::new` promised that whoever calls a setter owns the segment.
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
        // SAFETY: written once, when the pool was made.
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

    /// First byte of data.
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

    /// Its number in its pool decides which buffer is its own.
    fn home(self) -> (NonNull<u8>, u16) {
        // SAFETY: the pool lives as long as one of its packets is out.
        let pool = unsafe { self.pool().as_ref() };
        (pool.home(pool.index(self.0)), pool.buf_len() as u16)
    }

    /// Gives the segment its own buffer back, with full headroom and no data.
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

    /// Copies `source`'s data into this segment's own buffer, as far from its start as there. Whether it fits.
    pub(crate) fn copy_home(self, source: Self) -> bool {
        let (from, len, off) = (source.data(), source.data_len(), source.data_off());
        let (buf, room) = self.home();
        if len > room {
            return false;
        }
        let off = off.min(room - len);
        let to = buf.as_ptr().wrapping_add(usize::from(off));
        // SAFETY: `off + len <= room`; `self`'s own buffer is used by nobody, so it is not `source`'s.
        unsafe { to.copy_from_nonoverlapping(from, usize::from(len)) };
        self.set_buf(buf);
        self.set_buf_len(room);
        self.set_data_off(off);
        self.set_data_len(len);
        true
    }

    /// Copies what describes a whole packet: lengths of the chain, port, offloads.
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
        // SAFETY: there is an attachment for each packet of the pool, initialised with it; who owns the packet owns it (`new`).
        unsafe { self.attachment().read() }
    }

    pub(crate) fn attach(self, to: *mut ()) {
        // SAFETY: the holder of the packet owns its attachment, and nobody else reads it meanwhile.
        unsafe { self.attachment().write(to) }
    }

    /// The segment whose buffer the data lies in: itself, unless it is a clone.
    pub(crate) fn holder(self) -> Self {
        match NonNull::new(self.attached().cast()).filter(|_| self.has(Meta::INDIRECT)) {
            Some(holder) => Self(holder),
            None => self,
        }
    }

    /// Whether a clone's data lies in memory that was attached to its original.
    pub(crate) fn lies_outside(self) -> bool {
        // The original's state belongs to its holder, who may write it now; its pool and its number never change.
        self.has(Meta::INDIRECT) && self.buf() != self.holder().home().0
    }

    /// Whether nobody else can see the data. If so, a packet that was shared is no longer.
    pub(crate) fn exclusive(self) -> bool {
        if !self.has(Meta::SHARED | Meta::INDIRECT) {
            return true;
        }
        // R1, pairs with R2: the other holders' last reads come before our writes.
        if self.holder().refcnt().load(Ordering::Acquire) != 1 {
            return false;
        }
        self.clear_bits(Meta::SHARED);
        true
    }

    /// Lets `clone`, a fresh segment, refer to this one's data. `false` when there are too many clones.
    pub(crate) fn share_with(self, clone: Self) -> bool {
        let holder = self.holder();
        if self.has(Meta::SHARED | Meta::INDIRECT) {
            // As for `Arc`: a new holder is made by an old one, nothing to order. The test keeps far from the wrap.
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

    /// Gives up one hold on a shared segment. Whether it was the last: then the segment is the caller's.
    pub(crate) fn unhold(self) -> bool {
        // R2, pairs with R1 and, for the last, with every other R2: nobody reads the data after it is free.
        self.refcnt().fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// A fresh segment of `pool`.
    ///
    /// # Safety
    /// The pool exists.
    pub(crate) unsafe fn fresh(pool: NonNull<PoolShared>, site: Site) -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "`get` writes it, or it is not looked at")]
        let mut item = NonNull::dangling();
        // SAFETY: the pool exists (this function's condition), and `item` is place for one pointer.
        if !unsafe { get(pool, &raw mut item, 1, site) } {
            return None;
        }
        // SAFETY: the pool exists until this returns: the packet that we have just taken keeps it.
        let rearm = unsafe { pool.as_ref() }.rearm;
        // SAFETY: `get` gave the packet to us alone; data of no bytes behind the pool's headroom lies inside its buffer.
        unsafe { Meta::write_plain(item, rearm, 0) };
        Some(Self(item))
    }
}
