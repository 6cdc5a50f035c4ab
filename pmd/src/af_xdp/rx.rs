//! The receive path: buffers lent through the fill ring, filled where they lie, handed to the application as packets.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{BURST, Burst, Meta, Packet, Pool};

use super::channel::Channel;
use super::cursor::{Consumer, Producer, Ring};
use super::umem::Returned;
use crate::port::RxQueue;
use crate::stats::{QueueStats, Total};

crate::causes! {
    /// Why a receive queue loses packets.
    pub(super) enum RxLoss {
        /// The pool had no packets to lend.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// The kernel named a buffer that was not lent, or a place outside it.
        BadDescriptor = ("bad_descriptor", Total::Error),
        /// A packet of more buffers than a packet can have.
        TooLong = ("too_long", Total::Error),
    }
}

/// Buffers taken from the pool at once; also how far a ring may run down before it is filled again.
const REFILL: usize = 32;

/// A receive queue.
pub(super) struct Rx {
    rx: Consumer<2>,
    fill: Producer<1>,
    pool: Pool,
    buf_len: u16,
    /// Buffers the kernel may have at most, and has.
    depth: u32,
    lent: u32,
    batch: usize,
    /// The start of a packet whose other buffers have not come yet, or whose end is awaited to be dropped.
    started: Started,
    /// Packets whose buffers the device cannot be given; home again with the queue.
    aside: Vec<Packet>,
    path: &'static str,
    stats: Arc<QueueStats<RxLoss>>,
    /// Last, so that the mappings are gone before the socket is.
    channel: Arc<Channel>,
}

/// A packet that spans buffers, on its way.
enum Started {
    No,
    Good(Packet),
    /// The rest is dropped up to its end.
    Bad,
}

impl Rx {
    /// A queue with its fill ring filled.
    pub(super) fn new(
        (rx, fill): (Ring<2>, Ring<1>),
        depth: u32,
        channel: &Arc<Channel>,
        path: &'static str,
        stats: Arc<QueueStats<RxLoss>>,
    ) -> Self {
        let pool = channel.umem.pool().clone();
        let buf_len = pool.headroom() + pool.data_room();
        let mut queue = Self {
            rx: Consumer::new(rx),
            fill: Producer::new(fill),
            buf_len,
            depth,
            lent: 0,
            batch: (depth as usize / 4).clamp(1, REFILL),
            started: Started::No,
            aside: Vec::new(),
            path,
            stats,
            pool,
            channel: channel.clone(),
        };
        queue.refill();
        queue
    }

    /// Lends buffers while there is room for a batch; false when the pool had too few.
    #[inline(always)]
    fn refill(&mut self) -> bool {
        let mut want = self.batch;
        while (self.depth - self.lent) as usize >= self.batch {
            let mut fresh = [const { MaybeUninit::<NonNull<Meta>>::uninit() }; REFILL];
            let Some(some) = fresh.get_mut(..want) else { break };
            if self.pool.get_raw(some) {
                self.lend(want);
                let fresh = &fresh[..want];
                self.hand_over(fresh);
            } else if want > 1 {
                // A nearly empty pool still gives what it has.
                want /= 2;
            } else {
                return false;
            }
        }
        want == self.batch
    }

    fn lend(&mut self, count: usize) {
        self.lent += count as u32;
    }

    /// Keeps a packet that must not be lent. There is at most one for each hugepage of the pool.
    #[cold]
    fn set_aside(&mut self, meta: NonNull<Meta>) {
        self.lent -= 1;
        self.aside.extend(self.packet(meta, 0, 0));
    }

    #[inline(always)]
    fn hand_over(&mut self, fresh: &[MaybeUninit<NonNull<Meta>>]) {
        let tag = self.channel.rx_tag;
        if self.channel.zero_copy {
            return self.hand_over_whole(fresh);
        }
        let mut slots = self.fill.reserve(fresh.len() as u32);
        for packet in fresh {
            // SAFETY: the pool filled every place.
            let packet = unsafe { packet.assume_init() };
            // `lent <= depth`, so there is a place for each.
            if let Some(start) = self.channel.umem.lend(tag, packet) {
                slots.write([start]);
            }
        }
        slots.publish();
    }

    /// For devices that reach the memory themselves: only buffers that lie in one page.
    #[inline(never)]
    fn hand_over_whole(&mut self, fresh: &[MaybeUninit<NonNull<Meta>>]) {
        for packet in fresh {
            // SAFETY: the pool filled every place.
            let packet = unsafe { packet.assume_init() };
            if !self.channel.umem.is_whole(packet) {
                self.set_aside(packet);
            } else if let Some(start) = self.channel.umem.lend(self.channel.rx_tag, packet) {
                let mut slots = self.fill.reserve(1);
                slots.write([start]);
                slots.publish();
            }
        }
    }

    /// Nothing came: calls the kernel where it waits for that, and does what was put off.
    #[inline(always)]
    fn idle(&mut self) {
        if (self.depth - self.lent) as usize >= self.batch {
            self.refill();
        }
        self.channel.settle();
        if self.channel.busy_poll || self.fill.needs_wakeup() {
            self.channel.receive();
        }
    }

    /// The packet in a buffer of ours again.
    #[inline(always)]
    fn packet(&self, meta: NonNull<Meta>, offset: usize, len: usize) -> Option<Packet> {
        if offset + len > usize::from(self.buf_len) {
            self.put_back(meta);
            return None;
        }
        // Both are less than `buf_len` now, so 16 bits long.
        let [lengths, flags] = Meta::lengths(len as u16);
        let words = [Meta::rearm(offset as u16, Meta::NO_PORT, self.buf_len), lengths, flags];
        // SAFETY: the packet is ours alone; its first 24 bytes are integers.
        unsafe { meta.cast::<[u64; 3]>().write(words) };
        // SAFETY: from `get_raw`, lent once and back; its fields were just written and stay inside the buffer.
        Some(unsafe { Packet::from_raw(meta) })
    }

    #[cold]
    fn put_back(&self, meta: NonNull<Meta>) {
        // SAFETY: of this pool, plain since the pool gave it, ours, and not used after.
        unsafe { self.pool.put_raw(&[meta]) };
    }

    /// A buffer of a packet that spans several; the packet when it is whole.
    #[cold]
    #[inline(never)]
    fn piece(&mut self, piece: Option<Packet>, more: bool) -> Option<Packet> {
        let before = std::mem::replace(&mut self.started, Started::No);
        let now = match (before, piece) {
            (Started::No, Some(piece)) => Started::Good(piece),
            (Started::Good(mut head), Some(piece)) => match head.chain(piece) {
                Ok(()) => Started::Good(head),
                Err(_) => {
                    self.stats.dropped(RxLoss::TooLong, &head);
                    Started::Bad
                }
            },
            (Started::Bad, _) | (_, None) => Started::Bad,
        };
        match now {
            Started::Good(packet) if !more => Some(packet),
            now => {
                if more {
                    self.started = now;
                }
                None
            }
        }
    }

    /// What one descriptor gives.
    #[inline(always)]
    fn received(&mut self, [address, word]: [u64; 2]) -> Option<Packet> {
        let (len, options) = halves(word);
        let piece = match self.channel.umem.take(self.channel.rx_tag, address) {
            Returned::Whole(meta, offset) => {
                self.lent -= 1;
                self.packet(meta, offset, len as usize)
            }
            Returned::Part | Returned::Foreign => None,
        };
        if piece.is_none() {
            self.stats.lost(RxLoss::BadDescriptor, 1);
        }
        let more = options & libc::XDP_PKT_CONTD != 0;
        if more || !matches!(self.started, Started::No) {
            return self.piece(piece, more);
        }
        piece
    }
}

/// Length and options of a descriptor (`struct xdp_desc`), from its second word.
#[inline(always)]
const fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

impl RxQueue for Rx {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let want = packets.room().min(BURST);
        if want == 0 {
            return 0;
        }
        let mut read = [[0_u64; 2]; BURST];
        let mut entries = self.rx.peek(want as u32);
        let mut count = 0;
        for place in read.iter_mut().take(want) {
            let Some(entry) = entries.read() else { break };
            *place = entry;
            count += 1;
        }
        entries.release();
        if count == 0 {
            self.idle();
            return 0;
        }
        let (mut kept, mut bytes) = (0, 0);
        for entry in &read[..count] {
            let Some(packet) = self.received(*entry) else { continue };
            bytes += packet.len() as u64;
            // There is room for as many packets as descriptors were read.
            let _ = packets.push(packet);
            kept += 1;
        }
        self.stats.moved(kept, bytes);
        if !self.refill() {
            self.stats.lost(RxLoss::NoBuffer, 1);
        }
        kept
    }

    fn path(&self) -> &'static str {
        self.path
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_descriptors_second_word() {
        let word =
            u64::from_ne_bytes([60_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat().try_into().expect("8"));
        assert_eq!(super::halves(word), (60, 1));
    }
}
