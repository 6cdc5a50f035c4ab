//! The direct path, from the driver's transmit ring straight into another ring: a sink sees frames, with a
//! copy of their first bytes, before they become packets. See [`linecard_pmd::direct`].
//!
//! ```text
//!   peek ─► prefetch ─► allocate ─► copy first bytes ─► sink ─► copy the others of what is left ─► complete
//! ```
//! Packets are allocated before the sink is called, so that an empty pool leaves chains in the ring, as on
//! the packet path. All pointers into the peer's memory are used between `peek` and `complete`, inside the
//! gate of this queue: no region is unmapped during the burst, because the control thread waits outside.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use linecard_mempool::{BURST, Burst, Meta, Pool};
use linecard_pmd::direct::{Frame, HEAD, Sink, all};
use linecard_pmd::stats::QueueStats;
use linecard_virtio::{Chain, DeviceQueue, PeerFault};

use super::copy::copy;
use super::dequeue::{Dequeue, allocate, raw_places};
use crate::port::RxLoss;

/// The longest frame for which the packet path needs no more instructions: up to this length each of its
/// copies is a few moves, while the direct path copies a frame in two parts (counted by `cargo xtask
/// budget`'s trace: 277 each at 256 bytes, 351 and 292 at 300).
pub(super) const SHORT: u32 = 256;

/// Packets that return to their pool, even if a sink panics.
struct Spare<'a> {
    pool: &'a Pool,
    metas: &'a [NonNull<Meta>],
}

impl Drop for Spare<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.metas.is_empty() {
            // SAFETY: the creator of this value passed plain packets of the pool that it owned, each once.
            unsafe { self.pool.put_raw(self.metas) };
        }
    }
}

impl<Q: DeviceQueue, const OFFLOAD: bool> Dequeue<Q, OFFLOAD> {
    /// Shows plain chains of ordinary length, from the next one on, to `sink` as frames. Frames that it does
    /// not consume become packets. Returns the number of frames.
    #[inline(always)]
    pub(super) fn shown(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
        sink: &mut Sink<'_>,
    ) -> Result<usize, PeerFault> {
        // MEASURED: cargo xtask budget; initializing the arrays costs 12 to 14 more instructions per packet.
        let mut chains = [const { MaybeUninit::<Chain>::uninit() }; BURST];
        let want = out.room().min(BURST).min(self.most);
        let n = self.queue.peek(&*self.map, chains.get_mut(..want).unwrap_or_default())?;
        let chains = chains.get(..n).unwrap_or_default();
        // SAFETY: `peek` initialised the first `n` chains.
        let chains = unsafe { chains.assume_init_ref() };
        let plain = self.survey(chains, u32::from(pool.data_room()));
        let mut metas = [const { MaybeUninit::<NonNull<Meta>>::uninit() }; BURST];
        let taken = allocate(pool, &mut metas, plain);
        if taken < plain {
            stats.lost(RxLoss::NoBuffer, 1);
        }
        if taken == 0 {
            return Ok(0);
        }
        let chains = chains.get(..taken).unwrap_or_default();
        // SAFETY: `allocate` filled the first `taken` places.
        let metas = unsafe { metas.get(..taken).unwrap_or_default().assume_init_ref() };
        let mut frames = [const { MaybeUninit::<Frame<'_>>::uninit() }; BURST];
        let bytes = self.copy_heads(chains, metas, pool, &mut frames);
        let frames = frames.get(..taken).unwrap_or_default();
        // SAFETY: `copy_heads` filled a place for each chain.
        let frames = unsafe { frames.assume_init_ref() };
        let all = all(taken);
        let dealt_with = {
            let spare = Spare { pool, metas };
            let dealt_with = sink(frames) & all;
            // Packets that will be delivered must not be returned to the pool.
            if dealt_with != all {
                std::mem::forget(spare);
            }
            dealt_with
        };
        if dealt_with != all {
            finish_packets(frames, metas, dealt_with, out, pool);
        }
        self.queue.complete_burst(chains, |_| 0);
        self.moved(taken, bytes, stats);
        Ok(taken)
    }

    /// Copies the first bytes of each chain's frame into its packet, once, and stores the location of the
    /// rest. Returns the total bytes of the frames. There are as many `metas` as `chains`, and at least as
    /// many `frames`.
    #[inline(always)]
    fn copy_heads<'a>(
        &self,
        chains: &'a [Chain],
        metas: &'a [NonNull<Meta>],
        pool: &Pool,
        frames: &mut [MaybeUninit<Frame<'a>>],
    ) -> u64 {
        let headroom = pool.headroom();
        let rearm = Meta::rearm(headroom, Meta::NO_PORT, headroom + pool.data_room());
        let mut bytes = 0;
        for ((chain, meta), frame) in chains.iter().zip(metas).zip(frames) {
            // This cannot wrap: `survey` checked the length.
            let len = chain.len.wrapping_sub(self.header);
            let head = len.min(HEAD as u32) as usize;
            // SAFETY: `get_raw` returned the packet; only this queue refers to it.
            let buffer = unsafe { (*meta.as_ptr()).buf };
            // SAFETY: the headroom lies inside the buffer.
            let to = unsafe { buffer.as_ptr().add(usize::from(headroom)) };
            let from = chain.ptr.wrapping_add(self.header as usize);
            // SAFETY: the queue checked `chain.len` bytes at `chain.ptr`, which are `header + len`, and `head
            // <= len`; `survey` checked that `len <= data_room`.
            unsafe { copy(to, from, head) };
            // SAFETY: this queue owns the packet, and `len <= data_room`. The bytes after the head are in the
            // buffer, with any value.
            unsafe { Meta::write_plain(*meta, rearm, len as u16) };
            // SAFETY: the bytes were just written; this queue owns the packet, and nothing writes to it while
            // the frame exists.
            let first = unsafe { std::slice::from_raw_parts(to, head) };
            let rest = from.wrapping_add(head);
            // SAFETY: these are the other `len - head` bytes that the queue checked. They stay readable as
            // long as the chains are borrowed: inside this burst, during which the map keeps the memory (see
            // the module).
            frame.write(unsafe { Frame::new(first, rest, len as usize - head) });
            bytes += u64::from(len);
        }
        bytes
    }
}

/// Appends packets to `out` for the frames that are not in `dealt_with`, and returns the packets of the
/// others to the pool. `out` has room for all of them.
#[inline(never)]
fn finish_packets(
    frames: &[Frame<'_>],
    metas: &[NonNull<Meta>],
    dealt_with: u64,
    out: &mut Burst,
    pool: &Pool,
) {
    let Some(first) = metas.first() else { return };
    let mut spare = [*first; BURST];
    let (mut kept, mut given) = (0, 0);
    let places = raw_places(out);
    for (at, (frame, meta)) in frames.iter().zip(metas).enumerate() {
        if dealt_with >> at & 1 != 0 {
            if let Some(place) = spare.get_mut(given) {
                *place = *meta;
                given += 1;
            }
            continue;
        }
        let [(_, head_len), (rest, rest_len)] = frame.runs();
        // SAFETY: this queue owns the packet; the frame borrows only the first bytes of its data.
        let buffer = unsafe { (*meta.as_ptr()).buf };
        // SAFETY: after the headroom the packet has room for the whole frame (`survey`), including the head.
        let to = unsafe { buffer.as_ptr().add(usize::from(pool.headroom()) + head_len) };
        // SAFETY: the frame keeps `rest_len` bytes readable for its lifetime; `survey` accepted only frames
        // whose head and rest fit the packet's data room, and this queue owns the packet.
        unsafe { copy(to, rest, rest_len) };
        if let Some(place) = places.get_mut(kept) {
            place.write(*meta);
            kept += 1;
        }
    }
    let len = out.len();
    // SAFETY: the `kept` places after `len` hold packets that this queue owns and has just completed.
    unsafe { out.set_len(len + kept) };
    let metas = spare.get(..given).unwrap_or_default();
    drop(Spare { pool, metas });
}
