//! Requests about one ring, and starting, rebuilding and stopping rings.

use std::ops::Range;
use std::sync::Arc;

use linecard_virtio::{Features, Layout};
use linecard_wire::Message;
use linecard_wire::payload::{Payload, VringAddr, VringFd, VringState};

use super::inflight::StartPoint;
use super::request::{Answer, expect_fds};
use super::vring::{Start, Vring, check_size, device_config, layout_of, ring_memory, told_base};
use super::{Session, Slots};
use crate::datapath::{self, PathConfig, Records};
use crate::error::Refusal;
use crate::event::Event;
use crate::memory::MemoryMap;
use crate::peer::{ShownRing, tell};
use crate::slot::{Mode, Ring};

/// The warning about a packed ring whose position is lost, with a remedy for the user.
pub(super) const BEHIND: &str = "this packed ring was used beyond the position that the frontend starts it at (a backend ended while \
    the ring was in use), and does not tell how far; no packet may pass until the driver starts anew: reload it or restart \
    the guest. Split rings (QEMU: packed=off) survive a restart of any backend";

impl Session {
    fn index(&self, asked: u32) -> Result<usize, Refusal> {
        let rings = self.vrings.len();
        usize::try_from(asked)
            .ok()
            .filter(|index| *index < rings)
            .ok_or(Refusal::RingIndex { index: asked, rings })
    }

    fn vring(&mut self, asked: u32) -> Result<(usize, &mut Vring), Refusal> {
        let rings = self.vrings.len();
        let index = self.index(asked)?;
        self.vrings
            .get_mut(index)
            .map(|vring| (index, vring))
            .ok_or(Refusal::RingIndex { index: asked, rings })
    }

    /// Stops the rings `indices`, because the frontend sets `what` again. Refuses if one of them is enabled.
    ///
    /// A frontend has finished with a ring that is started and disabled: Cloud Hypervisor only disables the
    /// rings of a restarted guest, and configures them again.
    pub(super) fn make_idle(
        &mut self,
        indices: Range<usize>,
        what: &'static str,
        slots: &mut Slots<'_>,
    ) -> Result<(), Refusal> {
        let in_use = |vring: &Vring| vring.started && self.is_enabled(vring);
        if let Some(index) = indices.clone().find(|index| self.vrings.get(*index).is_some_and(in_use)) {
            return Err(Refusal::Running { what, index });
        }
        indices.for_each(|index| self.stop(index, slots));
        Ok(())
    }

    pub(super) fn set_vring_num(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let VringState { index, num } = VringState::from_bytes(&message.payload)?;
        let size = check_size(num)?;
        let (at, vring) = self.vring(index)?;
        if vring.size != Some(size) {
            self.make_idle(at..at + 1, "its size", slots)?;
        }
        self.vring(index)?.1.size = Some(size);
        Ok(Answer::None)
    }

    pub(super) fn set_vring_addr(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let addr = VringAddr::from_bytes(&message.payload)?;
        let index = self.index(addr.index)?;
        let layout = layout_of(self.features.unwrap_or_default());
        let (map, features) = (Arc::clone(&self.map), self.features);
        let (_, vring) = self.vring(addr.index)?;
        let changes = vring.addr != Some(addr);
        let areas = |addr: &VringAddr| (addr.desc, addr.avail, addr.used);
        let moves = vring.addr.as_ref().map(areas) != Some(areas(&addr));
        let size = vring.size.ok_or(Refusal::RingIncomplete { index, what: "size" })?;
        features.ok_or(Refusal::RingIncomplete { index, what: "features" })?;
        ring_memory(index, &addr, (layout, size), &map, self.translations.as_ref())?;
        self.check_logged_ring(&addr, layout, size)?;
        // If the areas of a disabled ring move, the driver has restarted and begins with new indices.
        if moves && !self.vrings.get(index).is_some_and(|vring| vring.started && self.is_enabled(vring)) {
            self.stop(index, slots);
        }
        self.vring(addr.index)?.1.addr = Some(addr);
        if changes {
            self.rebuild(index..index + 1, slots);
        }
        Ok(Answer::None)
    }

    pub(super) fn set_vring_base(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let VringState { index, num } = VringState::from_bytes(&message.payload)?;
        let split = layout_of(self.features.unwrap_or_default()) == Layout::Split;
        let (at, vring) = self.vring(index)?;
        if split && num > u32::from(u16::MAX) {
            return Err(Refusal::RingBase { asked: num, size: vring.size.unwrap_or(0) });
        }
        self.make_idle(at..at + 1, "its position", slots)?;
        self.vring(index)?.1.base = num;
        Ok(Answer::None)
    }

    /// Stops the ring, and answers with its position.
    pub(super) fn get_vring_base(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let asked = VringState::from_bytes(&message.payload)?;
        let index = self.index(asked.index)?;
        self.stop(index, slots);
        let (_, vring) = self.vring(asked.index)?;
        Ok(Answer::payload(&VringState { index: asked.index, num: vring.base }))
    }

    pub(super) fn set_vring_enable(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let VringState { index, num } = VringState::from_bytes(&message.payload)?;
        let (_, vring) = self.vring(index)?;
        vring.enabled = match num {
            0 => false,
            1 => true,
            _ => return Err(Refusal::Value { what: "enable", got: u64::from(num), max: 1 }),
        };
        self.apply_modes(slots);
        Ok(Answer::None)
    }

    /// Starts the ring, or replaces the kick descriptor of a running one.
    pub(super) fn set_vring_kick(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let (index, kick) = self.take_event(message)?;
        let running = self.vrings.get(index).is_some_and(|vring| vring.started);
        let source = kick.as_ref().map(Event::source);
        if !running {
            self.make_own_record(index);
            self.start(index, slots)?;
        }
        if let Some(ring) = slots.get(index).and_then(|slot| slot.ring.as_mut()) {
            ring.kicks = source.is_some();
        }
        if let Some(vring) = self.vrings.get_mut(index) {
            vring.started = true;
            vring.kick = kick;
        }
        self.peer.set_kick(index, source);
        Ok(Answer::None)
    }

    /// Builds the ring at the position that the frontend set, or defers that until its areas are translated.
    fn start(&mut self, index: usize, slots: &mut Slots<'_>) -> Result<(), Refusal> {
        match self.build(index, Start::AsTold)? {
            Some(ring) => {
                // DPDK sends half of a position. The full one is kept, which stays right when the ring wraps.
                let base = ring.path.base();
                self.vrings.get_mut(index).into_iter().for_each(|vring| vring.base = base);
                if let Some(slot) = slots.get(index) {
                    tell!(self.peer, info, ring = index, path = ring.path.name(), "ring started");
                    slot.ring = Some(ring);
                }
            }
            None => {
                tell!(self.peer, info, ring = index, "ring starts when its addresses are translated");
                if let Some(vring) = self.vrings.get_mut(index) {
                    vring.waits = Some((Start::AsTold, false));
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_vring_call(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let (index, event) = self.take_event(message)?;
        let event = event.map(Arc::new);
        if let Some(ring) = slots.get(index).and_then(|slot| slot.ring.as_mut()) {
            ring.call.clone_from(&event);
            // Buffers used before the driver could be notified must not go unnoticed.
            event.iter().for_each(|call| {
                call.signal_from_control();
            });
        }
        if let Some(vring) = self.vrings.get_mut(index) {
            vring.call = event;
        }
        Ok(Answer::None)
    }

    pub(super) fn set_vring_err(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let (index, event) = self.take_event(message)?;
        let event = event.map(Arc::new);
        if let Some(ring) = slots.get(index).and_then(|slot| slot.ring.as_mut()) {
            ring.error.clone_from(&event);
        }
        if let Some(vring) = self.vrings.get_mut(index) {
            vring.error = event;
        }
        Ok(Answer::None)
    }

    /// The ring of a descriptor, and the descriptor if there is one.
    fn take_event(&self, message: Message) -> Result<(usize, Option<Event>), Refusal> {
        let VringFd { index, has_fd } = VringFd::from_bytes(&message.payload)?;
        let index = self.index(u32::from(index))?;
        expect_fds(&message, usize::from(has_fd))?;
        match message.fds.into_iter().next() {
            None => Ok((index, None)),
            Some(fd) => Ok((
                index,
                Some(Event::accept(fd, &self.peer.signal_budget).ok_or(Refusal::NotAnEvent { index })?),
            )),
        }
    }

    /// Builds a ring from the settings of `index`. Returns `None` while its areas are not translated.
    fn build(&mut self, index: usize, start: Start) -> Result<Option<Ring>, Refusal> {
        let missing = |what| Refusal::RingIncomplete { index, what };
        let vring = self.vrings.get(index).ok_or(missing("place"))?;
        let features = self.features.ok_or(missing("features"))?;
        let addr = vring.addr.ok_or(missing("address"))?;
        let layout = layout_of(features);
        let size = layout.check_size(u32::from(vring.size.ok_or(missing("size"))?))?;
        let (map, translations) = (Arc::clone(&self.map), self.translations.as_ref());
        let Some(memory) = ring_memory(index, &addr, (layout, size), &map, translations)? else {
            return Ok(None);
        };
        let told = |base| StartPoint { base, taken: Vec::new() };
        let StartPoint { base, taken } = match start {
            Start::AsTold | Start::AfterKill => {
                let told = told(told_base(vring.base, layout, size, &memory)?);
                self.begin(index, told, start, (size, &memory))
            }
            Start::WhereItStood => told(vring.base),
        };
        let log = self.ring_log(&addr, (layout, size), &memory, &map);
        let inflight = self.ring_inflight(index, layout, size);
        let (window, visits) = self.window(index).unzip();
        let records = Records { log, inflight, window };
        let device = device_config(base, size, features);
        let config = PathConfig { memory, device, features, map, taken, records, visits };
        let path = datapath::build(index, config)?;
        let vring = self.vrings.get(index).ok_or(missing("place"))?;
        Ok(Some(Ring {
            path,
            mode: self.mode(index, vring),
            call: vring.call.clone(),
            error: vring.error.clone(),
            alarm: Arc::clone(&self.alarm),
            kicks: vring.kick.is_some(),
            faulted: false,
        }))
    }

    /// Rebuilds all started rings from their memory, after the process that used them was killed. Buffers
    /// that it had taken and not returned are still in the rings.
    ///
    /// # Errors
    /// A ring cannot be built.
    pub(super) fn find(&mut self, slots: &mut Slots<'_>) -> Result<(), Refusal> {
        for index in 0..self.vrings.len() {
            let Some(slot) = slots.get(index) else { continue };
            let Some(vring) = self.vrings.get_mut(index).filter(|vring| vring.started) else { continue };
            vring.stopped_at = None;
            let Some(ring) = self.build(index, Start::AfterKill)? else {
                self.vrings
                    .get_mut(index)
                    .into_iter()
                    .for_each(|vring| vring.waits = Some((Start::AfterKill, false)));
                continue;
            };
            // It is not known whether the driver was notified of the last used buffers.
            ring.call.iter().for_each(|call| {
                call.signal_from_control();
            });
            slot.ring = Some(ring);
        }
        Ok(())
    }

    /// Ends a ring and records its position.
    pub(super) fn stop(&mut self, index: usize, slots: &mut Slots<'_>) {
        let ring = slots.get(index).and_then(|slot| slot.ring.take());
        let Some(vring) = self.vrings.get_mut(index) else { return };
        if let Some(ring) = ring {
            tell!(self.peer, info, ring = index, "ring stopped");
            vring.base = ring.path.base();
            vring.stopped_at = Some(vring.base);
        }
        vring.started = false;
        vring.waits = None;
        self.translations.iter_mut().for_each(|translations| translations.forget_misses(index));
        vring.kick = None;
        self.peer.set_kick(index, None);
        if !self.vrings.iter().any(|vring| vring.started) {
            // A restarted driver may use other addresses, and no message announces that (QEMU 7.2).
            self.forget_translations();
        }
    }

    /// Replaces the memory map of running rings.
    pub(super) fn move_to(&mut self, map: Arc<MemoryMap>, slots: &mut Slots<'_>) {
        self.map = map;
        self.forget_translations();
        self.rebuild(0..self.vrings.len(), slots);
        self.warn_of_short_log();
    }

    /// Rebuilds the running rings among `indices` at their position, after a setting has changed that may
    /// change while packets flow. A ring that is no longer in shared memory stops.
    ///
    /// No buffer is in flight: a burst returns all buffers that it takes, and no poller is inside one.
    pub(super) fn rebuild(&mut self, indices: Range<usize>, slots: &mut Slots<'_>) {
        for index in indices {
            let Some(slot) = slots.get(index) else { continue };
            let Some(vring) = self.vrings.get_mut(index).filter(|vring| vring.started) else { continue };
            let (mut start, mut faulted) = vring.waits.take().unwrap_or((Start::WhereItStood, false));
            if let Some(ring) = slot.ring.take() {
                (start, faulted) = (Start::WhereItStood, ring.faulted);
                vring.base = ring.path.base();
            }
            // Misses noted so far belong to the old path.
            self.translations.iter_mut().for_each(|translations| translations.forget_misses(index));
            match self.build(index, start) {
                Ok(None) => {
                    if let Some(vring) = self.vrings.get_mut(index) {
                        vring.waits = Some((start, faulted));
                    }
                }
                Ok(Some(mut ring)) => {
                    ring.faulted = faulted;
                    // If the ring was waiting, the position that the frontend set may be half of one.
                    let base = ring.path.base();
                    self.vrings.get_mut(index).into_iter().for_each(|vring| vring.base = base);
                    // The old device half may have owed a notification; a spurious one is harmless.
                    ring.call.iter().for_each(|call| {
                        call.signal_from_control();
                    });
                    slot.ring = Some(ring);
                }
                Err(refusal) => self.lose(index, &refusal),
            }
        }
    }

    fn lose(&self, index: usize, refusal: &Refusal) {
        tell!(self.peer, warn, ring = index, %refusal, "ring lost its memory");
        self.peer.count_fault();
        if let Some(error) = self.vrings.get(index).and_then(|vring| vring.error.as_ref()) {
            error.signal_from_control();
        }
    }

    /// Without protocol features, a ring is enabled once it is started.
    fn is_enabled(&self, vring: &Vring) -> bool {
        let negotiated = self.features.is_some_and(|features| features.contains(Features::PROTOCOL_FEATURES));
        vring.enabled || !negotiated
    }

    /// The mode that the frontend requests for a ring.
    fn asked_mode(&self, vring: &Vring) -> Mode {
        match (self.driver_ok(), self.is_enabled(vring)) {
            (false, _) => Mode::Parked,
            (true, false) => Mode::Discard,
            (true, true) => Mode::Deliver,
        }
    }

    /// The same, unless the user has stopped the queue.
    fn mode(&self, index: usize, vring: &Vring) -> Mode {
        if self.peer.is_stopped(index) { Mode::Parked } else { self.asked_mode(vring) }
    }

    /// Applies the user's choice of stopped queues.
    pub(crate) fn follow_user(&self, slots: &mut Slots<'_>) {
        self.apply_modes(slots);
    }

    pub(super) fn apply_modes(&self, slots: &mut Slots<'_>) {
        for (index, vring) in self.vrings.iter().enumerate() {
            let mode = self.mode(index, vring);
            if let Some(ring) = slots.get(index).and_then(|slot| slot.ring.as_mut()) {
                ring.mode = mode;
            }
        }
    }

    /// Ends all rings after the connection has ended.
    pub(crate) fn end(&mut self, slots: &mut Slots<'_>) {
        for index in 0..self.vrings.len() {
            self.stop(index, slots);
            if let Some(slot) = slots.get(index) {
                slot.announce = None;
            }
        }
        self.map = MemoryMap::empty();
        self.tell_rings(slots);
    }

    /// Publishes link, paths and sizes. A queue that the user has stopped does not take the link down.
    pub(super) fn tell_rings(&self, slots: &mut Slots<'_>) {
        let mut delivering = Vec::new();
        let mut rings = Vec::new();
        for (index, vring) in self.vrings.iter().enumerate() {
            let Some(slot) = slots.get(index) else { return };
            let ring = slot.ring.as_ref().filter(|ring| !ring.faulted);
            delivering.push(ring.is_some_and(|_| self.asked_mode(vring) == Mode::Deliver));
            let size = vring.size.unwrap_or(0);
            rings.push(slot.ring.as_ref().map(|ring| ShownRing { path: ring.path.name(), size }));
        }
        let link = delivering.chunks(2).any(|pair| pair.iter().all(|on| *on));
        self.peer.set_rings(link, rings);
    }
}
