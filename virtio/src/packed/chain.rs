//! Collecting one chain of a packed ring, of any shape: the device's cold path.

use super::ring::{Ring, RingPosition, phase_of};
use crate::fault::PeerFault;
use crate::layout::{F_INDIRECT, F_NEXT, F_WRITE};
use crate::queue::{DeviceMemory, Head};
use crate::segments::SegList;
use crate::sync::{Acquire, Relaxed};
use crate::walk::{Desc, Stop, Walk};

/// Collects the chain whose head is at `place`, with the second word `first`, and occupies at most `room`
/// slots. Every descriptor is read once.
pub(super) fn follow<M: DeviceMemory, const WRITABLE: bool>(
    ring: &Ring,
    memory: &M,
    (mut place, first): (RingPosition, u64),
    room: u16,
    indirect: bool,
    out: &mut SegList,
) -> Result<Head, Stop> {
    let mut walk = Walk::<M, WRITABLE>::new(memory, out, ring.size());
    let (mut meta, mut descs) = (first, 0u16);
    loop {
        let [addr, _] = ring.desc(place);
        let desc = Desc::new(addr.load(Relaxed), meta);
        let (id, flags) = desc.packed();
        if descs == room {
            return Err(PeerFault::ChainTooLong { max: room }.into());
        }
        descs += 1;
        if walk.cuts() {
            // The number of its slots is needed even if its memory is not.
            walk.skip()?;
        } else if flags & F_INDIRECT != 0 {
            follow_table(&mut walk, desc, flags, indirect)?;
        } else {
            walk.buffer(desc, flags, place.slot())?;
        }
        // An indirect descriptor with NEXT was refused above.
        if flags & F_NEXT == 0 {
            // The id in the last descriptor is the valid one (virtio 1.3, packed: Next Flag: Descriptor
            // Chaining).
            return Ok(Head { id, descs, len: walk.bytes() });
        }
        place = place.next(ring.size());
        meta = ring.desc(place)[1].load(Acquire);
        if phase_of(meta) != place.available() {
            return Err(PeerFault::ChainIncomplete { slot: place.slot() }.into());
        }
    }
}

/// Collects all entries of an indirect table, in order. Only their flag WRITE is used.
///
/// In a table that the device reads, WRITE is ignored too: DPDK's driver sets it in all entries (22.11), and
/// DPDK's backend reads them. This is safe: the memory is the driver's, and the device only reads it.
fn follow_table<M: DeviceMemory, const WRITABLE: bool>(
    walk: &mut Walk<'_, M, WRITABLE>,
    desc: Desc,
    flags: u16,
    allowed: bool,
) -> Result<(), Stop> {
    let table = walk.table(desc, flags, allowed)?;
    for index in 0..table.entries {
        if walk.cuts() {
            break;
        }
        let entry = walk.entry(&table, index)?;
        let flags = entry.packed().1;
        walk.buffer(entry, if WRITABLE { flags } else { flags & !F_WRITE }, index)?;
    }
    Ok(())
}
