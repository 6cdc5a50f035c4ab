//! The transmit path: passes packets to the backend without a copy, and reclaims them once the backend has
//! read them.
//!
//! The header is written into the headroom directly before the data, unless it is zero already. A buffer that
//! is used again and again thus keeps the header's cache line shared between both cores. Every unusual packet
//! (a chain, shared or foreign memory, no headroom, a bad length) leaves the loop for [`cold`].

mod asking;
mod cold;
#[cfg(test)]
mod differential;

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_mempool::{Burst, Meta, MetaWords, Offload, Packet, Pool};
use linecard_pmd::offload::{AcceptedOffloads, asks};
use linecard_pmd::stats::QueueStats;
use linecard_virtio::{Buffer, Completion, DriverQueue, PeerFault};

use crate::backend::RingId;
use crate::doorbell::Doorbell;
use crate::losses::TxLoss;
use crate::memory::Window;
use crate::missing::Missing;
use crate::path::{Trouble, TxPath, clear_header, header_len, peek_hash, peek_header};

/// The packets in flight at which a burst starts to reclaim.
const RECLAIM: u16 = 32;
/// The longest frame sent, in bytes: DPDK's `VIRTIO_MAX_RX_PKTLEN`, which its peers accept.
pub(crate) const LONGEST: u32 = 9728;
/// A token bit for anything but a plain packet of this port's pool; such packets are freed one by one.
const SLOW: u64 = 1;

/// The parts of a transmit path besides its ring.
pub(crate) struct TxParts {
    pub(crate) pool: Pool,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) stats: Arc<QueueStats<TxLoss>>,
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) window: Arc<Window>,
    /// The address of twenty zero bytes, the header of packets without room for their own.
    pub(crate) header: u64,
    /// The ring's identity, for messages.
    pub(crate) ring: RingId,
    /// The offloads that the backend completes itself.
    pub(crate) accepted: AcceptedOffloads,
    /// Receives the packets that are lost with a backend, for captures.
    pub(crate) missing: Arc<Missing>,
}

/// The transmit path over one kind of ring, with or without offloads (which are read from metadata), and with
/// a header of 12 bytes or, with room for a hash, 20 bytes.
#[repr(align(64))]
pub(crate) struct Tx<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> {
    /// Taken out only when the path is dropped.
    queue: ManuallyDrop<Q>,
    /// The pool of this port.
    home: u64,
    /// The packets in flight at which a burst starts to reclaim.
    threshold: u16,
    parts: TxParts,
}

/// Plain packets from the front of a burst, as buffers; ends before the first packet that is not plain.
struct Plain<'a, const OFFLOAD: bool, const HASH: bool> {
    rest: std::slice::Iter<'a, Packet>,
    base: u64,
    shared: u64,
    home: u64,
    bytes: u64,
    /// Whether the next packet is not plain.
    cold: bool,
}

impl<const OFFLOAD: bool, const HASH: bool> Iterator for Plain<'_, OFFLOAD, HASH> {
    type Item = Buffer;

    #[inline(always)]
    fn next(&mut self) -> Option<Buffer> {
        let line = line_of(self.rest.as_slice().first()?);
        let (extent, buffer) = (line.extent(), line.buf());
        let (offset, len) = (extent.data_off(), extent.data_len());
        let plain = extent.is_plain()
            & (offset >= u64::from(header_len(HASH)))
            & (len.wrapping_sub(1) < u64::from(LONGEST))
            & (buffer.wrapping_sub(self.base) < self.shared)
            & !(OFFLOAD && asks(Offload::from_bits_retain(line.ol_flags())));
        if !plain {
            self.cold = true;
            return None;
        }
        self.rest.next();
        let at = buffer.wrapping_add(offset).wrapping_sub(u64::from(header_len(HASH)));
        // `num_buffers` stays unchanged: the device ignores it, and rewriting the value of the other
        // direction would transfer the header's cache line between the cores for every packet.
        // SAFETY: the packet is plain, has the headroom, and belongs to us through the burst.
        let mut stale = unsafe { peek_header(at) } != (0, 0);
        if HASH {
            // SAFETY: a plain packet has `header_len(HASH)`, 20 bytes of headroom here, and belongs to us
            // through the burst.
            stale |= unsafe { peek_hash(at) } != 0;
        }
        if stale {
            // SAFETY: the packet is plain, has the headroom, and belongs to us through the burst.
            unsafe { clear_header::<HASH>(at) };
        }
        self.bytes = self.bytes.wrapping_add(len);
        let slow = u64::from(line.pool_id() != self.home);
        let lent = (len as u32).wrapping_add(header_len(HASH));
        Some(Buffer { addr: at, len: lent, token: line.address() | slow })
    }
}

/// Returns the metadata of a packet in the burst that is being sent.
#[inline(always)]
fn line_of(packet: &Packet) -> MetaWords {
    // SAFETY: the packet is alive; `tx_burst` borrows the burst exclusively, so nothing else accesses the
    // packet.
    unsafe { MetaWords::new(packet.as_raw()) }
}

/// The result for one packet on the cold path.
enum TxOutcome {
    /// Passed to the backend, with this number of bytes.
    Sent(u64),
    /// Freed and counted.
    Dropped,
    /// The ring has no room; the packet stays in the burst.
    Full,
}

impl<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> Tx<Q, OFFLOAD, HASH> {
    /// The bytes of the header.
    const HEADER: u32 = header_len(HASH);

    pub(crate) fn new(queue: Q, parts: TxParts) -> Self {
        const { assert!(!Q::WRITABLE) };
        let threshold = RECLAIM.min(queue.size() / 2).max(1);
        Self { home: parts.pool.id() as u64, threshold, queue: ManuallyDrop::new(queue), parts }
    }

    fn in_flight(&self) -> u16 {
        self.queue.size().saturating_sub(self.queue.free())
    }

    /// Reclaims buffers that the backend has finished.
    #[inline(always)]
    fn collect(&mut self) -> Result<(), PeerFault> {
        loop {
            // MEASURED: cargo xtask budget; arrays of this file that are initialized first cost 7 instructions more per packet.
            let mut done = [const { MaybeUninit::<Completion>::uninit() }; linecard_mempool::BURST];
            let count = self.queue.complete(&mut done)?.min(done.len());
            // SAFETY: `complete` initialised the first `count` elements.
            self.release(unsafe { done[..count].assume_init_ref() });
            if count < done.len() {
                return Ok(());
            }
        }
    }

    #[inline(always)]
    fn release(&mut self, done: &[Completion]) {
        let mut metas = [const { MaybeUninit::<NonNull<Meta>>::uninit() }; linecard_mempool::BURST];
        let mut marks = 0;
        for (slot, one) in metas.iter_mut().zip(done) {
            marks |= one.token;
            // SAFETY: the queue returns only tokens it was given, and those are made from metadata.
            let line = unsafe { MetaWords::from_address(one.token) };
            slot.write(line.as_ptr());
        }
        if marks & SLOW != 0 {
            return cold::release(done);
        }
        let count = done.len().min(metas.len());
        // SAFETY: the loop wrote one element per completion.
        let metas = unsafe { metas[..count].assume_init_ref() };
        // SAFETY: without the mark they were plain (state 0) packets of this pool, whose ownership the queue returns.
        unsafe { self.parts.pool.put_raw(metas) };
    }

    /// Wakes a sleeping backend; for one that polls, the check is deferred.
    #[inline(always)]
    fn notify(&mut self) {
        if let Some(unasked) = self.queue.unasked() {
            self.parts.doorbell.owe(unasked);
        } else if self.queue.kick_needed() {
            self.parts.doorbell.ring();
        }
    }

    #[cold]
    #[inline(never)]
    fn fault(&mut self, fault: PeerFault) {
        self.parts.trouble.report(self.parts.ring, fault);
    }

    /// Adds packets from the front of `packets` to the ring; returns the numbers handled and sent, and the
    /// bytes sent.
    #[inline(always)]
    fn send(&mut self, packets: &[Packet]) -> (usize, usize, u64) {
        let (base, shared) = self.parts.window.now();
        let (mut dealt, mut sent, mut bytes) = (0_usize, 0_usize, 0_u64);
        loop {
            let rest = packets.get(dealt..).unwrap_or_default();
            let mut plain = Plain::<OFFLOAD, HASH> {
                rest: rest.iter(),
                base,
                shared,
                home: self.home,
                bytes: 0,
                cold: false,
            };
            let added = self.queue.add_burst(&mut plain);
            dealt = dealt.wrapping_add(added);
            sent = sent.wrapping_add(added);
            bytes = bytes.wrapping_add(plain.bytes);
            if !plain.cold {
                return (dealt, sent, bytes);
            }
            match self.send_cold(line_of(&packets[dealt])) {
                TxOutcome::Full => return (dealt, sent, bytes),
                TxOutcome::Dropped => {}
                TxOutcome::Sent(len) => {
                    sent = sent.wrapping_add(1);
                    bytes = bytes.wrapping_add(len);
                }
            }
            dealt = dealt.wrapping_add(1);
        }
    }
}

impl<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> TxPath for Tx<Q, OFFLOAD, HASH> {
    fn burst(&mut self, packets: &mut Burst) -> usize {
        if self.in_flight() >= self.threshold
            && let Err(fault) = self.collect()
        {
            self.fault(fault);
            return 0;
        }
        let (dealt, sent, bytes) = self.send(packets);
        if sent > 0 {
            self.queue.publish();
            self.notify();
            self.parts.stats.moved(sent, bytes);
        }
        // SAFETY: the first `dealt` packets belong to the queue now, or are freed; their handles are
        // forgotten.
        unsafe { packets.consume_front(dealt) };
        dealt
    }

    fn reclaim(&mut self) {
        self.parts.doorbell.settle();
        if let Err(fault) = self.collect() {
            self.fault(fault);
        }
    }

    fn used(&mut self) -> u16 {
        self.reclaim();
        self.in_flight()
    }

    fn accepted(&self) -> AcceptedOffloads {
        if OFFLOAD { self.parts.accepted } else { AcceptedOffloads::default() }
    }
}

impl<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> Drop for Tx<Q, OFFLOAD, HASH> {
    fn drop(&mut self) {
        // Packets that the backend finished count as sent, the rest as lost.
        let _ = self.collect();
        // SAFETY: the path, and with it the queue, is not used after this.
        let queue = unsafe { ManuallyDrop::take(&mut self.queue) };
        let mut lost = 0_u64;
        let missing = self.parts.missing.is_observed().then_some(&*self.parts.missing);
        queue.take_all(&mut |token| {
            lost = lost.wrapping_add(1);
            match missing {
                Some(missing) => missing.push(cold::packet(token)),
                None => cold::free(token),
            }
        });
        self.parts.stats.lost(TxLoss::BackendGone, lost);
    }
}
