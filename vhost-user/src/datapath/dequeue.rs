//! The receive path: from the driver's transmit ring into packets.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{BURST, Burst, Meta, Packet, Pool};
use linecard_pmd::direct::Sink;
use linecard_pmd::observer::is_watched;
use linecard_pmd::offload::{AcceptedOffloads, describe};
use linecard_pmd::stats::QueueStats;
use linecard_virtio::net::{GSO_NONE, HDR_LEN, NEEDS_CSUM, NetHeader};
use linecard_virtio::{Chain, DeviceQueue, Head, Lookahead, PeerFault, SegList};

use super::copy::{LINE, copy, prefetch_read};
use super::direct::SHORT;
use super::fault_budget::FaultBudget;
use super::scatter::Cursor;
use super::{DESCRIPTORS_PER_BURST, DequeuePath, Done, MAX_CHAIN, MAX_PACKET, MIN_FRAME, at_once};
use crate::memory::MemoryMap;
use crate::port::RxLoss;

/// The maximum number of segments of one packet.
const MAX_SEGMENTS: usize = 64;
/// The maximum number of chains dropped in one burst.
const DROPS_PER_BURST: u32 = 2 * BURST as u32;

/// The device half of a transmit ring, and the state to make packets from its chains. `OFFLOAD`: virtio headers are read.
#[repr(align(64))]
pub(super) struct Dequeue<Q, const OFFLOAD: bool> {
    pub(super) queue: Q,
    pub(super) map: Arc<MemoryMap>,
    /// The size of the virtio header before each packet, in bytes.
    pub(super) header: u32,
    /// The driver did not seem to want a notification at the last publish; to be checked again with a fence.
    overdue: bool,
    segments: SegList,
    fault_budget: FaultBudget,
    /// The maximum number of plain chains taken at once.
    pub(super) most: usize,
    /// Average frame length of a burst above which the next burst offers its frames to the sink first.
    pub(super) worth_showing: u32,
    /// Whether the last burst's frames were that long. Bursts of short frames pay only for this test.
    pub(super) shows: bool,
    name: &'static str,
    /// Offloads accepted from the driver.
    accepted: AcceptedOffloads,
}

/// The outcome of one chain on the slow path.
enum Slow {
    Packet(Packet),
    Dropped,
    /// The pool is empty; the chain stays in the ring.
    NoBuffer,
    /// Nothing is available.
    Empty,
    /// The burst's time is over; the chain stays in the ring.
    Later,
}

/// The reason for which no packet was made.
enum Missing {
    Buffer,
    Time,
}

impl<Q: DeviceQueue, const OFFLOAD: bool> Dequeue<Q, OFFLOAD> {
    pub(super) fn new(
        mut queue: Q,
        map: Arc<MemoryMap>,
        header: u32,
        accepted: AcceptedOffloads,
        name: &'static str,
    ) -> Self {
        queue.set_notifications(false);
        let (segments, fault_budget) = (SegList::limited(MAX_CHAIN), FaultBudget::new());
        let most = at_once(&map);
        Self {
            queue,
            map,
            header,
            overdue: true,
            segments,
            fault_budget,
            most,
            worth_showing: SHORT,
            shows: true,
            name,
            accepted,
        }
    }

    /// Receives plain chains of ordinary length, from the next one on.
    #[inline(always)]
    fn fast(&mut self, out: &mut Burst, pool: &Pool, stats: &QueueStats<RxLoss>) -> Result<usize, PeerFault> {
        // MEASURED: cargo xtask budget; initializing the arrays costs 4 to 5 more instructions per packet.
        let mut chains = [const { MaybeUninit::<Chain>::uninit() }; BURST];
        let want = out.room().min(BURST).min(self.most);
        let n = self.queue.peek(&*self.map, chains.get_mut(..want).unwrap_or_default())?;
        let chains = chains.get(..n).unwrap_or_default();
        // SAFETY: `peek` initialised the first `n` chains.
        let chains = unsafe { chains.assume_init_ref() };
        let plain = self.survey(chains, u32::from(pool.data_room()));
        Ok(self.packets(chains, plain, out, pool, stats))
    }

    /// Makes packets from the first `plain` of `chains`, checked by `survey`. Returns fewer if the pool lacks some.
    #[inline(always)]
    pub(super) fn packets(
        &mut self,
        chains: &[Chain],
        plain: usize,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
    ) -> usize {
        let taken = allocate(pool, raw_places(out), plain);
        if taken < plain {
            stats.lost(RxLoss::NoBuffer, 1);
        }
        let chains = chains.get(..taken).unwrap_or_default();
        // SAFETY: `allocate` filled the first `taken` places.
        let metas = unsafe { raw_places(out).get(..taken).unwrap_or_default().assume_init_ref() };
        let bytes = self.fill(chains, metas, pool);
        let len = out.len();
        // SAFETY: the `taken` places after `len` hold packets that this queue owns and has just completed.
        unsafe { out.set_len(len + taken) };
        self.queue.complete_burst(chains, |_| 0);
        self.moved(taken, bytes, stats);
        taken
    }

    /// Counts a burst, and records whether its frames were long.
    #[inline(always)]
    pub(super) fn moved(&mut self, taken: usize, bytes: u64, stats: &QueueStats<RxLoss>) {
        if taken > 0 {
            self.shows = bytes > taken as u64 * u64::from(self.worth_showing);
        }
        stats.moved(taken, bytes);
    }

    /// The number of `chains`, from the front, that hold a frame that fits a packet of `room` bytes.
    /// Prefetches their payload. Without offloads, the header is not read and its line is not prefetched.
    #[inline(always)]
    pub(super) fn survey(&self, chains: &[Chain], room: u32) -> usize {
        let header = self.header;
        let least = header + MIN_FRAME;
        // If packets are shorter than any frame, all chains take the slow path.
        let Some(spare) = room.checked_sub(MIN_FRAME) else { return 0 };
        let mut plain = 0;
        for chain in chains {
            // One comparison for both limits: a length that is too short wraps to a very large one.
            if chain.len.wrapping_sub(least) > spare {
                break;
            }
            // SAFETY: the queue checked `chain.len` bytes, which is more than a header.
            if OFFLOAD && unsafe { asks(chain.ptr) } {
                break;
            }
            let payload = chain.ptr.wrapping_add(header as usize);
            prefetch_read(payload);
            if chain.len as usize > header as usize + LINE {
                prefetch_read(payload.wrapping_add(LINE));
            }
            plain += 1;
        }
        plain
    }

    /// Copies each chain's payload into its packet. Returns the number of bytes. There are as many `metas` as `chains`.
    #[inline(always)]
    fn fill(&self, chains: &[Chain], metas: &[NonNull<Meta>], pool: &Pool) -> u64 {
        let headroom = pool.headroom();
        let rearm = Meta::rearm(headroom, Meta::NO_PORT, headroom + pool.data_room());
        // A local copy: the compiler would reload the field for each packet, as copies may write anywhere.
        let header = self.header;
        let mut bytes = 0;
        for (chain, meta) in chains.iter().zip(metas) {
            // This cannot wrap: `survey` checked the length.
            let len = chain.len.wrapping_sub(header);
            // SAFETY: `get_raw` returned the packet; only this queue refers to it.
            let buffer = unsafe { (*meta.as_ptr()).buf };
            // SAFETY: the headroom lies inside the buffer.
            let to = unsafe { buffer.as_ptr().add(usize::from(headroom)) };
            let from = chain.ptr.wrapping_add(header as usize);
            // SAFETY: the queue checked `chain.len` bytes at `chain.ptr`; `survey` that `len <= data_room`.
            unsafe { copy(to, from, len as usize) };
            // SAFETY: this queue owns the packet, and `len <= data_room`.
            unsafe { Meta::write_plain(*meta, rearm, len as u16) };
            bytes += u64::from(len);
        }
        bytes
    }

    /// Receives chains that the fast path left, unless the next one is plain: a plain chain that arrived
    /// since is left to the next burst's fast path, if that is in use.
    #[cold]
    #[inline(never)]
    fn others(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
    ) -> Result<usize, PeerFault> {
        let mut next = [MaybeUninit::<Chain>::uninit()];
        let n = self.queue.peek(&*self.map, next.get_mut(..self.most.min(1)).unwrap_or_default())?;
        // SAFETY: `peek` initialised the first `n` chains.
        let next = unsafe { next.get(..n).unwrap_or_default().assume_init_ref() };
        if self.survey(next, u32::from(pool.data_room())) > 0 { Ok(0) } else { self.slow(out, pool, stats) }
    }

    /// Receives chains of any shape, one at a time, until `out` is full or no chain is left.
    #[cold]
    #[inline(never)]
    fn slow(&mut self, out: &mut Burst, pool: &Pool, stats: &QueueStats<RxLoss>) -> Result<usize, PeerFault> {
        let (mut taken, mut bytes, mut dropped, mut walked) = (0, 0, 0, 0);
        self.fault_budget.begin();
        while out.room() > 0
            && dropped < DROPS_PER_BURST
            && walked < DESCRIPTORS_PER_BURST
            && !self.fault_budget.is_over()
        {
            let next = match self.next_slow(pool, stats) {
                Ok(next) => next,
                // Earlier packets are delivered and counted; the next burst finds the fault again.
                Err(_) if taken > 0 || dropped > 0 => break,
                Err(fault) => return Err(fault),
            };
            walked += u32::from(self.segments.descriptors());
            match next {
                Slow::Packet(packet) => {
                    bytes += packet.len() as u64;
                    taken += 1;
                    // There is room: `push` cannot fail.
                    let _ = out.push(packet);
                }
                Slow::Dropped => dropped += 1,
                Slow::NoBuffer | Slow::Empty | Slow::Later => break,
            }
        }
        stats.moved(taken, bytes);
        Ok(taken)
    }

    fn next_slow(&mut self, pool: &Pool, stats: &QueueStats<RxLoss>) -> Result<Slow, PeerFault> {
        let Some(head) = self.queue.peek_chain(&*self.map, Lookahead::default(), &mut self.segments)? else {
            return Ok(Slow::Empty);
        };
        // Walking the chain may have used up the time.
        if !self.fault_budget.walked(self.segments.descriptors()) {
            return Ok(Slow::Later);
        }
        let len = head.len.saturating_sub(self.header);
        if self.segments.is_cut() {
            return Ok(self.drop_chain(head, len, pool, stats, RxLoss::TooLong));
        }
        if len < MIN_FRAME {
            return Ok(self.drop_chain(head, len, pool, stats, RxLoss::Runt));
        }
        let parts = match u32::from(pool.data_room()) {
            // A packet without room cannot hold any frame.
            0 => usize::MAX,
            room => len.div_ceil(room) as usize,
        };
        if len > MAX_PACKET || parts > MAX_SEGMENTS {
            return Ok(self.drop_chain(head, len, pool, stats, RxLoss::TooLong));
        }
        let pieces = self.segments.pieces();
        let mut packet = match gather(pieces, self.header, len, parts, pool, &mut self.fault_budget) {
            Ok(packet) => packet,
            Err(Missing::Time) => return Ok(Slow::Later),
            Err(Missing::Buffer) => {
                stats.lost(RxLoss::NoBuffer, 1);
                return Ok(Slow::NoBuffer);
            }
        };
        if OFFLOAD && !self.describe(&mut packet) {
            self.queue.complete(head.used(0));
            stats.dropped(RxLoss::BadOffload, &packet);
            return Ok(Slow::Dropped);
        }
        self.queue.complete(head.used(0));
        Ok(Slow::Packet(packet))
    }

    /// Reads the virtio header once, and applies it to the packet. Returns false if the header does not fit the packet.
    fn describe(&self, packet: &mut Packet) -> bool {
        let mut bytes = [0; HDR_LEN as usize];
        let len = bytes.len().min(self.header as usize);
        // SAFETY: at most the length of `bytes`.
        unsafe { Cursor::new(self.segments.pieces()).read(bytes.as_mut_ptr(), len, || true) };
        let header = NetHeader::from_bytes(bytes);
        // A driver cannot vouch for a checksum (virtio 1.3, Network Device: Packet Transmission), so a claim
        // that it was validated is not passed on.
        let header = NetHeader { flags: header.flags & NEEDS_CSUM, ..header };
        header.is_plain()
            || header
                .request(packet.len())
                .is_some_and(|request| describe(packet, request, self.accepted).is_ok())
    }

    /// Drops the chain whose frame has `len` bytes. A capture sees the front of the frame.
    #[cold]
    fn drop_chain(
        &mut self,
        head: Head,
        len: u32,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
        cause: RxLoss,
    ) -> Slow {
        let front = len.min(u32::from(pool.data_room()));
        let pieces = self.segments.pieces();
        let mut show = || gather(pieces, self.header, front, 1, pool, &mut self.fault_budget).ok();
        let packet = if is_watched() { show() } else { None };
        self.queue.complete(head.used(0));
        match packet {
            Some(packet) => stats.dropped(cause, &packet),
            None => stats.lost(cause, 1),
        }
        Slow::Dropped
    }

    /// Receives a burst by the slow path alone: the reference for tests.
    #[cfg(test)]
    pub(super) fn plain(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
    ) -> Result<Done, PeerFault> {
        let result = self.slow(out, pool, stats);
        self.queue.publish();
        result.map(|packets| Done { packets, call: false })
    }

    /// Completes a burst that has moved `packets` packets. If there are none, the next chain may need the slow path.
    #[inline(always)]
    pub(super) fn finish(
        &mut self,
        mut packets: usize,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
    ) -> Result<Done, PeerFault> {
        let mut completed = packets > 0;
        if packets == 0 && out.room() > 0 && !self.queue.is_empty() {
            packets = self.others(out, pool, stats)?;
            completed = true;
        }
        Ok(Done { packets, call: self.publish(completed) })
    }

    /// Publishes if a chain was completed, and decides whether to notify the driver: at once if the driver
    /// seems to want it, otherwise at the next poll without packets, so that a busy poller needs no fence.
    #[inline(always)]
    fn publish(&mut self, completed: bool) -> bool {
        if completed {
            self.queue.publish();
            self.overdue = !self.queue.call_hint();
            return !self.overdue && self.queue.call_needed();
        }
        std::mem::take(&mut self.overdue) && self.queue.call_needed()
    }
}

impl<Q: DeviceQueue, const OFFLOAD: bool> DequeuePath for Dequeue<Q, OFFLOAD> {
    fn burst(&mut self, out: &mut Burst, pool: &Pool, stats: &QueueStats<RxLoss>) -> Result<Done, PeerFault> {
        let packets = self.fast(out, pool, stats)?;
        self.finish(packets, out, pool, stats)
    }

    fn direct(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
        sink: &mut Sink<'_>,
    ) -> Result<Done, PeerFault> {
        let packets =
            if self.shows { self.shown(out, pool, stats, sink)? } else { self.fast(out, pool, stats)? };
        self.finish(packets, out, pool, stats)
    }

    fn discard(&mut self, stats: &QueueStats<RxLoss>) -> Result<Done, PeerFault> {
        let (mut dropped, mut walked) = (0u64, 0);
        self.fault_budget.begin();
        while dropped < u64::from(DROPS_PER_BURST)
            && walked < DESCRIPTORS_PER_BURST
            && !self.fault_budget.is_over()
        {
            let head = match self.queue.peek_chain(&*self.map, Lookahead::default(), &mut self.segments) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                // As in `slow`.
                Err(_) if dropped > 0 => break,
                Err(fault) => return Err(fault),
            };
            self.queue.complete(head.used(0));
            walked += u32::from(self.segments.descriptors());
            self.fault_budget.walked(self.segments.descriptors());
            dropped += 1;
        }
        stats.lost(RxLoss::Disabled, dropped);
        Ok(Done { packets: 0, call: self.publish(dropped > 0) })
    }

    fn arm(&mut self) -> bool {
        self.queue.set_notifications(true)
    }

    fn disarm(&mut self) {
        self.queue.set_notifications(false);
    }

    fn waiting(&mut self) -> u16 {
        self.queue.available()
    }

    fn call_owed(&mut self) -> bool {
        self.publish(false)
    }

    fn base(&self) -> u32 {
        self.queue.base()
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

/// Whether the virtio header has content. Only a hint for the choice of the path; the slow path reads the header again.
///
/// # Safety
/// `header` is readable for two bytes.
#[inline(always)]
unsafe fn asks(header: *const u8) -> bool {
    // SAFETY: two bytes are readable at `header` (this function's condition). Any bytes are valid, even changing ones.
    unsafe { header.cast::<[u8; 2]>().read_unaligned() != [0, GSO_NONE] }
}

/// The free places of `out`, for raw packets.
#[inline(always)]
pub(super) fn raw_places(out: &mut Burst) -> &mut [MaybeUninit<NonNull<Meta>>] {
    let places = out.spare_mut();
    // SAFETY: `Packet` is a transparent `NonNull<Meta>`, and every place is `MaybeUninit`.
    unsafe { &mut *(&raw mut *places as *mut [MaybeUninit<NonNull<Meta>>]) }
}

/// Fills `n` places with raw packets, or fewer if the pool is nearly empty: `n` is halved until the pool has
/// enough. Returns the number.
#[inline(always)]
pub(super) fn allocate(pool: &Pool, places: &mut [MaybeUninit<NonNull<Meta>>], n: usize) -> usize {
    let mut n = n;
    while n > 0 {
        if pool.get_raw(places.get_mut(..n).unwrap_or_default()).is_ok() {
            return n;
        }
        n /= 2;
    }
    0
}

const _: () = assert!(size_of::<Packet>() == size_of::<NonNull<Meta>>());

/// Makes a packet of `parts` segments from `len` bytes after the header.
fn gather(
    pieces: &[linecard_virtio::Piece],
    header: u32,
    len: u32,
    parts: usize,
    pool: &Pool,
    fault_budget: &mut FaultBudget,
) -> Result<Packet, Missing> {
    let mut cursor = Cursor::new(pieces);
    cursor.skip(header as usize);
    let mut left = len as usize;
    let mut next = || -> Result<Packet, Missing> {
        let mut packet = pool.get().ok_or(Missing::Buffer)?;
        let part = left.min(usize::from(pool.data_room()));
        let room = packet.append(part).ok_or(Missing::Buffer)?;
        // SAFETY: `room` is `part` bytes of a packet that this function owns.
        let got = unsafe { cursor.read(room.as_mut_ptr(), part, || fault_budget.copied()) };
        left -= part;
        // The queue said that the chain has `header + len` bytes.
        if got == part { Ok(packet) } else { Err(Missing::Time) }
    };
    let mut packet = next()?;
    for _ in 1..parts {
        packet.chain(next()?).map_err(|_| Missing::Buffer)?;
    }
    Ok(packet)
}
