//! Collecting one chain of a split ring, of any shape: the device's cold path.

use super::ring::Ring;
use crate::fault::PeerFault;
use crate::layout::{F_INDIRECT, F_NEXT};
use crate::queue::{DeviceMemory, Head};
use crate::segments::SegList;
use crate::walk::{Desc, Stop, Walk};

/// Collects the chain that starts at `head` into `out`. Every descriptor is read once.
pub(super) fn follow<M: DeviceMemory, const WRITABLE: bool>(
    ring: &Ring,
    memory: &M,
    head: u16,
    indirect: bool,
    out: &mut SegList,
) -> Result<Head, Stop> {
    let size = ring.size();
    let mut walk = Walk::<M, WRITABLE>::new(memory, out, size);
    let (mut index, mut descs) = (head, 0u16);
    loop {
        let cells = ring.desc(index).ok_or(PeerFault::DescOutOfRange { index, size })?;
        let desc = Desc::load(cells);
        let (flags, next) = desc.split();
        // This is bounded: `walk` refuses more than `size` descriptors, and an indirect one ends the chain.
        descs = descs.saturating_add(1);
        if flags & F_INDIRECT != 0 {
            follow_table(&mut walk, desc, indirect)?;
            break;
        }
        walk.buffer(desc, flags, index)?;
        if flags & F_NEXT == 0 || walk.cuts() {
            break;
        }
        index = next;
    }
    Ok(Head { id: head, descs, len: walk.bytes() })
}

/// Collects the chain inside an indirect table, from entry 0 on along NEXT.
fn follow_table<M: DeviceMemory, const WRITABLE: bool>(
    walk: &mut Walk<'_, M, WRITABLE>,
    desc: Desc,
    allowed: bool,
) -> Result<(), Stop> {
    let table = walk.table(desc, desc.split().0, allowed)?;
    let mut index = 0;
    loop {
        if index >= table.entries {
            return Err(PeerFault::DescOutOfRange { index, size: table.entries }.into());
        }
        let entry = walk.entry(&table, index)?;
        let (flags, next) = entry.split();
        if flags & F_INDIRECT != 0 {
            return Err(PeerFault::BadIndirect { len: entry.len(), flags }.into());
        }
        walk.buffer(entry, flags, index)?;
        if flags & F_NEXT == 0 || walk.cuts() {
            return Ok(());
        }
        index = next;
    }
}
