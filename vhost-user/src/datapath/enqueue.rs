//! The transmit path: from packets, or from another peer's buffers, into the driver's receive ring.

use std::mem::MaybeUninit;
use std::sync::Arc;

use linecard_mempool::{BURST, Burst};
use linecard_pmd::direct::Frame;
use linecard_pmd::offload::{AcceptedOffloads, Malformed};
use linecard_pmd::stats::QueueStats;
use linecard_virtio::net::{HDR_LEN, NetHeader};
use linecard_virtio::{Chain, DeviceQueue, Head, Lookahead, PeerFault, SegList, Used};

use super::copy::{LINE, prefetch_write};
use super::fault_budget::FaultBudget;
use super::scatter::Cursor;
use super::source::{Reader, Source};
use super::{DESCRIPTORS_PER_BURST, Done, EnqueuePath, MAX_CHAIN, MAX_PACKET, at_once};
use crate::memory::MemoryMap;
use crate::port::TxLoss;

/// The maximum number of buffers merged for one packet.
const MAX_MERGED: usize = 256;
/// The maximum number of buffers too short for a header that are returned in one burst.
const RUNTS_PER_BURST: u32 = 2 * BURST as u32;

/// The device half of a receive ring. `MERGE`: a packet may use several buffers. `OFFLOAD`: the driver
/// accepts packets with unfinished checksums or segmentation.
#[repr(align(64))]
pub(super) struct Enqueue<Q, const MERGE: bool, const OFFLOAD: bool> {
    queue: Q,
    map: Arc<MemoryMap>,
    /// The size of the virtio header before each packet, in bytes.
    header: u32,
    runts: u32,
    /// Descriptors that the slow path has read in this burst.
    walked: u32,
    scratch: Box<Scratch>,
    /// The maximum number of plain chains filled at once.
    most: usize,
    name: &'static str,
    accepted: AcceptedOffloads,
}

/// State of the slow path only, kept out of the cache lines that every burst uses.
struct Scratch {
    /// The pieces of the chain with the header, and of a further chain.
    first: SegList,
    further: SegList,
    /// The chains of one packet.
    heads: Vec<Used>,
    fault_budget: FaultBudget,
}

/// The outcome of one packet on the slow path.
enum Slow {
    Sent,
    Dropped(TxLoss),
    /// There is no room, or the burst's time is over; the packet stays with the sender.
    Full,
}

impl<Q: DeviceQueue, const MERGE: bool, const OFFLOAD: bool> Enqueue<Q, MERGE, OFFLOAD> {
    pub(super) fn new(
        mut queue: Q,
        map: Arc<MemoryMap>,
        header: u32,
        accepted: AcceptedOffloads,
        name: &'static str,
    ) -> Self {
        queue.set_notifications(false);
        // Descriptors beyond this limit in a longer buffer are not used.
        let list = || SegList::limited(MAX_CHAIN);
        let scratch =
            Scratch { first: list(), further: list(), heads: Vec::new(), fault_budget: FaultBudget::new() };
        let most = at_once(&map);
        Self { queue, map, header, runts: 0, walked: 0, scratch: Box::new(scratch), most, name, accepted }
    }

    /// Sends simple packets into plain buffers that can hold them, from the front. Returns the number.
    #[inline(always)]
    fn fast<S: Source>(&mut self, packets: &[S], stats: &QueueStats<TxLoss>) -> Result<usize, PeerFault> {
        // MEASURED: cargo xtask budget; initializing the arrays costs 3 to 4 more instructions per packet.
        let mut chains = [const { MaybeUninit::<Chain>::uninit() }; BURST];
        let want = packets.len().min(BURST).min(self.most);
        let n = self.queue.peek(&*self.map, chains.get_mut(..want).unwrap_or_default())?;
        let chains = chains.get(..n).unwrap_or_default();
        // SAFETY: `peek` initialised the first `n` chains.
        let chains = unsafe { chains.assume_init_ref() };
        let mut lengths = [0u32; BURST];
        let sent = self.survey(chains, packets, &mut lengths);
        let chains = chains.get(..sent).unwrap_or_default();
        let mut bytes = 0;
        for ((chain, packet), written) in chains.iter().zip(packets).zip(&lengths) {
            // This cannot wrap: `survey` added the header.
            let len = written.wrapping_sub(self.header);
            // SAFETY: `survey` compared `written` with `chain.len`, and the queue checked `chain.len` bytes.
            unsafe { write_header(chain.ptr, self.header) };
            let to = chain.ptr.wrapping_add(self.header as usize);
            // SAFETY: the queue checked `chain.len` bytes, and `survey` compared `header + len` with them. No
            // run of a source lies in the memory of this port.
            unsafe { packet.copy_to(to, len as usize) };
            bytes += u64::from(len);
        }
        // The modulo has no effect, but shows the compiler that the index is in bounds.
        self.queue.complete_burst(chains, |k| lengths[k % BURST]);
        stats.moved(sent, bytes);
        Ok(sent)
    }

    /// The number of packets, from the front, that are simple and fit the buffer at the same index. Stores
    /// the lengths to be written and prefetches the lines.
    #[inline(always)]
    fn survey<S: Source>(&self, chains: &[Chain], packets: &[S], lengths: &mut [u32; BURST]) -> usize {
        let header = self.header as usize;
        let mut sent = 0;
        for ((chain, packet), written) in chains.iter().zip(packets).zip(lengths) {
            let len = packet.len();
            if !packet.is_simple() || len + header > chain.len as usize {
                break;
            }
            if OFFLOAD && packet.asks() {
                break;
            }
            let payload = chain.ptr.wrapping_add(header);
            prefetch_write(payload);
            if len > LINE {
                prefetch_write(payload.wrapping_add(LINE));
            }
            // This fits: at most `chain.len`.
            *written = (len + header) as u32;
            sent += 1;
        }
        sent
    }

    /// Sends one packet of any shape into buffers of any shape.
    #[cold]
    #[inline(never)]
    fn slow<S: Source>(&mut self, packet: &S, stats: &QueueStats<TxLoss>) -> Result<Slow, PeerFault> {
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if len > MAX_PACKET {
            return Ok(Slow::Dropped(TxLoss::TooLong));
        }
        let Some(header) = self.header_of(packet) else { return Ok(Slow::Dropped(TxLoss::BadOffload)) };
        let before = self.walked;
        if before == 0 {
            self.scratch.fault_budget.begin();
        }
        let Some(head) = self.first_buffer(stats)? else { return Ok(Slow::Full) };
        let total = self.header + len;
        if head.len < total && !MERGE {
            return Ok(Slow::Dropped(TxLoss::TooLong));
        }
        let mut source = Reader::new(packet.runs());
        let mut cursor = Cursor::new(self.scratch.first.pieces());
        cursor.skip(self.header as usize);
        let part = head.len.min(total) - self.header;
        // SAFETY: the runs are of `packet`, which is borrowed until this function returns.
        let mut left = len - unsafe { source.fill(&mut cursor, part, &mut self.scratch.fault_budget) };
        self.scratch.heads.clear();
        self.scratch.heads.push(head.used(head.len.min(total)));
        let mut ahead = Lookahead::default().past(head);
        while left > 0 {
            // Nothing of this packet was completed: the next burst starts it again, and gets further.
            if self.scratch.fault_budget.is_over() {
                return Ok(Slow::Full);
            }
            let Some(head) = self.queue.peek_chain(&*self.map, ahead, &mut self.scratch.further)? else {
                // Nothing was completed, so nothing has to be undone.
                let hopeless = ahead.descs >= self.queue.size() || self.scratch.heads.len() >= MAX_MERGED;
                return Ok(if hopeless { Slow::Dropped(TxLoss::TooLong) } else { Slow::Full });
            };
            self.walked += u32::from(self.scratch.further.descriptors());
            self.scratch.fault_budget.walked(self.scratch.further.descriptors());
            if self.scratch.heads.len() >= MAX_MERGED || self.walked - before >= DESCRIPTORS_PER_BURST {
                return Ok(Slow::Dropped(TxLoss::TooLong));
            }
            let part = head.len.min(left);
            let mut cursor = Cursor::new(self.scratch.further.pieces());
            // SAFETY: the runs are of `packet`, which is borrowed until this function returns.
            let done = unsafe { source.fill(&mut cursor, part, &mut self.scratch.fault_budget) };
            if done < part {
                return Ok(Slow::Full);
            }
            left -= part;
            self.scratch.heads.push(head.used(part));
            ahead = ahead.past(head);
        }
        self.finish(packet, header, stats);
        Ok(Slow::Sent)
    }

    /// The virtio header for a packet; `None` if the driver does not accept such a packet.
    fn header_of(&self, packet: &impl Source) -> Option<NetHeader> {
        if !OFFLOAD {
            return Some(NetHeader::default());
        }
        match packet.request() {
            Ok(None) => Some(NetHeader::default()),
            Ok(Some(asked)) if asked.is_taken(self.accepted) => Some(NetHeader::asking(asked.request())),
            Ok(Some(_)) | Err(Malformed) => None,
        }
    }

    /// Writes the header and returns all buffers of the packet to the driver.
    fn finish(&mut self, packet: &impl Source, header: NetHeader, stats: &QueueStats<TxLoss>) {
        let num_buffers = self.scratch.heads.len() as u16;
        let header = NetHeader { num_buffers, ..header }.to_bytes();
        let len = (self.header as usize).min(header.len());
        // SAFETY: reads at most the twelve bytes of `header`.
        unsafe { Cursor::new(self.scratch.first.pieces()).write(header.as_ptr(), len, || true) };
        for used in self.scratch.heads.drain(..) {
            self.queue.complete(used);
        }
        stats.moved(1, packet.len() as u64);
    }

    /// The next buffer that can hold a header. Shorter buffers are returned unused.
    fn first_buffer(&mut self, stats: &QueueStats<TxLoss>) -> Result<Option<Head>, PeerFault> {
        while self.runts < RUNTS_PER_BURST
            && self.walked < DESCRIPTORS_PER_BURST
            && !self.scratch.fault_budget.is_over()
        {
            let Some(head) =
                self.queue.peek_chain(&*self.map, Lookahead::default(), &mut self.scratch.first)?
            else {
                return Ok(None);
            };
            self.walked += u32::from(self.scratch.first.descriptors());
            self.scratch.fault_budget.walked(self.scratch.first.descriptors());
            if head.len >= self.header {
                return Ok(Some(head));
            }
            self.queue.complete(head.used(0));
            self.runts += 1;
            stats.lost(TxLoss::RuntBuffer, 1);
        }
        Ok(None)
    }

    /// Sends a burst by the slow path alone: the reference for tests.
    #[cfg(test)]
    pub(super) fn plain(
        &mut self,
        packets: &mut Burst,
        stats: &QueueStats<TxLoss>,
    ) -> Result<Done, PeerFault> {
        (self.runts, self.walked) = (0, 0);
        let mut taken = 0;
        let mut fault = None;
        while let Some(packet) = packets.get(taken) {
            match self.slow(packet, stats) {
                Ok(Slow::Sent) => {}
                Ok(Slow::Dropped(cause)) => packet.dropped(cause, stats),
                Ok(Slow::Full) => break,
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
            taken += 1;
        }
        self.queue.publish();
        drop(packets.drain(..taken));
        fault.filter(|_| taken == 0).map_or(Ok(Done { packets: taken, call: false }), Err)
    }

    /// Sends from the front of `packets`. Returns the number of packets sent or dropped.
    #[inline(always)]
    fn take<S: Source>(&mut self, packets: &[S], stats: &QueueStats<TxLoss>) -> Result<usize, PeerFault> {
        let mut taken = self.fast(packets, stats)?;
        while let Some(packet) = packets.get(taken) {
            // The fast path took fewer than requested, all plain: the ring has no more buffers.
            if taken > 0 && self.queue.is_empty() {
                break;
            }
            match self.slow(packet, stats) {
                Ok(Slow::Sent) => {}
                Ok(Slow::Dropped(cause)) => packet.dropped(cause, stats),
                Ok(Slow::Full) => break,
                // Packets that were sent must not stay with the sender; the next burst finds the fault again.
                Err(_) if taken > 0 => break,
                Err(fault) => return Err(fault),
            }
            taken += 1;
            // The next burst finds a fault again.
            taken += self.fast(packets.get(taken..).unwrap_or_default(), stats).unwrap_or(0);
        }
        Ok(taken)
    }

    /// As `take`, for a whole burst, and publishes it to the driver.
    #[inline(always)]
    fn send<S: Source>(&mut self, packets: &[S], stats: &QueueStats<TxLoss>) -> Result<usize, PeerFault> {
        (self.runts, self.walked) = (0, 0);
        let result = self.take(packets, stats);
        if *result.as_ref().unwrap_or(&0) > 0 || self.runts > 0 {
            self.queue.publish();
        }
        result
    }

    /// The outcome of a burst that took `taken` packets.
    #[inline(always)]
    fn done(&mut self, taken: usize) -> Done {
        let call = (taken > 0 || self.runts > 0) && self.queue.call_needed();
        Done { packets: taken, call }
    }
}

impl<Q: DeviceQueue, const MERGE: bool, const OFFLOAD: bool> EnqueuePath for Enqueue<Q, MERGE, OFFLOAD> {
    fn burst(&mut self, packets: &mut Burst, stats: &QueueStats<TxLoss>) -> Result<Done, PeerFault> {
        let taken = self.send(packets, stats)?;
        if taken == packets.len() {
            packets.clear();
        } else {
            drop(packets.drain(..taken));
        }
        Ok(self.done(taken))
    }

    fn direct(&mut self, frames: &[Frame<'_>], stats: &QueueStats<TxLoss>) -> Result<Done, PeerFault> {
        let taken = self.send(frames, stats)?;
        Ok(self.done(taken))
    }

    fn look_ahead(&mut self) {
        self.queue.look_ahead();
    }

    fn accepted(&self) -> AcceptedOffloads {
        if OFFLOAD { self.accepted } else { AcceptedOffloads::default() }
    }

    fn base(&self) -> u32 {
        self.queue.base()
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

/// Writes a header without flags for one buffer, unless it is already there: the cache line then stays shared
/// between both cores. The header is compared as two words; only `num_buffers`, in the second, is not zero.
///
/// # Safety
/// `at` points to the peer's memory, readable and writable for `header` bytes, which are 10 or 12.
#[inline(always)]
unsafe fn write_header(at: *mut u8, header: u32) {
    const TAIL: usize = 8;
    const ONE_BUFFER: u32 = u32::from_ne_bytes([0, 0, 1, 0]);
    // SAFETY: eight of at least ten bytes, promised by the caller.
    let head = unsafe { at.cast::<u64>().read_unaligned() };
    if head != 0 {
        // SAFETY: eight of at least ten bytes, promised by the caller.
        unsafe { at.cast::<u64>().write_unaligned(0) };
    }
    let tail = at.wrapping_add(TAIL);
    if header == HDR_LEN {
        // SAFETY: the last four of twelve bytes.
        if unsafe { tail.cast::<u32>().read_unaligned() } != ONE_BUFFER {
            // SAFETY: the last four of twelve bytes, promised by the caller.
            unsafe { tail.cast::<u32>().write_unaligned(ONE_BUFFER) };
        }
    } else {
        // SAFETY: the last two of ten bytes.
        unsafe { tail.cast::<u16>().write_unaligned(0) };
    }
}
