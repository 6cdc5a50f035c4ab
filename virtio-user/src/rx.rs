//! The receive path: gives buffers to the backend, hands filled ones to the application, replaces them.
//!
//! ```text
//!   buffer  ├──── headroom 128 ────┼──── data room ────┤
//!                       header 12 ─┤ passed to the backend from here on (20 with hashes)
//! ```
//! The header lies directly before the data, so that a frame starts on a cache line, and the header's line is
//! not touched when nothing reads it (MERGE off).

#[cfg(test)]
mod differential;
mod header;
mod soft_hash;

pub(crate) use soft_hash::SoftHash;

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{Burst, Meta, MetaWords, Packet, Pool};
use linecard_pmd::Armed;
use linecard_pmd::observer::is_watched;
use linecard_pmd::offload::{AcceptedOffloads, describe};
use linecard_pmd::rss::Rss;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::net::NetHeader;
use linecard_virtio::{Buffer, Completion, DriverQueue, PeerFault};

use crate::backend::RingId;
use crate::doorbell::Doorbell;
use crate::kick::Kick;
use crate::losses::RxLoss;
use crate::path::{Came, RxPath, Trouble, header_len, prefetch};
use header::{note_hash, read_hash, read_header};

/// The buffers taken from the pool at a time, and the free descriptors at which a ring is refilled.
const REFILL: usize = 32;
/// The shortest frame that a backend may report: an Ethernet header.
const SHORTEST: u32 = 14;
/// The distance in packets between a prefetch and its use.
const AHEAD: usize = 8;

/// The parts of a receive path besides its ring.
pub(crate) struct RxParts {
    pub(crate) pool: Pool,
    pub(crate) kick: Arc<Kick>,
    /// The deferred check of the pair's transmit queue, made here when no packets arrive.
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) stats: Arc<QueueStats<RxLoss>>,
    pub(crate) trouble: Arc<Trouble>,
    /// The ring's identity, for messages.
    pub(crate) ring: RingId,
    pub(crate) port: u16,
    /// The offloads that the backend may leave to the port.
    pub(crate) accepted: AcceptedOffloads,
    /// Whether the device can signal used buffers.
    pub(crate) interrupts: bool,
    /// Whether the device's hashes match the requested configuration.
    pub(crate) rss: Arc<Rss>,
}

/// The receive path over one kind of ring, with or without packets that span buffers (MERGE), and with or
/// without offloads, for which headers are read. A path with hashes has a longer header, and offloads.
#[repr(align(64))]
pub(crate) struct Rx<Q: DriverQueue, const MERGE: bool, const OFFLOAD: bool, const HASH: bool> {
    /// Taken out only when the path is dropped.
    queue: ManuallyDrop<Q>,
    /// [`Meta::rearm`] of every packet received here.
    rearm: u64,
    /// The offset and length of the part of a buffer that the backend receives.
    lend_at: u64,
    lend_len: u32,
    batch: usize,
    /// Whether buffers were published without checking if the backend needs a kick.
    owed: bool,
    parts: RxParts,
}

impl<Q: DriverQueue, const MERGE: bool, const OFFLOAD: bool, const HASH: bool> Rx<Q, MERGE, OFFLOAD, HASH> {
    /// The bytes of the header.
    const HEADER: u32 = header_len(HASH);

    /// Creates a path and fills its ring.
    pub(crate) fn new(queue: Q, parts: RxParts) -> Self {
        const { assert!(Q::WRITABLE && (OFFLOAD || !HASH)) };
        let (headroom, room) = (parts.pool.headroom(), parts.pool.data_room());
        let mut rx = Self {
            rearm: rearm(&parts, 0),
            lend_at: u64::from(headroom).saturating_sub(u64::from(Self::HEADER)),
            lend_len: u32::from(room).saturating_add(Self::HEADER),
            batch: (usize::from(queue.size()) / 4).clamp(1, REFILL),
            owed: false,
            queue: ManuallyDrop::new(queue),
            parts,
        };
        rx.refill();
        rx
    }

    /// Adds buffers while there is room for a batch, and publishes all of them at once.
    #[inline(always)]
    fn refill(&mut self) -> bool {
        let mut enough = true;
        let mut lent = false;
        while usize::from(self.queue.free()) >= self.batch {
            // MEASURED: cargo xtask budget; arrays of this file that are initialized first cost 6 instructions more per packet.
            let mut fresh = [const { MaybeUninit::<NonNull<Meta>>::uninit() }; REFILL];
            let want = &mut fresh[..self.batch];
            if self.parts.pool.get_raw(want).is_ok() {
                lend::<Q>(&mut self.queue, want, self.lend_at, self.lend_len);
            } else {
                enough = false;
                if !self.refill_scarce() {
                    break;
                }
            }
            lent = true;
        }
        if lent {
            self.queue.publish();
            // Only a backend that may sleep needs the fence. A polling backend is checked again at the next
            // empty poll: a stale hint costs a delay of one poll and never a lost wake-up.
            self.owed = !self.queue.kick_hint();
            if !self.owed && self.queue.kick_needed() {
                self.parts.kick.signal();
            }
        }
        enough
    }

    /// Adds the remaining buffers of a nearly empty pool.
    #[cold]
    #[inline(never)]
    fn refill_scarce(&mut self) -> bool {
        let mut any = false;
        let mut want = self.batch / 2;
        while want > 0 {
            let mut fresh = [const { MaybeUninit::<NonNull<Meta>>::uninit() }; REFILL];
            let some = &mut fresh[..want];
            if self.parts.pool.get_raw(some).is_ok() {
                lend::<Q>(&mut self.queue, some, self.lend_at, self.lend_len);
                any = true;
            }
            want /= 2;
        }
        any
    }

    /// Performs work deferred while packets arrived: the poll found none.
    #[inline(always)]
    fn idle(&mut self) {
        self.parts.doorbell.settle();
        if self.owed {
            self.settle();
        }
        if usize::from(self.queue.free()) >= self.batch {
            self.refill();
        }
    }

    #[cold]
    fn settle(&mut self) {
        self.owed = false;
        if self.queue.kick_needed() {
            self.parts.kick.signal();
        }
    }

    #[cold]
    #[inline(never)]
    fn fault(&mut self, fault: PeerFault) {
        self.parts.trouble.report(self.parts.ring, fault);
    }

    /// Turns completions into packets at the front of `out`; returns their number and bytes.
    #[inline(always)]
    fn deliver(&mut self, done: &[Completion], out: &mut [MaybeUninit<Packet>]) -> (usize, u64) {
        let mut kept = 0;
        let mut bytes = 0_u64;
        let mut at = 0;
        let hashed = HASH && self.parts.rss.is_hashed_by_device();
        while at < done.len() {
            if let Some(later) = done.get(at.wrapping_add(AHEAD)) {
                prefetch(later.token);
            }
            let one = done[at];
            at = at.wrapping_add(1);
            // SAFETY: the queue returns only tokens it was given, once each; `lend` makes them from metadata.
            let line = unsafe { MetaWords::from_address(one.token) };
            if one.len < Self::HEADER + SHORTEST {
                self.runt(line, one.len);
                continue;
            }
            let len = one.len.wrapping_sub(Self::HEADER);
            // SAFETY: not a packet yet; `len` is at most what was provided from `rearm`'s offset on.
            unsafe { line.write_received(self.rearm, len) };
            let data = line.buf().wrapping_add(self.lend_at).wrapping_add(u64::from(Self::HEADER));
            prefetch(data);
            let mut whole = u64::from(len);
            // SAFETY: taken from the pool by `lend`, returned by the queue, its metadata written above: ours alone.
            let mut packet = unsafe { Packet::from_raw(line.as_ptr()) };
            // SAFETY: the backend got the buffer from a header's length before `data` on, and returned it.
            let header = unsafe { read_header::<MERGE, OFFLOAD, HASH>(data) };
            // SAFETY: with hashes, 20 header bytes precede `data`; they are ours again, and are copied out.
            let hash = if hashed { unsafe { read_hash(data) } } else { None };
            if MERGE && header.num_buffers != 1 {
                let Some(more) = self.gather(packet, header.num_buffers, done, &mut at) else { continue };
                whole = more.len() as u64;
                packet = more;
            }
            if OFFLOAD && !header.is_plain() && !self.describe(&mut packet, header) {
                continue;
            }
            if HASH && let Some(hash) = hash {
                note_hash(&mut packet, hash);
            }
            // MEASURED: cargo xtask budget; checked, 2 to 5 instructions more per received packet.
            // SAFETY: `kept` counts packets, of which there are at most as many as completions and so slots.
            unsafe { out.get_unchecked_mut(kept) }.write(packet);
            kept = kept.wrapping_add(1);
            bytes = bytes.wrapping_add(whole);
        }
        (kept, bytes)
    }

    /// Applies the offload request of a header to its packet; false if the header contradicts the packet.
    #[cold]
    #[inline(never)]
    fn describe(&mut self, packet: &mut Packet, header: NetHeader) -> bool {
        let request = header.request(packet.len());
        let good = request.is_some_and(|request| describe(packet, request, self.parts.accepted).is_ok());
        if !good {
            self.parts.stats.dropped(RxLoss::BadOffload, packet);
        }
        good
    }

    /// Counts a completion too short for a frame, and returns its buffer to the pool.
    #[cold]
    #[inline(never)]
    fn runt(&mut self, line: MetaWords, len: u32) {
        if !is_watched() {
            self.parts.stats.lost(RxLoss::Runt, 1);
            return self.put_back(line);
        }
        // SAFETY: not a packet yet; `len` is at most what was provided from `rearm`'s offset on.
        unsafe { line.write_received(self.rearm, len.saturating_sub(Self::HEADER)) };
        // SAFETY: taken from the pool by `lend`, returned by the queue, its metadata written above: ours alone.
        let packet = unsafe { Packet::from_raw(line.as_ptr()) };
        self.parts.stats.dropped(RxLoss::Runt, &packet);
    }

    fn put_back(&mut self, line: MetaWords) {
        // SAFETY: no packet is made of it; `rearm` is that of every buffer of this pool.
        unsafe { line.write_rearm(self.rearm) };
        // SAFETY: taken from this pool, unique (state 0, written above), and not used after.
        unsafe { self.parts.pool.put_raw(&[line.as_ptr()]) };
    }

    /// Assembles a packet that spans buffers. The further buffers are in `done`, or still in the ring.
    ///
    /// Returns `None` if their announced number is wrong; the packet is then dropped.
    #[cold]
    #[inline(never)]
    fn gather(&mut self, head: Packet, count: u16, done: &[Completion], at: &mut usize) -> Option<Packet> {
        if count == 0 || count > self.queue.size() {
            self.parts.stats.dropped(RxLoss::BadNumBuffers, &head);
            return None;
        }
        let mut whole = head;
        let mut fits = true;
        for _ in 1..count {
            let Some(next) = self.next(done, at) else {
                self.parts.stats.dropped(RxLoss::BadNumBuffers, &whole);
                return None;
            };
            let tail = self.continuation(next);
            fits = fits && whole.chain(tail).is_ok();
        }
        if !fits {
            self.parts.stats.dropped(RxLoss::TooLong, &whole);
        }
        fits.then_some(whole)
    }

    /// Returns the completion at `at`, from `done` or from the ring.
    fn next(&mut self, done: &[Completion], at: &mut usize) -> Option<Completion> {
        if let Some(next) = done.get(*at) {
            *at = at.wrapping_add(1);
            return Some(*next);
        }
        let mut one = [MaybeUninit::<Completion>::uninit()];
        match self.queue.complete(&mut one) {
            // SAFETY: `complete` initialised the one element.
            Ok(1) => Some(unsafe { one[0].assume_init() }),
            Ok(_) => None,
            Err(fault) => {
                self.fault(fault);
                None
            }
        }
    }

    /// Makes a packet of a further buffer, which has no header: data starts at its first byte.
    fn continuation(&self, one: Completion) -> Packet {
        // SAFETY: tokens are made by `lend` from packets of the pool, and the queue gives each back once.
        let line = unsafe { MetaWords::from_address(one.token) };
        // SAFETY: not a packet yet; the queue reports at most the bytes provided from this offset on.
        unsafe { line.write_received(rearm(&self.parts, Self::HEADER as u16), one.len) };
        // SAFETY: the queue owned the packet and has given it back: it is unique, and its lengths were just written.
        unsafe { Packet::from_raw(line.as_ptr()) }
    }
}

/// Returns [`Meta::rearm`] of a packet whose data begins `before` bytes before the end of the headroom.
fn rearm(parts: &RxParts, before: u16) -> u64 {
    let (headroom, room) = (parts.pool.headroom(), parts.pool.data_room());
    Meta::rearm(headroom.saturating_sub(before), parts.port, headroom.saturating_add(room))
}

/// Adds the buffers of `fresh` to the ring, which has room for all of them.
#[inline(always)]
fn lend<Q: DriverQueue>(queue: &mut Q, fresh: &[MaybeUninit<NonNull<Meta>>], at: u64, len: u32) {
    queue.add_burst(fresh.iter().map(|meta| {
        // SAFETY: the pool wrote every element of what it filled.
        let meta = unsafe { meta.assume_init() };
        // SAFETY: the pool gave the packet to us.
        let line = unsafe { MetaWords::new(meta) };
        Buffer { addr: line.buf().wrapping_add(at), len, token: line.address() }
    }));
}

impl<Q: DriverQueue, const MERGE: bool, const OFFLOAD: bool, const HASH: bool> RxPath
    for Rx<Q, MERGE, OFFLOAD, HASH>
{
    fn burst(&mut self, packets: &mut Burst) -> Came {
        let mut done = [const { MaybeUninit::<Completion>::uninit() }; linecard_mempool::BURST];
        let had = packets.len();
        let room = packets.room().min(done.len());
        let count = match self.queue.complete(&mut done[..room]) {
            Ok(0) => {
                self.idle();
                return Came::default();
            }
            Ok(count) => count.min(room),
            Err(fault) => {
                self.fault(fault);
                return Came::default();
            }
        };
        // SAFETY: `complete` initialised the first `count` elements.
        let done = unsafe { done[..count].assume_init_ref() };
        for one in &done[..count.min(AHEAD)] {
            prefetch(one.token);
        }
        let (kept, bytes) = self.deliver(done, packets.spare_mut());
        // SAFETY: `deliver` wrote `kept` packets into the spare part, which begins at `had`.
        unsafe { packets.set_len(had.wrapping_add(kept)) };
        if !self.refill() {
            self.parts.stats.lost(RxLoss::NoBuffer, 1);
        }
        Came { packets: kept, bytes }
    }

    fn arm(&mut self) -> Armed {
        self.idle();
        if self.queue.set_interrupts(true) {
            return Armed::Ready;
        }
        // A ring without buffers receives no packets, and nothing reports when the pool has buffers again.
        let is_unlent = self.queue.free() == self.queue.size();
        if is_unlent || !self.parts.interrupts { Armed::Unable } else { Armed::Asleep }
    }

    fn disarm(&mut self) {
        self.queue.set_interrupts(false);
    }

    fn used(&mut self) -> u16 {
        self.queue.completed()
    }
}

impl<Q: DriverQueue, const MERGE: bool, const OFFLOAD: bool, const HASH: bool> Drop
    for Rx<Q, MERGE, OFFLOAD, HASH>
{
    fn drop(&mut self) {
        // SAFETY: the path, and with it the queue, is not used after this.
        let queue = unsafe { ManuallyDrop::take(&mut self.queue) };
        let (pool, rearm) = (&self.parts.pool, self.rearm);
        queue.take_all(&mut |token| {
            // SAFETY: tokens are made by `lend` from packets of the pool, and the queue gives each back once.
            let line = unsafe { MetaWords::from_address(token) };
            // SAFETY: no packet is made of it; `rearm` is that of every buffer of this pool.
            unsafe { line.write_rearm(rearm) };
            // SAFETY: taken from this pool by `lend`, unique, and not used after.
            unsafe { pool.put_raw(&[line.as_ptr()]) };
        });
    }
}
