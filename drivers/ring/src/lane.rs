//! One direction of a ring port: a ring of packets whose two ends can be lent out and given back.
//!
//! ```text
//!   Sender ──► ring of owned packets ──► Receiver        both lent by the Direction to one queue each,
//!      └── dropped: home ─┐  ┌─ home: dropped ──┘        both at home: what is in between is freed
//!                         Direction
//! ```
//! A ring forgets what it holds when it goes; packets must not be forgotten. So no end is ever
//! dropped while packets can be in between: each goes back to the lane, and whenever one does and
//! nobody can receive, the lane empties the ring. With both ends at home the ring is empty.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_eal::wake::Wake;
use linecard_mempool::{Burst, Meta, Packet};
use linecard_ring::{Config, Single, spsc};

use linecard_pmd::wake::Armed;

/// An owned packet on its way: whoever takes it out of the ring owns it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PacketPointer(NonNull<Meta>);

// SAFETY: `Packet` is `Send`; a parcel is a packet that one thread put in and one will take out.
unsafe impl Send for PacketPointer {}

type Producer = spsc::Producer<PacketPointer>;
type Consumer = spsc::Consumer<PacketPointer>;

/// The ends that are at home, and how large the ring between them is.
#[derive(Default)]
struct FreeEnds {
    depth: usize,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    lent: u8,
}

/// One direction; shared by whoever may ask for an end.
#[derive(Default)]
pub(super) struct Direction {
    free_ends: Mutex<FreeEnds>,
    /// Wakes whoever sleeps at the receiving end.
    wake: Wake,
}

/// Why an end cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is lent already.
    InUse,
    /// There is no memory for a ring.
    Memory,
}

impl Direction {
    /// Lends the sending end. The first end that is lent decides the depth, from 1 on.
    pub(super) fn sender(self: &Arc<Self>, depth: u16) -> Result<Sender, Refusal> {
        let mut free_ends = self.prepare(depth)?;
        let producer = free_ends.producer.take().ok_or(Refusal::InUse)?;
        free_ends.lent += 1;
        Ok(Sender { producer: Some(producer), lane: Arc::clone(self) })
    }

    /// Lends the receiving end; as [`sender`](Self::sender).
    pub(super) fn receiver(self: &Arc<Self>, depth: u16) -> Result<Receiver, Refusal> {
        let mut free_ends = self.prepare(depth)?;
        let consumer = free_ends.consumer.take().ok_or(Refusal::InUse)?;
        free_ends.lent += 1;
        Ok(Receiver { consumer: Some(consumer), lane: Arc::clone(self) })
    }

    /// Makes the ring where both ends are at home and it is not yet as deep as asked.
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
        // Every change below is whole before anything can panic.
        self.free_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FreeEnds {
    /// Frees what is in the ring, if the receiving end is at home.
    fn empty(&mut self) {
        while let Some(PacketPointer(meta)) = self.consumer.as_ref().and_then(|consumer| consumer.dequeue()) {
            // SAFETY: `Sender::send` put the packet in and gave it up; taking it out makes it ours alone.
            drop(unsafe { Packet::from_raw(meta) });
        }
    }
}

/// The sending end, with one queue.
pub(super) struct Sender {
    /// There until drop.
    producer: Option<Producer>,
    lane: Arc<Direction>,
}

impl Sender {
    /// Moves packets from the front of `packets` into the ring; returns how many, and their bytes.
    #[inline]
    pub(super) fn send(&mut self, packets: &mut Burst) -> (usize, u64) {
        let Some(producer) = &mut self.producer else { return (0, 0) };
        let mut slots = producer.reserve(packets.len());
        let count = slots.len();
        // Before they are published: afterwards they belong to the receiver.
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

/// The receiving end, with one queue.
pub(super) struct Receiver {
    /// There until drop.
    consumer: Option<Consumer>,
    lane: Arc<Direction>,
}

impl Receiver {
    /// Moves packets from the ring behind those in `packets`, as many as there is room for; returns how
    /// many, and their bytes.
    #[inline]
    pub(super) fn receive(&mut self, packets: &mut Burst) -> (usize, u64) {
        let Some(consumer) = &self.consumer else { return (0, 0) };
        let before = packets.len();
        let spare = std::ptr::from_mut(packets.spare_mut()) as *mut [MaybeUninit<PacketPointer>];
        // SAFETY: as in `send`, the same layout; the spare part of the burst is borrowed for this call only.
        let count = consumer.dequeue_burst_uninit(unsafe { &mut *spare }).count;
        // SAFETY: the ring filled the first `count` spare places with packets that are ours now.
        unsafe { packets.set_len(before + count) };
        let bytes = packets[before..].iter().map(|packet| packet.len() as u64).sum();
        (count, bytes)
    }

    /// See [`RxQueue::arm`](linecard_pmd::RxQueue::arm).
    pub(super) fn arm(&mut self) -> Armed {
        if !self.lane.wake.arm() {
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
