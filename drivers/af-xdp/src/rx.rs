//! The receive path: the kernel fills the pool's buffers, and the application gets them as packets without a
//! copy.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{BURST, Burst, Meta, Packet, Pool};

use super::channel::Channel;
use super::cursor::{Consumer, Ring};
use super::fill::Fill;
use super::umem::Returned;
use linecard_pmd::port::RxQueue;
use linecard_pmd::stats::{QueueStats, Total};
use linecard_pmd::wake::{Armed, arm_descriptor};

linecard_pmd::causes! {
    /// The reasons for which a receive queue loses packets.
    pub(super) enum RxLoss {
        /// The pool had no packets to provide.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// The kernel returned a buffer that it did not hold, or an offset outside of it.
        BadDescriptor = ("bad_descriptor", Total::Error),
        /// The packet spans more buffers than a packet can have segments.
        TooLong = ("too_long", Total::Error),
    }
}

/// A receive queue.
pub(super) struct Rx {
    rx: Consumer<2>,
    fill: Fill,
    pool: Pool,
    buf_len: u16,
    /// The start of a packet whose other buffers are outstanding, or the state of dropping one up to its end.
    started: Started,
    path: &'static str,
    stats: Arc<QueueStats<RxLoss>>,
    /// Last, so that the mappings are dropped before the socket.
    channel: Arc<Channel>,
}

/// The state of a packet that spans buffers.
enum Started {
    No,
    Good(Packet),
    /// The remaining buffers are dropped, up to the end of the packet.
    Bad,
}

impl Rx {
    /// Creates a queue for frames in the buffers of `fill`.
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

    /// Calls the kernel if it waits for that, and does deferred work: the poll found no frames.
    #[inline(always)]
    fn idle(&mut self) {
        self.fill.refill();
        self.channel.settle();
        if self.channel.busy_poll || self.fill.needs_wakeup() {
            self.channel.receive();
        }
    }

    /// Returns the packet in a buffer that the kernel returned.
    #[inline(always)]
    fn packet(&self, meta: NonNull<Meta>, offset: usize, len: usize) -> Option<Packet> {
        if offset + len > usize::from(self.buf_len) {
            self.put_back(meta);
            return None;
        }
        // Both are less than `buf_len` now, so 16 bits long.
        let (rearm, len) = (Meta::rearm(offset as u16, Meta::NO_PORT, self.buf_len), len as u16);
        // SAFETY: the packet is exclusively ours; data of `len` bytes from `offset` ends inside the buffer.
        unsafe { Meta::write_plain(meta, rearm, len) };
        // SAFETY: from `get_raw`, passed to the kernel once and returned; its fields were just written and
        // stay inside the buffer.
        Some(unsafe { Packet::from_raw(meta) })
    }

    #[cold]
    fn put_back(&self, meta: NonNull<Meta>) {
        // SAFETY: of this pool, plain since the pool provided it, ours, and not used after.
        unsafe { self.pool.put_raw(&[meta]) };
    }

    /// Adds a buffer to a packet that spans several; returns the packet when it is complete.
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

    /// Processes one descriptor.
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

/// Splits the second word of a descriptor (`struct xdp_desc`) into length and options.
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

    fn arm(&mut self) -> Armed {
        let enough = self.fill.refill();
        self.idle();
        if !self.rx.is_empty() {
            return Armed::Ready;
        }
        // Busy polling defers interrupts, and a socket without buffers receives no packets.
        if self.channel.busy_poll || !enough {
            return Armed::Unable;
        }
        self.channel.fd().map_or(Armed::Unable, arm_descriptor)
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.channel.fd()
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
