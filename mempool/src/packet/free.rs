//! Where packets go: plain ones in bulk, all others with a closer look.

use std::ptr::NonNull;

use super::external;
use super::seg::Seg;
use crate::meta::Meta;
use crate::pool::{Site, put};

/// Returns `n` packets to their pools.
///
/// # Safety
/// The caller owns the packets at `items` and does not use them afterwards.
#[inline]
pub(crate) unsafe fn bulk(items: *const NonNull<Meta>, n: usize, site: Site) {
    if n == 0 {
        return;
    }
    // SAFETY: readable for `n`.
    let packets = unsafe { std::slice::from_raw_parts(items, n) };
    let [first, ..] = packets else { return };
    // SAFETY: in use and the caller's.
    let pool = unsafe { Seg::new(*first) }.pool();
    let odd = packets.iter().fold(0, |odd, &packet| {
        // SAFETY: each of the `n` packets is in use and the caller's.
        let seg = unsafe { Seg::new(packet) };
        odd | usize::from(seg.state()) | (seg.pool().as_ptr().addr() ^ pool.as_ptr().addr())
    });
    if odd == 0 {
        // SAFETY: plain packets of one pool.
        unsafe { put(pool, items, n, site) }
    } else {
        // SAFETY: the caller's promise, passed on.
        unsafe { mixed(packets, site) }
    }
}

#[cold]
#[inline(never)]
unsafe fn mixed(packets: &[NonNull<Meta>], site: Site) {
    let key = |&packet: &NonNull<Meta>| {
        // SAFETY: in use and the caller's.
        let seg = unsafe { Seg::new(packet) };
        (seg.state() == 0).then_some(seg.pool())
    };
    let mut rest = packets;
    while let Some(first) = rest.first().map(key) {
        let same = rest.iter().take_while(|packet| key(packet) == first).count();
        let (run, after) = rest.split_at(same);
        match first {
            // SAFETY: a run of plain packets of one pool.
            Some(pool) => unsafe { put(pool, run.as_ptr(), run.len(), site) },
            // SAFETY: each is the caller's.
            None => run.iter().for_each(|&packet| unsafe { one(packet, site) }),
        }
        rest = after;
    }
}

/// Returns one packet.
///
/// # Safety
/// The caller owns it and does not use it afterwards.
#[inline]
pub(crate) unsafe fn one(packet: NonNull<Meta>, site: Site) {
    // SAFETY: in use and the caller's.
    let seg = unsafe { Seg::new(packet) };
    if seg.state() == 0 {
        // SAFETY: a plain packet of its pool.
        unsafe { put(seg.pool(), &raw const packet, 1, site) }
    } else {
        // SAFETY: the caller's promise, passed on.
        unsafe { chain(seg, site) }
    }
}

/// Returns every segment from `first` on.
///
/// # Safety
/// The caller owns them and does not use them afterwards.
#[cold]
#[inline(never)]
pub(super) unsafe fn chain(first: Seg, site: Site) {
    let mut rest = Some(first);
    while let Some(seg) = rest {
        rest = seg.following();
        seg.set_next(None);
        seg.clear_bits(Meta::CHAINED);
        seg.set_nb_segs(1);
        // SAFETY: the caller's promise for each.
        unsafe { segment(seg, site) };
    }
}

/// Gives up one segment, unlinked: its buffer may live on in clones.
unsafe fn segment(seg: Seg, site: Site) {
    if seg.has(Meta::INDIRECT) {
        let holder = seg.holder();
        seg.go_home();
        // SAFETY: plain now, and the caller's.
        unsafe { retire(seg, site) };
        // SAFETY: the clone's hold, given up once.
        unsafe { release(holder, site) };
    } else if seg.has(Meta::SHARED) {
        // SAFETY: the packet's own hold, given up once.
        unsafe { release(seg, site) };
    } else {
        // SAFETY: nobody else knows it.
        unsafe { retire(seg, site) };
    }
}

/// Gives up one hold on a segment that has clones.
///
/// # Safety
/// The caller has a hold, and does not use it afterwards.
pub(super) unsafe fn release(holder: Seg, site: Site) {
    if holder.unhold() {
        holder.clear_bits(Meta::SHARED);
        // SAFETY: that was the last hold.
        unsafe { retire(holder, site) };
    }
}

/// Gives a segment its own buffer back, and whatever it had instead to where that belongs.
///
/// # Safety
/// The segment is the caller's and has no clones.
pub(super) unsafe fn strip(seg: Seg, site: Site) {
    let (indirect, external) = (seg.has(Meta::INDIRECT), seg.has(Meta::EXTERNAL));
    let (holder, owner) = (seg.holder(), seg.attached());
    seg.go_home();
    seg.clear_bits(Meta::INDIRECT | Meta::EXTERNAL);
    if indirect {
        // SAFETY: the clone's hold, given up once.
        unsafe { release(holder, site) };
    } else if external {
        // SAFETY: the attachment of an external segment without clones, given up once.
        unsafe { external::release(owner) };
    }
}

/// Returns a segment that nobody else knows to its pool.
unsafe fn retire(seg: Seg, site: Site) {
    let owner = seg.has(Meta::EXTERNAL).then(|| seg.attached());
    if owner.is_some() {
        seg.go_home();
    }
    seg.set_state(0);
    let packet = seg.raw();
    // SAFETY: plain now: one segment, own buffer, no clones.
    unsafe { put(seg.pool(), &raw const packet, 1, site) };
    if let Some(owner) = owner {
        // SAFETY: the attachment of an external segment, read before the segment went.
        unsafe { external::release(owner) };
    }
}
