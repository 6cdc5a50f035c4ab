//! The IOTLB: translations of I/O virtual addresses (`VIRTIO_F_ACCESS_PLATFORM`), by which the guest's IOMMU
//! limits the device's access.
//!
//! ```text
//!   I/O virtual address ──► IOTLB ──► user address ──► region ──► place in this process
//!   (descriptors, rings)    sent by the frontend, each checked against the memory table when it is added
//! ```
//!
//! The frontend sends a translation (`UPDATE`) after a request (`MISS`, on the channel of
//! `SET_BACKEND_REQ_FD`), and removes it with `INVALIDATE`, which is answered once no ring uses it any more.
//! A chain without a translation stays in its ring: the poller notes the miss and continues, and the port's
//! control thread sends the request.

mod table;
mod window;

use std::ptr::NonNull;
use std::sync::Arc;

use bitflags::bitflags;
use linecard_virtio::Access;
use linecard_wire::payload::IotlbMessage;

use super::MemoryMap;
use crate::error::Refusal;
pub(crate) use table::{Found, MOST, Table};
pub(crate) use window::{AHEAD, Misses, Prefetch, Want, Window};

/// The granularity of requests, and the smallest page that an IOMMU translates.
pub(crate) const PAGE: u64 = 4096;

bitflags! {
    /// The access that a translation allows (`VHOST_ACCESS_*`, `linux/vhost_types.h`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Allowed: u8 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
    }
}

impl Allowed {
    /// The permission that `access` needs.
    pub(crate) const fn to(access: Access) -> Self {
        match access {
            Access::Read => Self::READ,
            Access::Write => Self::WRITE,
        }
    }

    fn of_word(word: u64) -> Self {
        Self::from_bits_truncate(word.to_le_bytes()[0])
    }
}

/// One translation: the addresses from `first` to `last` are mapped in this process from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) start: NonNull<u8>,
    pub(crate) allowed: Allowed,
}

// SAFETY: plain addresses; code that accesses memory through them ensures that they are valid.
unsafe impl Send for Entry {}

impl Entry {
    /// Checks a translation from the frontend: one range that does not wrap, inside one region of `map`.
    ///
    /// # Errors
    /// [`Refusal::Translation`].
    pub(crate) fn new(told: &IotlbMessage, map: &MemoryMap) -> Result<Self, Refusal> {
        let IotlbMessage { iova, size, user_addr, access, .. } = *told;
        let refused = |problem| Refusal::Translation { iova, size, problem };
        let last = size.checked_sub(1).ok_or(refused("it has no bytes"))?;
        let last = iova.checked_add(last).ok_or(refused("it goes beyond the last address"))?;
        let allowed = Allowed::from_bits(access).filter(|allowed| !allowed.is_empty());
        let allowed = allowed.ok_or(refused("it allows neither reading nor writing"))?;
        let start =
            map.translate_user(user_addr, size).ok_or(refused("it leads outside of the shared memory"))?;
        Ok(Self { first: iova, last, start, allowed })
    }

    /// Whether this translation includes `other`.
    fn says(&self, other: &Self) -> bool {
        let ahead = other.first.wrapping_sub(self.first) as usize;
        (self.first..=self.last).contains(&other.first)
            && other.last <= self.last
            && self.start.as_ptr().wrapping_add(ahead) == other.start.as_ptr()
            && self.allowed == other.allowed
    }
}

/// The translations of one port, as modified by its control thread.
pub(crate) struct Iotlb {
    entries: Vec<Entry>,
    table: Arc<Table>,
    /// The index of the entry that was last removed to make room.
    evicted: usize,
}

impl Iotlb {
    /// An empty set of translations, all of which will lead into `map`.
    pub(crate) fn new(map: &Arc<MemoryMap>) -> Self {
        Self { entries: Vec::new(), table: Arc::new(Table::new(map)), evicted: 0 }
    }

    /// The table in which rings look up translations.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Whether there is no translation of this page that allows the access.
    pub(crate) fn is_missing(&self, (page, access): Want) -> bool {
        self.table.find(page, 1, access) == Found::Missing
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds `entry`, and removes all entries that it overlaps with. Returns whether that removed translations
    /// that rings may use.
    pub(crate) fn update(&mut self, entry: Entry) -> bool {
        let (from, to) = self.range(entry.first, entry.last);
        if self.entries.get(from).filter(|_| from < to).is_some_and(|known| known.says(&entry)) {
            return false;
        }
        self.entries.splice(from..to, [entry]);
        let (mut changed, mut lost) = (from, to > from);
        if self.entries.len() > MOST {
            // No message removed this entry: rings may use it until the end of their burst, and it can be
            // requested again.
            let next = |at| (at + 1) % self.entries.len();
            self.evicted = next(self.evicted);
            if self.evicted == from {
                self.evicted = next(self.evicted);
            }
            self.entries.remove(self.evicted);
            (changed, lost) = (changed.min(self.evicted), true);
        }
        self.table.write(&self.entries, changed);
        if lost {
            self.table.lost();
        }
        to > from
    }

    /// Removes all entries that overlap with the range from `first` to `last`. Readers see a change even if
    /// there was none, because a poller may have requested a translation in vain.
    pub(crate) fn remove(&mut self, first: u64, last: u64) {
        let (from, to) = self.range(first, last);
        self.entries.drain(from..to);
        self.table.write(&self.entries, from);
        self.table.lost();
    }

    /// The indices of the entries that overlap with the range from `first` to `last`.
    fn range(&self, first: u64, last: u64) -> (usize, usize) {
        let to = self.entries.partition_point(|entry| entry.first <= last);
        (self.position(first).min(to), to)
    }

    /// The index of the first entry that does not end before `addr`.
    fn position(&self, addr: u64) -> usize {
        self.entries.partition_point(|entry| entry.last < addr)
    }
}

#[cfg(test)]
mod tests;
