//! From packets into the driver's receive ring.

use std::mem::MaybeUninit;
use std::sync::Arc;

use linecard_mempool::{BURST, Burst, Packet};
use linecard_pmd::stats::QueueStats;
use linecard_virtio::net::{HDR_LEN, NetHeader};
use linecard_virtio::{Ahead, Chain, DeviceQueue, Head, PeerFault, SegList, Used};

use super::copy::{LINE, copy, prefetch_write};
use super::scatter::Cursor;
use super::{Done, EnqueuePath, MAX_PACKET};
use crate::memory::MemoryMap;
use crate::port::TxLoss;

/// Most buffers merged for one packet.
const MAX_MERGED: usize = 256;
/// Buffers too short for a header that are given back in one burst before others get their turn.
const RUNTS_PER_BURST: u32 = 2 * BURST as u32;

/// The device half of a receive ring. `MERGE`: a packet may take several buffers.
pub(super) struct Enqueue<Q, const MERGE: bool> {
    queue: Q,
    map: Arc<MemoryMap>,
    /// Bytes before each packet.
    header: u32,
    first: SegList,
    further: SegList,
    heads: Vec<Used>,
    runts: u32,
    name: &'static str,
}

/// What became of one packet on the slow way.
enum Slow {
    Sent,
    Dropped(TxLoss),
    /// No room; the packet stays.
    Full,
}

impl<Q: DeviceQueue, const MERGE: bool> Enqueue<Q, MERGE> {
    pub(super) fn new(mut queue: Q, map: Arc<MemoryMap>, header: u32, name: &'static str) -> Self {
        queue.set_notifications(false);
        let (first, further, heads) = (SegList::new(), SegList::new(), Vec::new());
        Self { queue, map, header, first, further, heads, runts: 0, name }
    }

    /// Packets of one segment into plain buffers that hold them, from the front on; returns how many.
    #[inline(always)]
    fn fast(&mut self, packets: &[Packet], stats: &QueueStats<TxLoss>) -> Result<usize, PeerFault> {
        let mut chains = [const { MaybeUninit::<Chain>::uninit() }; BURST];
        let want = packets.len().min(BURST);
        let n = self.queue.peek(&*self.map, chains.get_mut(..want).unwrap_or_default())?;
        let chains = chains.get(..n).unwrap_or_default();
        // SAFETY: `peek` initialised the first `n` chains.
        let chains = unsafe { chains.assume_init_ref() };
        let header = self.header;
        let fits = |(chain, packet): &(&Chain, &Packet)| {
            packet.len() == packet.data_len() && packet.len() <= chain.len.saturating_sub(header) as usize
        };
        let sent = chains.iter().zip(packets).take_while(fits).count();
        let chains = chains.get(..sent).unwrap_or_default();
        for chain in chains {
            let payload = chain.ptr.wrapping_add(header as usize);
            prefetch_write(payload);
            if chain.len as usize > header as usize + LINE {
                prefetch_write(payload.wrapping_add(LINE));
            }
        }
        let mut lengths = [0u32; BURST];
        let mut bytes = 0;
        for ((chain, packet), written) in chains.iter().zip(packets).zip(&mut lengths) {
            // Fits: at most `chain.len`.
            let len = packet.len() as u32;
            // SAFETY: `header + len <= chain.len` was just checked, and the queue checked `chain.len` bytes.
            unsafe { write_header(chain.ptr, header) };
            let to = chain.ptr.wrapping_add(header as usize);
            // SAFETY: as above; the packet's only segment has `len` bytes at `data_ptr`.
            unsafe { copy(to, packet.data_ptr(), len as usize) };
            *written = header + len;
            bytes += u64::from(len);
        }
        self.queue.complete_burst(chains, |k| lengths.get(k).copied().unwrap_or(0));
        stats.moved(sent, bytes);
        Ok(sent)
    }

    /// One packet of any shape into buffers of any shape.
    #[cold]
    #[inline(never)]
    fn slow(&mut self, packet: &Packet, stats: &QueueStats<TxLoss>) -> Result<Slow, PeerFault> {
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if len > MAX_PACKET {
            return Ok(Slow::Dropped(TxLoss::TooLong));
        }
        let Some(head) = self.first_buffer(stats)? else { return Ok(Slow::Full) };
        let total = self.header + len;
        if head.len < total && !MERGE {
            return Ok(Slow::Dropped(TxLoss::TooLong));
        }
        let mut source = Source::new(packet);
        let mut cursor = Cursor::new(self.first.pieces());
        cursor.skip(self.header as usize);
        let mut left = len - source.fill(&mut cursor, head.len.min(total) - self.header);
        self.heads.clear();
        self.heads.push(head.used(head.len.min(total)));
        let mut ahead = Ahead::default().past(head);
        while left > 0 {
            let Some(head) = self.queue.peek_chain(&*self.map, ahead, &mut self.further)? else {
                // Nothing was completed, so there is nothing to take back.
                let hopeless = ahead.descs >= self.queue.size() || self.heads.len() >= MAX_MERGED;
                return Ok(if hopeless { Slow::Dropped(TxLoss::TooLong) } else { Slow::Full });
            };
            if self.heads.len() >= MAX_MERGED {
                return Ok(Slow::Dropped(TxLoss::TooLong));
            }
            let part = head.len.min(left);
            source.fill(&mut Cursor::new(self.further.pieces()), part);
            left -= part;
            self.heads.push(head.used(part));
            ahead = ahead.past(head);
        }
        self.finish(packet, stats);
        Ok(Slow::Sent)
    }

    /// Writes the header and gives all buffers of the packet back.
    fn finish(&mut self, packet: &Packet, stats: &QueueStats<TxLoss>) {
        let num_buffers = self.heads.len() as u16;
        let header = NetHeader { num_buffers, ..NetHeader::default() }.to_bytes();
        let len = (self.header as usize).min(header.len());
        // SAFETY: reads at most the twelve bytes of `header`.
        unsafe { Cursor::new(self.first.pieces()).write(header.as_ptr(), len) };
        for used in self.heads.drain(..) {
            self.queue.complete(used);
        }
        stats.moved(1, packet.len() as u64);
    }

    /// The next buffer that can hold a header; shorter ones go back unused.
    fn first_buffer(&mut self, stats: &QueueStats<TxLoss>) -> Result<Option<Head>, PeerFault> {
        while self.runts < RUNTS_PER_BURST {
            let Some(head) = self.queue.peek_chain(&*self.map, Ahead::default(), &mut self.first)? else {
                return Ok(None);
            };
            if head.len >= self.header {
                return Ok(Some(head));
            }
            self.queue.complete(head.used(0));
            self.runts += 1;
            stats.lost(TxLoss::RuntBuffer, 1);
        }
        Ok(None)
    }

    /// Sends from the front of `packets`; returns packets sent, and packets dropped behind them.
    #[inline(always)]
    fn take(&mut self, packets: &[Packet], stats: &QueueStats<TxLoss>) -> Result<usize, PeerFault> {
        let mut taken = self.fast(packets, stats)?;
        while let Some(packet) = packets.get(taken) {
            // Fewer than asked for, all of them plain: the ring is out of buffers.
            if taken > 0 && self.queue.is_empty() {
                break;
            }
            match self.slow(packet, stats)? {
                Slow::Sent => {}
                Slow::Dropped(cause) => stats.lost(cause, 1),
                Slow::Full => break,
            }
            taken += 1;
            taken += self.fast(packets.get(taken..).unwrap_or_default(), stats)?;
        }
        Ok(taken)
    }
}

impl<Q: DeviceQueue, const MERGE: bool> EnqueuePath for Enqueue<Q, MERGE> {
    fn burst(&mut self, packets: &mut Burst, stats: &QueueStats<TxLoss>) -> Result<Done, PeerFault> {
        self.runts = 0;
        let result = self.take(packets, stats);
        // What was completed before a fault is published too.
        let moved = *result.as_ref().unwrap_or(&0);
        if moved > 0 || self.runts > 0 || result.is_err() {
            self.queue.publish();
        }
        let taken = result?;
        if taken == packets.len() {
            packets.clear();
        } else {
            drop(packets.drain(..taken));
        }
        let call = (taken > 0 || self.runts > 0) && self.queue.call_needed();
        Ok(Done { packets: taken, call })
    }

    fn base(&self) -> u32 {
        self.queue.base()
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

/// Writes a header that says "one buffer, nothing special", unless it is there already: then the line stays
/// shared between both cores.
///
/// # Safety
/// `at` is the peer's, readable and writable for `header` bytes, which are 10 or 12.
#[inline(always)]
unsafe fn write_header(at: *mut u8, header: u32) {
    const PLAIN: [u8; HDR_LEN as usize] = NetHeader {
        flags: 0,
        gso_type: 0,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
        num_buffers: 1,
    }
    .to_bytes();
    let mut present = [0u8; HDR_LEN as usize];
    let len = if header == HDR_LEN { present.len() } else { header as usize };
    // SAFETY: `len <= header` bytes are readable, promised by the caller, and fit `present`.
    unsafe { copy(present.as_mut_ptr(), at, len) };
    if present.get(..len) != PLAIN.get(..len) {
        // SAFETY: as above, writable.
        unsafe { copy(at, PLAIN.as_ptr(), len) };
    }
}

/// The bytes of a packet's segments, in order.
struct Source<'a> {
    segments: linecard_mempool::Segments<'a>,
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    fn new(packet: &'a Packet) -> Self {
        Self { segments: packet.segments(), rest: &[] }
    }

    /// Copies up to `len` bytes to `cursor`; returns how many.
    fn fill(&mut self, cursor: &mut Cursor<'_>, len: u32) -> u32 {
        let mut done = 0usize;
        while done < len as usize {
            if self.rest.is_empty() {
                let Some(segment) = self.segments.next() else { break };
                self.rest = segment.data();
                continue;
            }
            let part = self.rest.len().min(len as usize - done);
            // SAFETY: `rest` holds at least `part` bytes.
            let copied = unsafe { cursor.write(self.rest.as_ptr(), part) };
            self.rest = self.rest.get(copied..).unwrap_or_default();
            done += copied;
            if copied < part {
                break;
            }
        }
        done as u32
    }
}
