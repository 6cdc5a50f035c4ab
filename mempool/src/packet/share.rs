//! Clones by reference, and copy on write.

use std::panic::Location;

use super::seg::Seg;
use super::{Packet, free};
use crate::error::Exhausted;
use crate::meta::Meta;
use crate::pool::{Pool, Site};

impl Packet {
    /// Creates a packet from the same pool that refers to the same bytes, with its own metadata (DPDK's
    /// indirect packet). Both can be read and sent; the first to be written gets a copy. `None` if the pool
    /// has too few packets.
    ///
    /// ```
    /// # use linecard_eal::{Memory, MemoryConfig};
    /// # use linecard_mempool::{Pool, PoolConfig};
    /// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
    /// # let pool = Pool::new(&domain, PoolConfig::default())?;
    /// let mut packet = pool.get().ok_or("empty")?;
    /// packet.copy_from_slice(b"hello")?;
    /// let mut clone = packet.clone_ref().ok_or("empty")?;
    /// assert_eq!(packet.data_ptr(), clone.data_ptr());
    /// clone.data_mut().ok_or("empty")?[0] = b'j';
    /// assert_eq!((packet.data(), clone.data()), (&b"hello"[..], &b"jello"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[must_use]
    pub fn clone_ref(&mut self) -> Option<Packet> {
        let (pool, site) = (self.head().pool(), Some(Location::caller()));
        let mut clone: Option<Packet> = None;
        let mut rest = Some(self.head());
        while let Some(seg) = rest {
            // SAFETY: a pool lives while one of its packets is out, and the first segment of `self` belongs
            // to `pool`.
            let fresh = Packet(unsafe { Seg::fresh(pool, site) }?.raw());
            if !seg.share_with(fresh.head()) {
                return None;
            }
            fresh.head().set_pkt_len(seg.data_len().into());
            match &mut clone {
                None => clone = Some(fresh),
                Some(clone) => clone.chain(fresh).ok()?,
            }
            rest = seg.following();
        }
        clone.as_ref()?.head().copy_description(self.head());
        clone
    }

    /// Copies the data and the offload metadata to a packet from `pool`; a chain if its buffers are smaller.
    /// `None` if the pool has too few packets.
    #[track_caller]
    #[must_use]
    pub fn copy(&self, pool: &Pool) -> Option<Packet> {
        let mut copy = pool.get()?;
        for segment in self.segments() {
            let mut rest = segment.data();
            loop {
                let (now, later) = rest.split_at(rest.len().min(copy.tailroom()));
                copy.append(now.len())?.copy_from_slice(now);
                if later.is_empty() {
                    break;
                }
                let more = pool.get()?;
                if more.tailroom() == 0 {
                    return None;
                }
                copy.chain(more).ok()?;
                rest = later;
            }
        }
        copy.head().copy_description(self.head());
        Some(copy)
    }

    /// Makes the first segment's data exclusive to this packet.
    #[cold]
    pub(super) fn own_head(&mut self, site: Site) -> bool {
        self.own(self.head(), None, site).is_some()
    }

    /// Makes the last segment's data exclusive to this packet.
    #[cold]
    pub(super) fn own_last(&mut self, site: Site) -> bool {
        let (mut before, mut last) = (None, self.head());
        while let Some(next) = last.following() {
            (before, last) = (Some(last), next);
        }
        self.own(last, before, site).is_some()
    }

    /// Makes the data of `seg`, which follows `before`, exclusive. Returns the segment that now has the data.
    fn own(&mut self, seg: Seg, before: Option<Seg>, site: Site) -> Option<Seg> {
        if seg.exclusive() {
            return Some(seg);
        }
        if seg.has(Meta::INDIRECT) {
            // A clone's own buffer is unused.
            let holder = seg.holder();
            if !seg.copy_home(seg) {
                return None;
            }
            seg.clear_bits(Meta::INDIRECT);
            // SAFETY: the reference is the clone's, which no longer needs it.
            unsafe { free::release(holder, site) };
            return Some(seg);
        }
        // The clones keep this segment with its buffer; another segment replaces it in the packet.
        // SAFETY: a pool lives as long as one of its packets is out, and `seg` is.
        let fresh = Packet(unsafe { Seg::fresh(seg.pool(), site) }?.raw());
        if !fresh.head().copy_home(seg) {
            return None;
        }
        let own = fresh.head();
        own.copy_description(seg);
        own.set_nb_segs(seg.nb_segs());
        own.set_state(seg.state() & Meta::CHAINED);
        own.set_next(seg.next());
        match before {
            Some(before) => before.set_next(Some(fresh.into_raw())),
            None => self.0 = fresh.into_raw(),
        }
        seg.set_next(None);
        seg.set_nb_segs(1);
        seg.clear_bits(Meta::CHAINED);
        // SAFETY: releases the packet's own reference to the segment that it no longer contains.
        unsafe { free::release(seg, site) };
        Some(own)
    }

    /// Resets the packet: one segment, own buffer, no data, full headroom, no offload metadata.
    ///
    /// # Errors
    /// Clones use its buffer and the pool has no other. Nothing is changed then.
    #[track_caller]
    pub fn reset(&mut self) -> Result<(), Exhausted> {
        let site = Some(Location::caller());
        let head = self.head();
        if head.has(Meta::SHARED) && !head.exclusive() {
            // SAFETY: a pool lives as long as one of its packets is out, and this one is.
            let Some(fresh) = (unsafe { Seg::fresh(head.pool(), site) }) else { return Err(Exhausted) };
            *self = Packet(fresh.raw());
            return Ok(());
        }
        self.cut(site);
        // SAFETY: the segment is owned, and no clone uses its own buffer or its external memory.
        unsafe { free::strip(head, site) };
        head.set_pkt_len(0);
        head.set_port(Meta::NO_PORT);
        head.set_vlan_tci(0);
        head.set_ol_flags(0);
        head.set_packet_type(0);
        Ok(())
    }
}
