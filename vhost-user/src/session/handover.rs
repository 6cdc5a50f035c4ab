//! Transfer of a session to a successor, or from a predecessor.
//!
//! It takes place between two requests and two bursts: every buffer taken from a ring has been returned, so
//! the ring's position describes it completely. The frontend's packets wait meanwhile; it notices nothing
//! else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use linecard_virtio::Features;
use linecard_wire::{Connection, PeerFd, ProtocolFeatures};

use super::snapshot::{
    Descriptor, RegionRecord, RingFlags, RingRecord, SessionFlags, SessionRecord, Snapshot,
};
use super::vring::{Start, Vring};
use super::{Session, Slots};
use crate::error::Refusal;
use crate::event::Event;
use crate::memory::{MemoryMap, Region};

/// Descriptors for a successor, numbered in their order. They remain the port's.
#[derive(Default)]
pub(crate) struct Left<'a>(pub(crate) Vec<BorrowedFd<'a>>);

impl<'a> Left<'a> {
    /// Adds `fd`. Returns the number assigned to it.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'a>) -> Descriptor {
        self.0.push(fd);
        Descriptor::try_from(self.0.len()).unwrap_or(Descriptor::MAX)
    }

    fn add_event(&mut self, event: Option<&'a Event>) -> Descriptor {
        event.map_or(0, |event| self.add(event.as_fd()))
    }

    /// Duplicates for a successor.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.0.iter().map(BorrowedFd::try_clone_to_owned).collect()
    }
}

/// Descriptors from a predecessor. Each can be taken once.
pub(crate) struct Taken<F>(Vec<Option<F>>);

impl<F> Taken<F> {
    pub(crate) fn new(fds: impl IntoIterator<Item = F>) -> Self {
        Self(fds.into_iter().map(Some).collect())
    }

    /// Takes the descriptor of this number; `None` for number 0.
    pub(crate) fn take(&mut self, number: Descriptor) -> Result<Option<F>, Refusal> {
        let missing = Refusal::Value { what: "descriptor", got: u64::from(number), max: self.0.len() as u64 };
        let Some(at) = number.checked_sub(1) else { return Ok(None) };
        self.0.get_mut(at as usize).and_then(Option::take).map(Some).ok_or(missing)
    }

    /// Converts each descriptor with `change`, and keeps the numbers.
    pub(crate) fn try_map<T, E>(self, change: impl Fn(F) -> Result<T, E>) -> Result<Taken<T>, E> {
        let changed: Result<_, E> = self.0.into_iter().map(|fd| fd.map(&change).transpose()).collect();
        changed.map(Taken)
    }
}

impl Session {
    /// The state that a successor needs. The session and its rings do not change.
    ///
    /// # Errors
    /// A region did not keep its descriptor.
    pub(crate) fn leave<'a>(&'a self, slots: &mut Slots<'_>, fds: &mut Left<'a>) -> io::Result<Snapshot> {
        let mut flags = SessionFlags::default();
        flags.set(SessionFlags::HAS_FEATURES, self.features.is_some());
        flags.set(SessionFlags::OWN_INFLIGHT, self.own_inflight);
        flags.set(SessionFlags::HAS_STATUS, self.status.is_some());
        let mut session = SessionRecord {
            flags,
            status: u32::from(self.status.unwrap_or(0)),
            features: self.features.unwrap_or_default().bits(),
            protocol: self.protocol.bits(),
            mtu: u32::from(self.peer.mtu().unwrap_or(0)),
            ..SessionRecord::default()
        };
        if let Some(log) = &self.log {
            session.set_log(log, file_of(log.region(), fds)?);
        }
        session.log_event = fds.add_event(self.log_event.as_deref());
        if let Some(inflight) = &self.inflight {
            session.set_inflight(inflight, file_of(&inflight.region, fds)?);
        }
        if let Some(channel) = &self.channel {
            session.channel = fds.add(channel.as_fd());
        }
        let mut regions = Vec::new();
        for region in self.map.regions() {
            regions.push(RegionRecord::new(&region.spec, file_of(region, fds)?));
        }
        let mut rings = Vec::new();
        for (index, vring) in self.vrings.iter().enumerate() {
            rings.push(leave_ring(index, vring, slots, fds));
        }
        Ok(Snapshot { session, rings, regions })
    }

    /// Adopts the state of a session that a predecessor holds, except its rings: they belong to the
    /// predecessor until [`start_rings`](Self::start_rings).
    ///
    /// # Errors
    /// The state contains something that this backend would have refused, or memory cannot be mapped. The
    /// session is unusable then.
    pub(crate) fn prepare(&mut self, snapshot: &Snapshot, fds: &mut Taken<PeerFd>) -> Result<(), Refusal> {
        let record = &snapshot.session;
        self.take_negotiated(record)?;
        if snapshot.rings.len() > self.vrings.len() {
            let index = u32::try_from(snapshot.rings.len()).unwrap_or(u32::MAX) - 1;
            return Err(Refusal::RingIndex { index, rings: self.vrings.len() });
        }
        let specs: Vec<_> = snapshot.regions.iter().map(RegionRecord::spec).collect();
        self.terms.limits.check(&specs)?;
        let mut regions = Vec::new();
        for region in &snapshot.regions {
            let none = Refusal::Value { what: "region without a descriptor, number", got: 0, max: 0 };
            regions.push(self.region(region.spec(), fds.take(region.file)?.ok_or(none)?)?);
        }
        for (index, ring) in snapshot.rings.iter().enumerate() {
            let vring = self.take_ring(index, ring, fds)?;
            if let Some(place) = self.vrings.get_mut(index) {
                *place = vring;
            }
        }
        if let Some(file) = fds.take(record.log)? {
            self.log = Some(Arc::new(self.log_in(record.log(), file)?));
        }
        if let Some(fd) = fds.take(record.log_event)? {
            let event = Event::accept(fd, &self.peer.signal_budget).ok_or(Refusal::NotALogEvent)?;
            self.log_event = Some(Arc::new(event));
        }
        if let Some(file) = fds.take(record.inflight)? {
            self.inflight = Some(Arc::new(self.inflight_in(record.inflight(), file)?));
            self.own_inflight = record.flags.contains(SessionFlags::OWN_INFLIGHT);
        }
        if let Some(fd) = fds.take(record.channel)? {
            self.channel = Some(Connection::adopt(fd).ok_or(Refusal::NotAChannel)?);
        }
        self.map = MemoryMap::new(regions);
        self.use_translations(self.features.unwrap_or_default());
        Ok(())
    }

    /// Builds the rings at the positions in the final `snapshot`. No thread polls the rings of either process
    /// yet.
    ///
    /// # Errors
    /// A ring cannot be built, or `snapshot` belongs to another session than `before`, which was
    /// [prepared](Self::prepare).
    pub(crate) fn start_rings(
        &mut self,
        before: &Snapshot,
        snapshot: &Snapshot,
        slots: &mut Slots<'_>,
    ) -> Result<(), Refusal> {
        let same = before.session == snapshot.session
            && before.regions == snapshot.regions
            && before.rings.len() == snapshot.rings.len()
            && before.rings.iter().zip(&snapshot.rings).all(|(before, ring)| before.is_same(ring));
        if !same {
            return Err(Refusal::Value { what: "change of a session that was held, count", got: 1, max: 0 });
        }
        for (vring, record) in self.vrings.iter_mut().zip(&snapshot.rings) {
            vring.base = record.base;
            let runs = record.has(RingFlags::RUNS);
            vring.waits = (record.has(RingFlags::STARTED) && !runs).then_some((Start::AsTold, false));
        }
        self.move_to(Arc::clone(&self.map), slots);
        for (index, record) in snapshot.rings.iter().enumerate() {
            let Some(slot) = slots.get(index) else { continue };
            let faulted = record.has(RingFlags::FAULTED);
            let waits = self.vrings.get_mut(index).and_then(|vring| vring.waits.as_mut());
            match (&mut slot.ring, waits) {
                (Some(ring), _) => ring.faulted = faulted,
                // Translations are not transferred: the frontend is asked for them again.
                (None, Some((_, waits_faulted))) => *waits_faulted = faulted,
                (None, None) if record.has(RingFlags::RUNS) => {
                    return Err(Refusal::RingIncomplete { index, what: "memory" });
                }
                (None, None) => {}
            }
        }
        self.take_rest(snapshot, slots);
        Ok(())
    }

    /// As [`start_rings`](Self::start_rings), without final positions: `snapshot` was stored some time before
    /// the predecessor was killed.
    ///
    /// # Errors
    /// A ring cannot be built.
    pub(crate) fn recover_rings(
        &mut self,
        snapshot: &Snapshot,
        slots: &mut Slots<'_>,
    ) -> Result<(), Refusal> {
        self.find(slots)?;
        self.warn_of_short_log();
        self.take_rest(snapshot, slots);
        Ok(())
    }

    /// Restores the remaining state of the rings: announcements and kick descriptors.
    fn take_rest(&self, snapshot: &Snapshot, slots: &mut Slots<'_>) {
        for (index, record) in snapshot.rings.iter().enumerate() {
            let Some(slot) = slots.get(index) else { continue };
            slot.announce = record.has(RingFlags::ANNOUNCES).then_some(record.announce);
            let kick = self.vrings.get(index).and_then(|vring| vring.kick.as_ref());
            self.peer.set_kick(index, kick.map(Event::source));
        }
        self.tell_peer(slots);
    }

    fn take_negotiated(&mut self, record: &SessionRecord) -> Result<(), Refusal> {
        let features = Features::from_bits_retain(record.features);
        let not_offered = features - self.terms.features;
        if !not_offered.is_empty() {
            return Err(Refusal::Features { not_offered });
        }
        let not_offered = record.protocol & !self.terms.protocol.bits();
        if not_offered != 0 {
            return Err(Refusal::ProtocolFeatures { not_offered });
        }
        let has = |flag| record.flags.contains(flag);
        let small = |what, got: u32, max: u32| {
            if got > max { Err(Refusal::Value { what, got: got.into(), max: max.into() }) } else { Ok(got) }
        };
        let status = small("status", record.status, 0xff)?;
        let mtu = small("MTU", record.mtu, 0xffff)?;
        self.features = has(SessionFlags::HAS_FEATURES).then_some(features);
        self.protocol = ProtocolFeatures::from_bits_retain(record.protocol);
        self.status = has(SessionFlags::HAS_STATUS).then_some(status as u8);
        self.peer.set_mtu(mtu as u16);
        Ok(())
    }

    fn take_ring(
        &self,
        index: usize,
        record: &RingRecord,
        fds: &mut Taken<PeerFd>,
    ) -> Result<Vring, Refusal> {
        let mut event = |number| match fds.take(number)? {
            None => Ok(None),
            Some(fd) => {
                Event::accept(fd, &self.peer.signal_budget).map(Some).ok_or(Refusal::NotAnEvent { index })
            }
        };
        let size = (record.size != 0).then(|| super::vring::check_size(record.size)).transpose()?;
        Ok(Vring {
            size,
            addr: record.addr(u32::try_from(index).unwrap_or(u32::MAX)),
            base: record.base,
            stopped_at: record.has(RingFlags::HAS_STOPPED_AT).then_some(record.stopped_at),
            started: record.has(RingFlags::STARTED),
            kick: event(record.kick)?,
            call: event(record.call)?.map(Arc::new),
            error: event(record.error)?.map(Arc::new),
            enabled: record.has(RingFlags::ENABLED),
            waits: None,
        })
    }
}

fn file_of<'a>(region: &'a Region, fds: &mut Left<'a>) -> io::Result<Descriptor> {
    Ok(fds.add(region.file().ok_or(io::ErrorKind::NotFound)?))
}

fn leave_ring<'a>(index: usize, vring: &'a Vring, slots: &mut Slots<'_>, fds: &mut Left<'a>) -> RingRecord {
    let mut record = RingRecord {
        size: u32::from(vring.size.unwrap_or(0)),
        base: vring.base,
        stopped_at: vring.stopped_at.unwrap_or(0),
        kick: fds.add_event(vring.kick.as_ref()),
        call: fds.add_event(vring.call.as_deref()),
        error: fds.add_event(vring.error.as_deref()),
        ..RingRecord::default()
    };
    if let Some(addr) = &vring.addr {
        record.set_addr(addr);
    }
    let slot = slots.get(index);
    let announce = slot.as_ref().and_then(|slot| slot.announce);
    record.announce = announce.unwrap_or_default();
    let ring = slot.and_then(|slot| slot.ring.as_ref());
    if let Some(ring) = ring {
        record.base = ring.path.base();
    }
    for (holds, flag) in [
        (vring.stopped_at.is_some(), RingFlags::HAS_STOPPED_AT),
        (vring.started, RingFlags::STARTED),
        (vring.enabled, RingFlags::ENABLED),
        (ring.is_some_and(|ring| ring.faulted), RingFlags::FAULTED),
        (ring.is_some(), RingFlags::RUNS),
        (announce.is_some(), RingFlags::ANNOUNCES),
    ] {
        record.flags.set(flag, holds);
    }
    record
}
