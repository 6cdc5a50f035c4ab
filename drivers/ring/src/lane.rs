//! One direction of a ring port: a ring of packets whose two ends are used by one queue each, and returned.
//!
//! ```text
//!   Sender ──► ring of owned packets ──► Receiver        each in use by one queue
//!      └── dropped: returned ─┐  ┌─ returned: dropped ──┘        both returned: packets in between are freed
//!                           Direction
//! ```
//! A dropped ring does not free its content, but packets must be freed. An end is therefore never dropped
//! while packets may be in the ring: it returns to the direction. When an end returns and no receiver is in
//! use, the direction empties the ring. With both ends returned, the ring is empty.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_eal::wake::Wake;
use linecard_mempool::{Burst, Meta, Packet};
use linecard_ring::{Config, Single, spsc};

use linecard_pmd::wake::Armed;

/// An owned packet in the ring; whoever takes it out owns it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PacketPointer(NonNull<Meta>);

// SAFETY: `Packet` is `Send`, and this is a packet that one thread adds and one will take out.
unsafe impl Send for PacketPointer {}

type Producer = spsc::Producer<PacketPointer>;
type Consumer = spsc::Consumer<PacketPointer>;

/// The unused ends, and the size of the ring between them.
#[derive(Default)]
struct FreeEnds {
    depth: usize,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    lent: u8,
}

/// One direction, shared by all that may use an end.
#[derive(Default)]
pub(super) struct Direction {
    free_ends: Mutex<FreeEnds>,
    /// Wakes the thread that sleeps at the receiving end.
    wake: Wake,
}

/// The reasons why an end is not available.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is in use.
    InUse,
    /// There is no memory for a ring.
    Memory,
}

impl Direction {
    /// Takes the sending end. If no end is in use, `depth` (at least 1) becomes the size of the ring.
    pub(super) fn sender(self: &Arc<Self>, depth: u16) -> Result<Sender, Refusal> {
        let mut free_ends = self.prepare(depth)?;
        let producer = free_ends.producer.take().ok_or(Refusal::InUse)?;
        free_ends.lent += 1;
        Ok(Sender { producer: Some(producer), lane: Arc::clone(self) })
    }

    /// Takes the receiving end, like [`sender`](Self::sender).
    pub(super) fn receiver(self: &Arc<Self>, depth: u16) -> Result<Receiver, Refusal> {
        let mut free_ends = self.prepare(depth)?;
        let consumer = free_ends.consumer.take().ok_or(Refusal::InUse)?;
        free_ends.lent += 1;
        Ok(Receiver { consumer: Some(consumer), lane: Arc::clone(self) })
    }

    /// Creates the ring if no end is in use and its size is not `depth`.
    fn prepare(&self, depth: u16) -> Result<MutexGuard<'_, FreeEnds>, Refusal> {
        let mut free_ends = self.lock();
        if free_ends.lent == 0 && free_ends.depth != usize::from(depth) {
            let config = Config::exact(depth.into());
            let (producer, consumer) = config.heap::<_, Single, Single>().map_err(|_| Refusal::Memory)?;
            *free_ends =
                FreeEnds { depth: depth.into(), producer: Some(producer), consumer: Some(consumer), lent: 0 };
        }
        Ok(free_ends)
    }

    fn lock(&self) -> MutexGuard<'_, FreeEnds> {
        // Every change below is complete before anything can panic.
        self.free_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FreeEnds {
    /// Frees the packets in the ring, if the receiving end is unused.
    fn empty(&mut self) {
        while let Some(PacketPointer(meta)) = self.consumer.as_ref().and_then(|consumer| consumer.dequeue()) {
            // SAFETY: `Sender::send` added the packet and gave it up; taking it out makes it exclusively
            // ours.
            drop(unsafe { Packet::from_raw(meta) });
        }
    }
}

/// The sending end, used by one queue.
pub(super) struct Sender {
    /// Present until drop.
    producer: Option<Producer>,
    lane: Arc<Direction>,
}

impl Sender {
    /// Moves packets from the front of `packets` into the ring; returns their number and bytes.
    #[inline]
    pub(super) fn send(&mut self, packets: &mut Burst) -> (usize, u64) {
        let Some(producer) = &mut self.producer else { return (0, 0) };
        let mut slots = producer.reserve(packets.len());
        let count = slots.len();
        // Before publishing: afterwards the packets belong to the receiver.
        let bytes = packets[..count].iter().map(|packet| packet.len() as u64).sum();
        // SAFETY: `Packet` and `PacketPointer` are both transparent over `NonNull<Meta>`, and `count` of them
        // are at the front of the burst, which is borrowed until `consume_front`.
        let pointers = unsafe { std::slice::from_raw_parts(packets.as_ptr().cast::<PacketPointer>(), count) };
        slots.write_slice(pointers);
        slots.publish();
        // SAFETY: the first `count` packets were moved out into the ring.
        unsafe { packets.consume_front(count) };
        if count > 0 {
            self.lane.wake.wake();
        }
        (count, bytes)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut free_ends = self.lane.lock();
        free_ends.producer = self.producer.take();
        free_ends.lent -= 1;
        free_ends.empty();
    }
}

/// The receiving end, used by one queue.
pub(super) struct Receiver {
    /// Present until drop.
    consumer: Option<Consumer>,
    lane: Arc<Direction>,
}

impl Receiver {
    /// Appends packets from the ring to `packets` while there is room; returns their number and bytes.
    #[inline]
    pub(super) fn receive(&mut self, packets: &mut Burst) -> (usize, u64) {
        let Some(consumer) = &self.consumer else { return (0, 0) };
        let before = packets.len();
        let spare = std::ptr::from_mut(packets.spare_mut()) as *mut [MaybeUninit<PacketPointer>];
        // SAFETY: as in `send`, the same layout; the spare part of the burst is borrowed for this call only.
        let count = consumer.dequeue_burst_uninit(unsafe { &mut *spare }).count;
        // SAFETY: the ring filled the first `count` spare elements with packets that are ours now.
        unsafe { packets.set_len(before + count) };
        let bytes = packets[before..].iter().map(|packet| packet.len() as u64).sum();
        (count, bytes)
    }

    /// See [`RxQueue::prepare_arm`](linecard_pmd::RxQueue::prepare_arm).
    pub(super) fn prepare_arm(&self) {
        // `begin_arm` fails as well if this did.
        let _ = self.lane.wake.prepare();
    }

    /// See [`RxQueue::begin_arm`](linecard_pmd::RxQueue::begin_arm).
    pub(super) fn begin_arm(&self) -> bool {
        self.lane.wake.request()
    }

    /// See [`RxQueue::finish_arm`](linecard_pmd::RxQueue::finish_arm).
    pub(super) fn finish_arm(&mut self) -> Armed {
        if self.lane.wake.event().is_none() {
            return Armed::Unable;
        }
        let empty = self.consumer.as_mut().is_none_or(|consumer| consumer.peek(1).is_empty());
        if empty { Armed::Asleep } else { Armed::Ready }
    }

    pub(super) fn disarm(&mut self) {
        self.lane.wake.disarm();
    }

    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.lane.wake.event()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut free_ends = self.lane.lock();
        free_ends.consumer = self.consumer.take();
        free_ends.lent -= 1;
        free_ends.empty();
    }
}
