//! The dirty log of a migration: a bit for each page of guest memory that was written (vhost-user, "Migration").

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use super::{MemoryMap, Region};

/// Bytes of a page (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;

/// A log in memory of the frontend's, which reads and clears it at any time.
pub(crate) struct DirtyLog {
    region: Region,
}

impl DirtyLog {
    /// A log whose bits lie in `region`: guest address 0 is its first one.
    pub(crate) fn new(region: Region) -> Self {
        Self { region }
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    /// The first guest address that has no bit.
    pub(crate) fn end(&self) -> u64 {
        self.region.spec.size.saturating_mul(8 * PAGE)
    }

    /// Whether every page of `map` has a bit.
    pub(crate) fn covers(&self, map: &MemoryMap) -> bool {
        map.end() <= self.end()
    }

    /// Notes that `len` bytes from guest address `addr` on were written: after they were. Whether that is news. Pages without
    /// a bit are left out.
    ///
    /// Every bit is set by a read-modify-write, also one that is set already: it orders what was written before it, and a
    /// frontend that clears the bit at this moment copies the page afterwards.
    pub(crate) fn mark(&self, addr: u64, len: u64) -> bool {
        let Some(last) = len.checked_sub(1).and_then(|rest| addr.checked_add(rest)) else { return false };
        let mut news = false;
        for page in addr / PAGE..=last / PAGE {
            let Some(byte) = self.region.at(page / 8, 1) else { break };
            let bit = 1 << (page % 8);
            // SAFETY: `at` checked the byte, which is mapped as long as the region is; this process accesses it by atomic
            // operations alone.
            let cell = unsafe { AtomicU8::from_ptr(byte.as_ptr()) };
            news |= cell.fetch_or(bit, SeqCst) & bit == 0;
        }
        news
    }
}
