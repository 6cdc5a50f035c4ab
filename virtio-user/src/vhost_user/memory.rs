//! Sharing memory over the socket: as a table, or region by region.

use std::os::fd::BorrowedFd;

use linecard_eal::memory::Segment;
use linecard_wire::FrontendReq;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, SingleRegion};

use super::dialogue::Dialogue;
use crate::backend::MemoryUpdate;
use crate::error::Error;

fn region(segment: &Segment) -> MemoryRegion {
    let addr = segment.addr() as u64;
    MemoryRegion { guest_addr: addr, size: segment.len() as u64, user_addr: addr, offset: segment.offset() }
}

/// Shares all regions as one table.
pub(super) fn table(dialogue: &mut Dialogue, update: &MemoryUpdate<'_>) -> Result<(), Error> {
    let table = MemTable(update.all.iter().map(|segment| region(segment)).collect());
    let fds: Vec<BorrowedFd<'_>> = update.all.iter().map(|segment| segment.fd()).collect();
    dialogue.tell(FrontendReq::SET_MEM_TABLE, &table.to_bytes(), &fds)
}

/// Removes the regions that are gone, and adds the new ones.
pub(super) fn one_by_one(dialogue: &mut Dialogue, update: &MemoryUpdate<'_>) -> Result<(), Error> {
    for segment in update.gone {
        dialogue.tell(FrontendReq::REM_MEM_REG, &SingleRegion(region(segment)).to_bytes(), &[])?;
    }
    for segment in update.new {
        let payload = SingleRegion(region(segment)).to_bytes();
        dialogue.tell(FrontendReq::ADD_MEM_REG, &payload, &[segment.fd()])?;
    }
    Ok(())
}
