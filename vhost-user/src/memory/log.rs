//! The dirty log of a live migration: a bit for each written page of guest memory (vhost-user, "Migration").

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use super::{MemoryMap, Region};

/// The size of a page in bytes (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;

/// A log in the frontend's memory, which the frontend reads and clears at any time.
pub(crate) struct DirtyLog {
    region: Region,
}

impl DirtyLog {
    /// Uses `region` as a log, whose first bit is for guest address 0.
    pub(crate) fn new(region: Region) -> Self {
        Self { region }
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    /// The first guest address without a bit.
    pub(crate) fn end(&self) -> u64 {
        self.region.spec.size.saturating_mul(8 * PAGE)
    }

    /// Whether every page of `map` has a bit.
    pub(crate) fn covers(&self, map: &MemoryMap) -> bool {
        map.end() <= self.end()
    }

    /// Marks `len` bytes from guest address `addr` on as written, after they were written. Returns whether a
    /// bit was newly set. Pages without a bit are ignored.
    ///
    /// Every bit is set by an atomic read-modify-write, even if it is set already: this orders it after the
    /// earlier writes, and a frontend that clears the bit at the same time copies the page afterwards.
    pub(crate) fn mark(&self, addr: u64, len: u64) -> bool {
        let Some(last) = len.checked_sub(1).and_then(|rest| addr.checked_add(rest)) else { return false };
        let mut news = false;
        for page in addr / PAGE..=last / PAGE {
            let Some(byte) = self.region.at(page / 8, 1) else { break };
            let bit = 1 << (page % 8);
            // SAFETY: `at` checked the byte, which stays mapped as long as the region; this process accesses
            // it only by atomic operations.
            let cell = unsafe { AtomicU8::from_ptr(byte.as_ptr()) };
            news |= cell.fetch_or(bit, SeqCst) & bit == 0;
        }
        news
    }
}
