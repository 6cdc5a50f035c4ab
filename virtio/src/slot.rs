//! What a driver half remembers of each buffer it lent, in private memory.

use crate::config::IndirectTables;
use crate::fault::PeerFault;
use crate::queue::Segment;
use crate::sync::Relaxed;

/// One buffer in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The caller's token.
    pub(crate) token: u64,
    /// Bytes lent.
    pub(crate) lent: u32,
    /// Ring slots it occupies; 0 when nothing is in flight under this id.
    pub(crate) descs: u32,
}

impl Slot {
    /// Nothing in flight.
    pub(crate) const FREE: Slot = Slot { token: 0, lent: 0, descs: 0 };
}

/// Bytes of a chain; `None` when there are no segments or more than 2³² − 1 bytes.
pub(crate) fn total(segments: &[Segment]) -> Option<u32> {
    if segments.is_empty() {
        return None;
    }
    segments.iter().try_fold(0u32, |sum, s| sum.checked_add(s.len))
}

/// A fault is reported when it is the next thing to report; what came before it goes out first.
#[cold]
#[inline(never)]
pub(crate) fn stop(done: usize, fault: PeerFault) -> Result<usize, PeerFault> {
    if done > 0 { Ok(done) } else { Err(fault) }
}

impl IndirectTables {
    /// Writes descriptor `index` of all tables.
    pub(crate) fn write(&self, index: usize, addr: u64, meta: u64) {
        let Some(cells) = self.memory.cells::<u64>(index * 16, 2) else {
            debug_assert!(false, "indirect table entry {index} outside the memory checked at start");
            return;
        };
        for (k, word) in [addr, meta].into_iter().enumerate() {
            if let Some(cell) = cells.at(k) {
                cell.store(word, Relaxed);
            }
        }
    }
}
