//! Requests about the dirty log of a live migration.
//!
//! A frontend sets the log (`SET_LOG_BASE`), and enables it with `VHOST_F_LOG_ALL` for buffers and
//! `VHOST_VRING_F_LOG` for rings, all while packets flow. Each change selects another type for the rings'
//! paths (`datapath::Records`), so a ring that is not logged has no test for it.

use std::sync::Arc;

use linecard_virtio::{Features, Layout, RingMemory};
use linecard_wire::payload::{Log, Payload, VringAddr};
use linecard_wire::{Message, PeerFd};

use super::request::Answer;
use super::{Session, Slots};
use crate::datapath::RingLog;
use crate::error::Refusal;
use crate::event::Event;
use crate::memory::{DirtyLog, MemoryMap};
use crate::peer::tell;

/// The only flag of a ring address: the ring is logged.
pub(super) const VRING_F_LOG: u32 = 1;

impl Session {
    /// Sets the log. After the answer, every write is logged.
    pub(super) fn set_log_base(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let asked = Log::from_bytes(&message.payload)?;
        for file in message.fds {
            let log = self.log_in(asked, file)?;
            if !log.covers(&self.map) {
                return Err(Refusal::LogSize { end: log.end(), need: self.map.end() });
            }
            self.check_logged_rings(&log)?;
            self.log = Some(Arc::new(log));
        }
        self.rebuild(0..self.vrings.len(), slots);
        Ok(Answer::payload(&asked))
    }

    /// Maps a log from the frontend's file.
    pub(super) fn log_in(&self, place: Log, file: PeerFd) -> Result<DirtyLog, Refusal> {
        Ok(DirtyLog::new(self.map_file(place.size, place.offset, file)?))
    }

    pub(super) fn set_log_fd(&mut self, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        <()>::from_bytes(&message.payload)?;
        for fd in message.fds {
            self.log_event =
                Some(Arc::new(Event::accept(fd, &self.peer.signal_budget).ok_or(Refusal::NotALogEvent)?));
        }
        self.rebuild(0..self.vrings.len(), slots);
        Ok(Answer::None)
    }

    fn check_logged_rings(&self, log: &DirtyLog) -> Result<(), Refusal> {
        let layout = super::vring::layout_of(self.features.unwrap_or_default());
        for vring in &self.vrings {
            if let (Some(addr), Some(size), None) = (&vring.addr, vring.size, &self.translations) {
                check_logged(log, addr, layout, size)?;
            }
        }
        Ok(())
    }

    /// Checks that the log covers a ring to be logged.
    pub(super) fn check_logged_ring(
        &self,
        addr: &VringAddr,
        layout: Layout,
        size: u16,
    ) -> Result<(), Refusal> {
        // The areas of a translated ring are in guest memory, all of which the log covers.
        let log = self.log.as_ref().filter(|_| self.translations.is_none());
        log.map_or(Ok(()), |log| check_logged(log, addr, layout, size))
    }

    /// The log of a ring, if it is logged.
    pub(super) fn ring_log(
        &self,
        addr: &VringAddr,
        (layout, size): (Layout, u16),
        memory: &RingMemory,
        map: &Arc<MemoryMap>,
    ) -> Option<RingLog> {
        let log = self.log.as_ref()?;
        let buffers = self.features.is_some_and(|features| features.contains(Features::LOG_ALL));
        let mut ring = Vec::new();
        if addr.flags & VRING_F_LOG != 0 {
            let [descs, _, device] = layout.areas(size);
            // If addresses are translated, so is the address of the log. The location of the area gives its
            // guest address instead.
            let logged = match self.translations {
                None => Some(addr.log),
                Some(_) => map.guest_addr(memory.device.as_ptr()),
            };
            ring.extend(logged.map(|addr| (addr, device as u64)));
            // `log_guest_addr` is the address of the device area in either layout. A packed ring also has
            // writes to its descriptor area.
            if layout == Layout::Packed {
                ring.extend(map.guest_addr(memory.desc.as_ptr()).map(|addr| (addr, descs as u64)));
            }
        }
        if !buffers && ring.is_empty() {
            return None;
        }
        let (log, map, event) = (Arc::clone(log), Arc::clone(map), self.log_event.clone());
        Some(RingLog { log, map, buffers, ring, event })
    }

    /// Warns if the log no longer covers the memory: writes beyond it are not migrated.
    pub(super) fn warn_of_short_log(&self) {
        if self.log.as_ref().is_some_and(|log| !log.covers(&self.map)) {
            tell!(
                self.peer,
                warn,
                "the dirty log does not cover the memory that the frontend shares now; what is \
                written beyond it is lost to a migration: the frontend has to send a larger log first"
            );
        }
    }
}

fn check_logged(log: &DirtyLog, addr: &VringAddr, layout: Layout, size: u16) -> Result<(), Refusal> {
    let [_, _, device] = layout.areas(size);
    if addr.flags & VRING_F_LOG == 0 {
        return Ok(());
    }
    let need = addr.log.saturating_add(device as u64);
    if need > log.end() { Err(Refusal::LogSize { end: log.end(), need }) } else { Ok(()) }
}
