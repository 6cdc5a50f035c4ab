//! From the driver's transmit ring straight into another ring: frames are shown, with a copy of their first bytes, before they
//! become packets. See [`linecard_pmd::direct`].
//!
//! ```text
//!   peek ─► prefetch ─► allocate ─► copy first bytes ─► sink ─► copy the others of what is left ─► complete
//! ```
//! The packets are there before the sink is asked, so that a pool without packets leaves chains on the ring, as it does on the
//! way that makes packets of all of them. All pointers into the peer's memory are used between `peek` and `complete`, inside of
//! the gate of this queue: until the burst is over no region is unmapped, because the control thread waits outside.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use linecard_mempool::{BURST, Burst, Meta, Pool};
use linecard_pmd::direct::{Frame, HEAD, Sink, all};
use linecard_pmd::stats::QueueStats;
use linecard_virtio::{Chain, DeviceQueue, PeerFault};

use super::copy::copy;
use super::dequeue::{Dequeue, allocate, raw_places};
use crate::port::RxLoss;

/// Longest frame that takes no more instructions as a packet: to this length both copies are a few moves each, while a frame that is
/// shown is copied in two parts (counted by `cargo xtask budget`'s trace: 277 each at 256 bytes, 351 and 292 at 300).
pub(super) const SHORT: u32 = 256;

/// Packets that go back to their pool, also if a sink panics.
struct Spare<'a> {
    pool: &'a Pool,
    metas: &'a [NonNull<Meta>],
}

impl Drop for Spare<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.metas.is_empty() {
            // SAFETY: whoever made this gave up packets of the pool, plain ones, each once.
            unsafe { self.pool.put_raw(self.metas) };
        }
    }
}

impl<Q: DeviceQueue, const OFFLOAD: bool> Dequeue<Q, OFFLOAD> {
    /// Plain chains of ordinary length, from the next one on, as frames for `sink`; those with which it does not deal become
    /// packets. How many frames there were.
    #[inline(always)]
    pub(super) fn shown(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
        sink: &mut Sink<'_>,
    ) -> Result<usize, PeerFault> {
        // MEASURED: cargo xtask budget; arrays of this file that are initialized first cost 12 to 14 instructions more per packet.
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
            // Those that become packets are no spare ones.
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

    /// Copies the first bytes of each chain's frame into its packet, once, and says where the others are; returns the bytes of
    /// all frames. As many `metas` as `chains`, and no fewer `frames`.
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
            // Cannot wrap: `survey` compared.
            let len = chain.len.wrapping_sub(self.header);
            let head = len.min(HEAD as u32) as usize;
            // SAFETY: `get_raw` gave us the packet; nobody else knows it.
            let buffer = unsafe { (*meta.as_ptr()).buf };
            // SAFETY: the headroom lies inside the buffer.
            let to = unsafe { buffer.as_ptr().add(usize::from(headroom)) };
            let from = chain.ptr.wrapping_add(self.header as usize);
            // SAFETY: the queue checked `chain.len` bytes at `chain.ptr`, which are `header` and `len`, of which `head` is a
            // part; `survey` that `len <= data_room`.
            unsafe { copy(to, from, head) };
            // SAFETY: the packet is ours, and `len <= data_room`. The bytes behind the head are in the buffer, of any value.
            unsafe { Meta::write_plain(*meta, rearm, len as u16) };
            // SAFETY: just written; the packet is ours and nobody writes into it while the frame is there.
            let first = unsafe { std::slice::from_raw_parts(to, head) };
            let rest = from.wrapping_add(head);
            // SAFETY: the other `len - head` bytes that the queue checked. They can be read as long as the chains are
            // borrowed: inside of this burst, in which the map keeps the memory (see the module).
            frame.write(unsafe { Frame::new(first, rest, len as usize - head) });
            bytes += u64::from(len);
        }
        bytes
    }
}

/// Makes packets of the frames that are not in `dealt_with`, at the end of `out`, and gives the packets of the others back. There
/// is room for all of them in `out`.
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
        // SAFETY: the packet is ours; only the first bytes of its data are borrowed, by the frame.
        let buffer = unsafe { (*meta.as_ptr()).buf };
        // SAFETY: behind the headroom the packet has room for the whole frame (`survey`), the head among it.
        let to = unsafe { buffer.as_ptr().add(usize::from(pool.headroom()) + head_len) };
        // SAFETY: the frame keeps `rest_len` bytes readable for its lifetime; `survey` took only frames whose head and rest fit the
        // packet's data room, and the packet is ours.
        unsafe { copy(to, rest, rest_len) };
        if let Some(place) = places.get_mut(kept) {
            place.write(*meta);
            kept += 1;
        }
    }
    let len = out.len();
    // SAFETY: the `kept` places after `len` hold packets that are ours and have just been completed.
    unsafe { out.set_len(len + kept) };
    let metas = spare.get(..given).unwrap_or_default();
    drop(Spare { pool, metas });
}
