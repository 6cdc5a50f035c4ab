//! Requests about the peer's memory.

use std::sync::Arc;

use linecard_wire::Message;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, SingleRegion};

use super::{Answer, Session, Slots, expect_fds};
use crate::error::{Refusal, RegionError};
use crate::memory::{MemoryMap, Region};

impl Session {
    pub(super) fn set_mem_table(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let MemTable(specs) = MemTable::from_bytes(&message.payload)?;
        expect_fds(&message, specs.len())?;
        let alarm = self.watched.then_some(&self.alarm);
        let regions: Result<Vec<_>, _> = specs
            .into_iter()
            .zip(message.fds)
            .map(|(spec, file)| Region::map(spec, file, alarm).map(Arc::new))
            .collect();
        let map = MemoryMap::new(regions?, self.terms.limits)?;
        self.move_to(map, slots);
        Ok(Answer::Done)
    }

    pub(super) fn add_region(&mut self, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let SingleRegion(spec) = SingleRegion::from_bytes(&message.payload)?;
        expect_fds(&message, 1)?;
        let alarm = self.watched.then_some(&self.alarm);
        let mut regions = self.map.regions().to_vec();
        for file in message.fds {
            regions.push(Arc::new(Region::map(spec, file, alarm)?));
        }
        let map = MemoryMap::new(regions, self.terms.limits)?;
        self.move_to(map, slots);
        Ok(Answer::Done)
    }

    /// A descriptor may come along (QEMU sends one); it is closed.
    pub(super) fn remove_region(
        &mut self,
        message: Message,
        slots: &mut Slots<'_>,
    ) -> Result<Answer, Refusal> {
        let SingleRegion(spec) = SingleRegion::from_bytes(&message.payload)?;
        if message.fds.len() != 1 {
            expect_fds(&message, 0)?;
        }
        let same = |other: &MemoryRegion| {
            (other.guest_addr, other.user_addr, other.size) == (spec.guest_addr, spec.user_addr, spec.size)
        };
        let mut regions = self.map.regions().to_vec();
        let before = regions.len();
        regions.retain(|region| !same(&region.spec));
        if regions.len() == before {
            return Err(RegionError::Unknown { guest: spec.guest_addr }.into());
        }
        let map = MemoryMap::new(regions, self.terms.limits)?;
        self.move_to(map, slots);
        Ok(Answer::Done)
    }
}
