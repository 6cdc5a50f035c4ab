//! The receive path: buffers that the kernel filled where they lie, handed to the application as packets.

use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{BURST, Burst, Meta, Packet, Pool};

use super::channel::Channel;
use super::cursor::{Consumer, Ring};
use super::fill::Fill;
use super::umem::Returned;
use linecard_pmd::port::RxQueue;
use linecard_pmd::stats::{QueueStats, Total};

linecard_pmd::causes! {
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

/// A receive queue.
pub(super) struct Rx {
    rx: Consumer<2>,
    fill: Fill,
    pool: Pool,
    buf_len: u16,
    /// The start of a packet whose other buffers have not come yet, or whose end is awaited to be dropped.
    started: Started,
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
    /// A queue of frames that `fill` asked for.
    pub(super) fn new(
        (rx, fill): (Ring<2>, Fill),
        channel: &Arc<Channel>,
        path: &'static str,
        stats: Arc<QueueStats<RxLoss>>,
    ) -> Self {
        let pool = channel.umem.pool().clone();
        Self {
            rx: Consumer::new(rx),
            fill,
            buf_len: pool.headroom() + pool.data_room(),
            started: Started::No,
            path,
            stats,
            pool,
            channel: channel.clone(),
        }
    }

    /// Nothing came: calls the kernel where it waits for that, and does what was put off.
    #[inline(always)]
    fn idle(&mut self) {
        self.fill.refill();
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
                self.fill.came_back();
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
        if !self.fill.refill() {
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
