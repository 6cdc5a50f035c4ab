//! Requests about the inflight region, which outlives a backend: see [`crate::memory::Inflight`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linecard_virtio::{Features, Layout, RingMemory, Used, packed};
use linecard_wire::payload::{Inflight as Description, Payload};
use linecard_wire::{Message, PeerFd};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use super::request::Answer;
use super::vring::{Start, layout_of};
use super::{Session, Slots};
use crate::error::Refusal;
use crate::memory::{Inflight, Region, RingInflight, region_len};
use crate::peer::tell;

/// A region created by this backend, and its length.
pub(super) struct CreatedRegion {
    file: Arc<PeerFd>,
    len: u64,
}

/// The position at which a ring starts.
pub(super) struct StartPoint {
    pub(super) base: u32,
    /// Buffers that a predecessor had taken, beginning at `base`.
    pub(super) taken: Vec<Used>,
}

impl Session {
    /// Creates a region. A session has at most one, which is cleared each time that it is requested: a
    /// frontend may keep it as long as it likes and request it as often as it likes.
    pub(super) fn get_inflight_fd(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let asked = Description::from_bytes(&message.payload)?;
        self.check_inflight(&asked)?;
        // The features, and with them the layout, may not be negotiated yet.
        let layout = self.features.map_or(Layout::Packed, layout_of);
        let len = region_len(layout, asked.queues, asked.queue_size);
        let failed = |source: rustix::io::Errno| Refusal::InflightFile { source: source.into() };
        let made = match self.inflight_made.take().filter(|made| made.len == len) {
            Some(made) => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&*made.file, hole, 0, len).map_err(failed)?;
                made
            }
            None => CreatedRegion { file: Arc::new(self.charged(memfd(len).map_err(failed)?)?), len },
        };
        let file = Arc::clone(&made.file);
        self.inflight_made = Some(made);
        let mut answer = Description { mmap_size: len, mmap_offset: 0, ..asked }.to_bytes();
        // QEMU's structure has 20 bytes, an unpacked one has 24. A frontend expects as many as it sends.
        answer.resize(message.payload.len(), 0);
        Ok(Answer::Now(answer, vec![file]))
    }

    /// Sets the region, with a predecessor's records or a new one. It applies to rings started afterwards.
    pub(super) fn set_inflight_fd(&mut self, message: Message, _: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let asked = Description::from_bytes(&message.payload)?;
        self.check_inflight(&asked)?;
        let need = region_len(Layout::Split, asked.queues, asked.queue_size);
        if asked.mmap_size < need {
            return Err(Refusal::InflightSize { got: asked.mmap_size, need });
        }
        for file in message.fds {
            self.inflight = Some(Arc::new(self.inflight_in(asked, file)?));
            self.own_inflight = false;
        }
        Ok(Answer::None)
    }

    /// Creates a region without a request of the frontend, if ring `index` does not show its position. If
    /// that fails, the ring still runs, but no process can continue with it after a crash.
    pub(super) fn make_own_record(&mut self, index: usize) {
        if !self.terms.records || self.inflight.is_some() || self.tells_itself(index) {
            return;
        }
        // Pages of rings that are not recorded are never allocated.
        let queues = u16::try_from(self.vrings.len()).unwrap_or(u16::MAX);
        let queue_size = linecard_virtio::layout::MAX_SIZE;
        let len = region_len(Layout::Packed, queues, queue_size);
        let place = Description { mmap_size: len, mmap_offset: 0, queues, queue_size };
        let made = memfd(len)
            .map_err(|source| Refusal::InflightFile { source: source.into() })
            .and_then(|file| self.charged(file))
            .and_then(|file| self.inflight_in(place, file));
        match made {
            Ok(inflight) => (self.inflight, self.own_inflight) = (Some(Arc::new(inflight)), true),
            Err(refusal) => tell!(self.peer, warn, ring = index, %refusal, "the ring is not recorded"),
        }
    }

    /// Charges a descriptor that this backend has made for the frontend.
    fn charged(&self, file: OwnedFd) -> Result<PeerFd, Refusal> {
        self.ledger.closer.adopt(file).map_err(|limit| Refusal::Memory(limit.into()))
    }

    /// Whether ring `index` shows its own position. A packed in-order ring does not, if the device writes
    /// batches of used descriptors.
    fn tells_itself(&self, index: usize) -> bool {
        let batches = Features::RING_PACKED | Features::IN_ORDER;
        index.is_multiple_of(2) || !self.features.is_some_and(|features| features.contains(batches))
    }

    fn check_inflight(&self, asked: &Description) -> Result<(), Refusal> {
        let (rings, most) = (self.vrings.len() as u64, u64::from(linecard_virtio::layout::MAX_SIZE));
        for (what, got, max) in [
            ("queues of an inflight region", asked.queues, rings),
            ("size of a queue in an inflight region", asked.queue_size, most),
        ] {
            if got == 0 || u64::from(got) > max {
                return Err(Refusal::Value { what, got: got.into(), max });
            }
        }
        Ok(())
    }

    /// Maps an inflight region from the frontend's file.
    pub(super) fn inflight_in(&self, place: Description, file: PeerFd) -> Result<Inflight, Refusal> {
        let Description { mmap_size, mmap_offset, queues, queue_size } = place;
        let region = self.map_file(mmap_size, mmap_offset, file)?;
        Ok(Inflight { region, queues, queue_size })
    }

    /// Maps memory that belongs to the frontend but not to its guest.
    pub(super) fn map_file(&self, size: u64, offset: u64, file: PeerFd) -> Result<Region, Refusal> {
        let spec = linecard_wire::payload::MemoryRegion { guest_addr: 0, size, user_addr: 0, offset };
        let alarm = self.watched.then_some(&self.alarm);
        let region = Region::map(spec, file.as_fd(), alarm, &self.ledger)?;
        Ok(if self.terms.hand_over { region.keeping(file) } else { region })
    }

    /// The record of ring `index`, if there is one.
    pub(super) fn ring_inflight(&self, index: usize, layout: Layout, size: u16) -> Option<RingInflight> {
        if self.own_inflight && self.tells_itself(index) {
            return None;
        }
        RingInflight::of(self.inflight.as_ref()?, index, layout, size)
    }

    /// The position at which a starting ring begins: the one that the frontend set, unless the ring has been
    /// used beyond it. The frontend may not know that, if a backend ended without notice; then the ring or
    /// its record shows the position.
    pub(super) fn begin(
        &self,
        index: usize,
        told: StartPoint,
        start: Start,
        (size, memory): (u16, &RingMemory),
    ) -> StartPoint {
        let features = self.features.unwrap_or_default();
        let layout = layout_of(features);
        let record = self.ring_inflight(index, layout, size);
        let recorded = record.as_ref().and_then(|record| record.position(memory));
        let stopped_here = self.vrings.get(index).is_some_and(|vring| vring.stopped_at == Some(vring.base));
        let begin = match (layout, recorded) {
            (_, Some(position)) if !position.taken.is_empty() => {
                let given_back = position.taken.len();
                tell!(
                    self.peer,
                    warn,
                    ring = index,
                    given_back,
                    "the last backend had taken buffers out of order; \
                    they are given back as they are"
                );
                StartPoint { base: position.base, taken: position.taken }
            }
            (Layout::Packed, recorded) if !stopped_here => {
                let recorded = recorded.map(|position| position.base);
                let is_past = start == Start::AfterKill || super::vring::ran_past(told.base, size, memory);
                if is_past { self.begin_packed(index, told, recorded, (size, memory)) } else { told }
            }
            _ => told,
        };
        if let Some(record) = record {
            record.begin(begin.base);
        }
        begin
    }

    /// The same for a packed ring, whose set position is out of date. Usually the flags of its descriptors
    /// show that, but not always: after a batch that began in the last slot, slot 0 looks as in the first
    /// lap. The flags also show the current position, unless buffers were used in batches, whose end leaves
    /// no trace. `recorded` is a predecessor's position at the end of a burst.
    fn begin_packed(
        &self,
        index: usize,
        told: StartPoint,
        recorded: Option<u32>,
        (size, memory): (u16, &RingMemory),
    ) -> StartPoint {
        let (in_order, writable) =
            (self.features.is_some_and(|f| f.contains(Features::IN_ORDER)), index.is_multiple_of(2));
        let shown = if in_order && !writable { None } else { packed::recover(memory, size, writable) };
        let Some(base) = shown.or(recorded) else {
            if super::vring::ran_past(told.base, size, memory) {
                tell!(self.peer, warn, ring = index, "{}", super::rings::BEHIND);
            }
            return told;
        };
        if base != told.base {
            let (told, stands) = (format!("{:#x}", told.base), format!("{base:#x}"));
            tell!(
                self.peer,
                info,
                ring = index,
                told,
                stands,
                "packed ring resumed where the last backend left it"
            );
        }
        StartPoint { base, taken: Vec::new() }
    }
}

/// Creates a file of zeros whose length cannot be changed.
fn memfd(len: u64) -> rustix::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("inflight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, len)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}
