//! Requests about the peer's memory regions.

use std::os::fd::AsFd;
use std::sync::Arc;

use linecard_wire::payload::{MemTable, MemoryRegion, Payload, SingleRegion};
use linecard_wire::{Message, PeerFd};

use super::request::{Answer, expect_fds};
use super::{Session, Slots};
use crate::error::{Refusal, RegionError};
use crate::memory::{MemoryMap, Region};

impl Session {
    pub(super) fn get_max_mem_slots(
        &mut self,
        message: Message,
        _: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        <()>::from_bytes(&message.payload)?;
        Ok(Answer::payload(&u64::from(self.terms.limits.regions)))
    }

    pub(super) fn set_mem_table(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let MemTable(specs) = MemTable::from_bytes(&message.payload)?;
        expect_fds(&message, specs.len())?;
        // Checked before any region is mapped.
        self.terms.limits.check(&specs)?;
        let regions: Result<Vec<_>, _> =
            specs.into_iter().zip(message.fds).map(|(spec, file)| self.region(spec, file)).collect();
        let map = MemoryMap::new(regions?);
        self.move_to(map, slots);
        Ok(Answer::None)
    }

    /// Adds a region. A region that already exists is acknowledged: QEMU 7.2 has a vhost device for each
    /// queue pair, and each of them adds every region.
    pub(super) fn add_region(&mut self, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let SingleRegion(spec) = SingleRegion::from_bytes(&message.payload)?;
        let mut regions = self.map.regions().to_vec();
        for file in message.fds {
            if regions.iter().any(|known| known.is(&spec, &file)) {
                return Ok(Answer::None);
            }
            let all: Vec<_> = regions.iter().map(|known| known.spec).chain([spec]).collect();
            self.terms.limits.check(&all)?;
            regions.push(self.region(spec, file)?);
        }
        let map = MemoryMap::new(regions);
        self.move_to(map, slots);
        Ok(Answer::None)
    }

    /// Removes a region. A region that does not exist is acknowledged: each vhost device of QEMU 7.2 removes
    /// every region, and the first may have added another in its place by then. A descriptor may accompany
    /// the request (QEMU sends one); it is closed.
    pub(super) fn remove_region(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let SingleRegion(spec) = SingleRegion::from_bytes(&message.payload)?;
        let same = |other: &MemoryRegion| {
            (other.guest_addr, other.user_addr, other.size) == (spec.guest_addr, spec.user_addr, spec.size)
        };
        let mut regions = self.map.regions().to_vec();
        let before = regions.len();
        regions.retain(|region| !same(&region.spec));
        if regions.len() == before {
            return Ok(Answer::None);
        }
        let map = MemoryMap::new(regions);
        self.move_to(map, slots);
        Ok(Answer::None)
    }

    /// Maps the region that the peer describes, or returns the mapping of an identical region.
    pub(super) fn region(&self, spec: MemoryRegion, file: PeerFd) -> Result<Arc<Region>, RegionError> {
        match self.map.regions().iter().find(|region| region.is(&spec, &file)) {
            Some(region) => Ok(Arc::clone(region)),
            None => {
                let alarm = self.watched.then_some(&self.alarm);
                let map = if self.terms.trusted_memory { Region::map_trusted } else { Region::map };
                let region = map(spec, file.as_fd(), alarm, &self.ledger)?;
                Ok(Arc::new(if self.terms.hand_over { region.keeping(file) } else { region }))
            }
        }
    }
}
