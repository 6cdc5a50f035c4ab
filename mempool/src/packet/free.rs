//! Return of packets to their pools: plain packets in bulk, all others one by one.

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
    // SAFETY: `items` has `n` packets that the caller owns, and nothing writes there until this returns.
    let packets = unsafe { std::slice::from_raw_parts(items, n) };
    let [first, ..] = packets else { return };
    // SAFETY: the caller owns the packet, which is in use until it is put below; only read here.
    let pool = unsafe { Seg::new(*first) }.pool();
    let odd = packets.iter().fold(0, |odd, &packet| {
        // SAFETY: the caller owns each of the `n` packets, which are in use until they are put below; only read here.
        let seg = unsafe { Seg::new(packet) };
        odd | usize::from(seg.state()) | (seg.pool().as_ptr().addr() ^ pool.as_ptr().addr())
    });
    if odd == 0 {
        // SAFETY: `odd == 0`: all are plain and of `pool`; the caller owns them and does not use them afterwards.
        unsafe { put(pool, items, n, site) }
    } else {
        // SAFETY: the caller owns the packets and does not use them afterwards, which is the only condition
        // of `mixed`.
        unsafe { mixed(packets, site) }
    }
}

/// Returns packets that are not all plain, or not all of one pool.
///
/// # Safety
/// As for [`bulk`].
#[cold]
#[inline(never)]
unsafe fn mixed(packets: &[NonNull<Meta>], site: Site) {
    let key = |&packet: &NonNull<Meta>| {
        // SAFETY: the caller owns the packet, and `rest` has only packets that were not returned yet.
        let seg = unsafe { Seg::new(packet) };
        (seg.state() == 0).then_some(seg.pool())
    };
    let mut rest = packets;
    while let Some(first) = rest.first().map(key) {
        let same = rest.iter().take_while(|packet| key(packet) == first).count();
        let (run, after) = rest.split_at(same);
        match first {
            // SAFETY: the run has packets with `state == 0` of this pool only; the caller owns them, and each is in one run.
            Some(pool) => unsafe { put(pool, run.as_ptr(), run.len(), site) },
            // SAFETY: the caller owns each of them, and each is in one run.
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
    // SAFETY: the caller owns the packet, which is in use until it is put below.
    let seg = unsafe { Seg::new(packet) };
    if seg.state() == 0 {
        // SAFETY: `state == 0`: one segment, its own buffer, no clones; the caller does not use it afterwards.
        unsafe { put(seg.pool(), &raw const packet, 1, site) }
    } else {
        // SAFETY: the caller owns the packet with all its segments and does not use it afterwards.
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
        // SAFETY: the caller owns every segment of the chain; this one is unlinked, and the loop does not come back to it.
        unsafe { segment(seg, site) };
    }
}

/// Frees one unlinked segment; clones may continue to use its buffer.
///
/// # Safety
/// The caller owns the segment and does not use it afterwards.
unsafe fn segment(seg: Seg, site: Site) {
    if seg.has(Meta::INDIRECT) {
        let holder = seg.holder();
        seg.go_home();
        // SAFETY: it uses its own buffer again, which no clone uses: clones refer to `holder`.
        unsafe { retire(seg, site) };
        // SAFETY: an indirect segment has one reference to its holder; it is no longer indirect, so this
        // releases it once.
        unsafe { release(holder, site) };
    } else if seg.has(Meta::SHARED) {
        // SAFETY: a segment has one reference to itself; the caller releases it and does not use the segment
        // afterwards.
        unsafe { release(seg, site) };
    } else {
        // SAFETY: neither indirect nor shared: no clone refers to it, and the caller gives it up.
        unsafe { retire(seg, site) };
    }
}

/// Releases one reference to a segment that has clones.
///
/// # Safety
/// The caller has a reference, and does not use it afterwards.
pub(super) unsafe fn release(holder: Seg, site: Site) {
    if holder.unhold() {
        holder.clear_bits(Meta::SHARED);
        // SAFETY: `unhold` released the last reference, so nothing refers to the segment any more.
        unsafe { retire(holder, site) };
    }
}

/// Restores a segment's own buffer, and releases the clone's reference or the external memory that it used
/// instead.
///
/// # Safety
/// The caller owns the segment, and it has no clones.
pub(super) unsafe fn strip(seg: Seg, site: Site) {
    let (indirect, external) = (seg.has(Meta::INDIRECT), seg.has(Meta::EXTERNAL));
    let (holder, owner) = (seg.holder(), seg.attached());
    seg.go_home();
    seg.clear_bits(Meta::INDIRECT | Meta::EXTERNAL);
    if indirect {
        // SAFETY: an indirect segment has one reference to its holder; the bit is cleared above, so this
        // releases it once.
        unsafe { release(holder, site) };
    } else if external {
        // SAFETY: made by `attach_external`; without clones nothing uses its memory, and the bit is cleared
        // above, so this is called once.
        unsafe { external::release(owner) };
    }
}

/// Returns an exclusively owned segment to its pool.
///
/// # Safety
/// The caller owns the segment, which is unlinked and has no clones, and does not use it afterwards.
unsafe fn retire(seg: Seg, site: Site) {
    let owner = seg.has(Meta::EXTERNAL).then(|| seg.attached());
    if owner.is_some() {
        seg.go_home();
    }
    seg.set_state(0);
    let packet = seg.raw();
    // SAFETY: plain now (state 0, own buffer), unlinked and without clones (this function's condition).
    unsafe { put(seg.pool(), &raw const packet, 1, site) };
    if let Some(owner) = owner {
        // SAFETY: made by `attach_external`, and read before the segment was returned; no clone uses its
        // memory, and this is called once.
        unsafe { external::release(owner) };
    }
}
