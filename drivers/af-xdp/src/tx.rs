//! The transmit path: sends packets of the port's pool without a copy, and copies all others into that pool.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use linecard_mempool::{BURST, Burst, Meta, Packet, Pool};

use super::channel::Channel;
use super::cursor::{Consumer, Producer, Ring, Slots};
use super::umem::{Returned, Tag, Umem};
use linecard_pmd::port::TxQueue;
use linecard_pmd::stats::{QueueStats, Total};

linecard_pmd::causes! {
    /// The reasons for which a transmit queue drops packets, and other events.
    pub(super) enum TxLoss {
        /// The packet is shorter than an Ethernet header.
        Runt = ("runt", Total::Error),
        /// The packet exceeds the interface's longest frame.
        TooLong = ("too_long", Total::Error),
        /// The packet had to be copied, and the pool had no packet for the copy.
        NoBuffer = ("no_buffer", Total::Error),
        /// The kernel returned a buffer that it did not hold.
        BadDescriptor = ("bad_descriptor", Total::None),
        /// Calls after which the kernel had not taken all packets; it is called again.
        Busy = ("busy", Total::None),
        /// Packets that were copied: not of this port's pool, shared, or in pieces that could not be sent
        /// directly.
        Copied = ("copied", Total::None),
    }
}

/// The bytes of an Ethernet header.
const SHORTEST: usize = 14;
/// The most descriptors of a packet; the kernel accepts one more than an sk_buff has fragments (17).
const PIECES: u32 = 16;
/// `state` 0 (unique, direct, of its home pool) and one segment, as bytes 2 and 3 of the first word.
const PLAIN: [u8; 2] = [0, 1];
/// The time that a queue waits at its end for packets that the kernel holds: a device may be reading them.
const LINGER: Duration = Duration::from_millis(50);
/// The most calls to send one burst; the rest is sent by the next poll.
const CALLS: usize = 4;

/// A transmit queue.
pub(super) struct Tx {
    tx: Producer<2>,
    done: Consumer<1>,
    /// The descriptors that the kernel holds, never more than the completion ring has entries.
    lent: u32,
    writer: DescriptorWriter,
    path: &'static str,
    /// Last, so that the mappings are dropped before the socket.
    channel: Arc<Channel>,
}

/// Turns packets into descriptors.
struct DescriptorWriter {
    pool: Pool,
    pool_id: usize,
    umem: Arc<Umem>,
    tag: Tag,
    depth: u32,
    longest: usize,
    chunk: usize,
    multi_buffer: bool,
    /// Whether the device accesses the memory directly.
    zero_copy: bool,
    stats: Arc<QueueStats<TxLoss>>,
}

/// The result for one packet.
enum TxOutcome {
    /// Sent with `count` descriptors.
    Sent {
        bytes: usize,
        count: u32,
    },
    Dropped,
    /// The ring has no room; the packet is returned.
    Full(Packet),
}

impl Tx {
    /// Creates an empty queue; `longest` is the longest frame that the interface accepts.
    pub(super) fn new(
        (tx, done): (Ring<2>, Ring<1>),
        (depth, longest): (u32, usize),
        channel: &Arc<Channel>,
        path: &'static str,
        stats: Arc<QueueStats<TxLoss>>,
    ) -> Self {
        let umem = channel.umem.clone();
        let pool = umem.pool().clone();
        let writer = DescriptorWriter {
            pool_id: pool.id(),
            pool,
            tag: channel.tx_tag,
            depth,
            longest,
            chunk: umem.chunk(),
            multi_buffer: channel.multi_buffer,
            zero_copy: channel.zero_copy,
            umem,
            stats,
        };
        Self {
            tx: Producer::new(tx),
            done: Consumer::new(done),
            lent: 0,
            writer,
            path,
            channel: channel.clone(),
        }
    }

    /// Reclaims frames that the kernel has sent.
    #[inline(always)]
    fn complete(&mut self) {
        // Bounded by the number in flight: another process with a copy of a passed socket could claim more
        // without end.
        for _ in 0..=self.lent as usize / BURST {
            let mut home = [const { MaybeUninit::<NonNull<Meta>>::uninit() }; BURST];
            let (mut count, mut seen) = (0, 0);
            let mut entries = self.done.peek(BURST as u32);
            while let Some([address]) = entries.read() {
                seen += 1;
                match self.writer.umem.take(self.writer.tag, address) {
                    Returned::Whole(meta, _) => {
                        home[count].write(meta);
                        count += 1;
                    }
                    Returned::Part => {}
                    Returned::Foreign => self.writer.stats.lost(TxLoss::BadDescriptor, 1),
                }
            }
            entries.release();
            self.lent = self.lent.saturating_sub(seen);
            // SAFETY: the first `count` were written.
            let home = unsafe { home[..count].assume_init_ref() };
            // SAFETY: packets of this pool, plain when they were passed, returned once each, and not used
            // after.
            unsafe { self.writer.pool.put_raw(home) };
            if (seen as usize) < BURST {
                return;
            }
        }
    }

    /// Makes the kernel send the packets in the ring.
    #[inline(always)]
    fn kick(&mut self) {
        if !self.tx.needs_wakeup() {
            return;
        }
        let mut before = self.tx.pending();
        if before == 0 {
            return;
        }
        for _ in 0..CALLS {
            let _ = self.channel.send();
            let mut left = self.tx.pending();
            if left == before && self.channel.wake() {
                left = self.tx.pending();
            }
            if left == 0 {
                return;
            }
            if left == before {
                break;
            }
            before = left;
        }
        self.writer.stats.lost(TxLoss::Busy, 1);
        self.channel.owed.store(true, Ordering::Relaxed);
    }
}

impl DescriptorWriter {
    /// Adds one packet to the ring.
    #[inline(always)]
    fn send(&mut self, packet: Packet, slots: &mut Slots<'_, 2>, lent: u32) -> TxOutcome {
        let len = packet.len();
        if self.is_plain(&packet) && (SHORTEST..=self.longest.min(self.chunk)).contains(&len) {
            if lent >= self.depth || slots.room() == 0 {
                return TxOutcome::Full(packet);
            }
            let at = packet.data_ptr().addr();
            let meta = packet.into_raw();
            if let Some(address) = self.umem.lend_data(self.tag, meta, at, 1) {
                slots.write(descriptor(address, len, 0));
            }
            return TxOutcome::Sent { bytes: len, count: 1 };
        }
        self.send_cold(packet, slots, self.depth.saturating_sub(lent))
    }

    /// Returns whether the packet is one buffer of the port's pool without other references.
    #[inline(always)]
    fn is_plain(&self, packet: &Packet) -> bool {
        // SAFETY: the packet is owned, so its metadata may be read; its first word consists of integers.
        let first = unsafe { packet.as_raw().cast::<[u8; 8]>().read() };
        // SAFETY: the packet is owned, so its metadata may be borrowed; its pool never changes.
        let pool = unsafe { packet.as_raw().as_ref() }.pool_id();
        let whole = !self.zero_copy || self.umem.is_whole(packet.as_raw());
        first[2..4] == PLAIN && pool == self.pool_id && whole
    }

    /// The slow path: chains, shared or foreign packets, more than a chunk, invalid lengths.
    #[cold]
    #[inline(never)]
    fn send_cold(&mut self, packet: Packet, slots: &mut Slots<'_, 2>, free: u32) -> TxOutcome {
        let len = packet.len();
        if len < SHORTEST {
            return self.drop_as(TxLoss::Runt, &packet);
        }
        if len > self.longest {
            return self.drop_as(TxLoss::TooLong, &packet);
        }
        let room = free.min(slots.room());
        if let Some(count) = self.pieces(&packet) {
            if count > room {
                return TxOutcome::Full(packet);
            }
            self.lend_pieces(packet, slots);
            return TxOutcome::Sent { bytes: len, count };
        }
        // Checked before anything is copied, so that the caller gets back the original packet.
        if room < PIECES.min(self.depth) {
            return TxOutcome::Full(packet);
        }
        let Some(copy) = packet.copy(&self.pool) else { return self.drop_as(TxLoss::NoBuffer, &packet) };
        let Some(count) = self.pieces(&copy) else { return self.drop_as(TxLoss::TooLong, &packet) };
        self.stats.lost(TxLoss::Copied, 1);
        self.lend_pieces(copy, slots);
        TxOutcome::Sent { bytes: len, count }
    }

    fn drop_as(&self, cause: TxLoss, packet: &Packet) -> TxOutcome {
        self.stats.dropped(cause, packet);
        TxOutcome::Dropped
    }

    /// Returns the number of descriptors that the packet needs without a copy; `None` if that is not
    /// possible.
    fn pieces(&self, packet: &Packet) -> Option<u32> {
        let mut count = 0;
        let mut one = Some(packet.as_raw());
        while let Some(packet) = one {
            // SAFETY: a segment of a packet that we own.
            let meta = unsafe { packet.as_ref() };
            let whole = !self.zero_copy || self.umem.is_whole(packet);
            if !whole || meta.pool_id() != self.pool_id || meta.state & !Meta::CHAINED != 0 {
                return None;
            }
            // An empty segment cannot be sent, and is rare enough for a copy.
            count += usize::from(meta.data_len).div_ceil(self.chunk);
            if meta.data_len == 0 {
                return None;
            }
            one = meta.next;
        }
        let most = if self.multi_buffer { PIECES.min(self.depth) } else { 1 };
        u32::try_from(count).ok().filter(|count| *count <= most)
    }

    /// Adds every segment of a packet to the ring, which has room for them.
    fn lend_pieces(&self, packet: Packet, slots: &mut Slots<'_, 2>) {
        let mut one = Some(packet);
        while let Some(mut packet) = one {
            one = packet.unchain();
            let (start, len) = (packet.data_ptr().addr(), packet.len());
            let count = len.div_ceil(self.chunk) as u32;
            let Some(address) = self.umem.lend_data(self.tag, packet.into_raw(), start, count) else {
                return;
            };
            for (piece, at) in (1..).zip((0..len).step_by(self.chunk)) {
                let more = one.is_some() || piece < count;
                let options = if more { u64::from(libc::XDP_PKT_CONTD) } else { 0 };
                slots.write(descriptor(address + at as u64, (len - at).min(self.chunk), options));
            }
        }
    }
}

/// `struct xdp_desc` as two words.
#[inline(always)]
const fn descriptor(address: u64, len: usize, options: u64) -> [u64; 2] {
    let (len, options) = (len as u64, options);
    [address, if cfg!(target_endian = "little") { len | options << 32 } else { len << 32 | options }]
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        self.complete();
        let before = packets.len();
        let (mut sent, mut bytes, mut full) = (0, 0, None);
        let mut slots = self.tx.reserve(BURST as u32);
        let mut waiting = packets.drain(..before);
        for packet in waiting.by_ref() {
            match self.writer.send(packet, &mut slots, self.lent) {
                TxOutcome::Sent { bytes: len, count } => {
                    self.lent += count;
                    (sent, bytes) = (sent + 1, bytes + len as u64);
                }
                TxOutcome::Dropped => {}
                TxOutcome::Full(packet) => {
                    full = Some(packet);
                    break;
                }
            }
        }
        slots.publish();
        let mut left = Burst::new();
        if let Some(packet) = full {
            let _ = left.push(packet);
            left.fill_from(&mut waiting);
        }
        drop(waiting);
        packets.take_from(&mut left);
        self.writer.stats.moved(sent, bytes);
        self.kick();
        before - packets.len()
    }

    fn reclaim(&mut self) {
        self.complete();
        self.channel.settle();
    }

    fn path(&self) -> &'static str {
        self.path
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let start = Instant::now();
        while self.lent > 0 && start.elapsed() < LINGER {
            if self.tx.pending() > 0 && self.channel.send().is_err() {
                std::thread::sleep(Duration::from_micros(200));
            }
            self.channel.wake();
            self.complete();
        }
    }
}
