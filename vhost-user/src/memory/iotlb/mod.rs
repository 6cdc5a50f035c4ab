//! Translations of I/O virtual addresses (`VIRTIO_F_ACCESS_PLATFORM`): what an IOMMU in the guest lets the device reach.
//!
//! ```text
//!   I/O virtual address ──► IOTLB ──► user address ──► region ──► place in this process
//!   (descriptors, rings)    told by the frontend, each checked against the memory table when it is told
//! ```
//!
//! The frontend tells a translation (`UPDATE`) when it is asked for it (`MISS`, on the channel of `SET_BACKEND_REQ_FD`), and
//! takes it back (`INVALIDATE`); the answer to that comes once no ring uses it any more. A chain without a translation stays in
//! its ring: its poller notes what is missing and goes on, and the port's control thread asks.

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

/// What is asked for at once, and the least that an IOMMU translates.
pub(crate) const PAGE: u64 = 4096;

bitflags! {
    /// What a translation allows (`VHOST_ACCESS_*`, `linux/vhost_types.h`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Allowed: u8 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
    }
}

impl Allowed {
    /// What `access` needs.
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

/// One translation: the addresses from `first` to `last` lie here from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) start: NonNull<u8>,
    pub(crate) allowed: Allowed,
}

// SAFETY: plain addresses; whoever copies through them answers for their validity.
unsafe impl Send for Entry {}

impl Entry {
    /// What the frontend says, checked: one range that does not wrap, all of it in one region of `map`.
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

    /// Whether all that `other` says is said by this too.
    fn says(&self, other: &Self) -> bool {
        let ahead = other.first.wrapping_sub(self.first) as usize;
        (self.first..=self.last).contains(&other.first)
            && other.last <= self.last
            && self.start.as_ptr().wrapping_add(ahead) == other.start.as_ptr()
            && self.allowed == other.allowed
    }
}

/// The translations of one port, as its control thread keeps them.
pub(crate) struct Iotlb {
    entries: Vec<Entry>,
    table: Arc<Table>,
    /// The entry that went last, by number, to make room.
    evicted: usize,
}

impl Iotlb {
    /// Knows nothing yet; what it will be told leads into `map`.
    pub(crate) fn new(map: &Arc<MemoryMap>) -> Self {
        Self { entries: Vec::new(), table: Arc::new(Table::new(map)), evicted: 0 }
    }

    /// What rings look translations up in.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Whether there is no translation of that page which allows what it is wanted for.
    pub(crate) fn is_missing(&self, (page, access): Want) -> bool {
        self.table.find(page, 1, access) == Found::Missing
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes `entry` in, in the place of all that it overlaps with; whether that took away what rings may use.
    pub(crate) fn update(&mut self, entry: Entry) -> bool {
        let (from, to) = self.range(entry.first, entry.last);
        if self.entries.get(from).filter(|_| from < to).is_some_and(|known| known.says(&entry)) {
            return false;
        }
        self.entries.splice(from..to, [entry]);
        let (mut changed, mut lost) = (from, to > from);
        if self.entries.len() > MOST {
            // Nobody has taken this one back: rings may use it until the end of their burst, and others can be told anew.
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

    /// Forgets all that lies between `first` and `last`, also in part. Whoever looks for something sees that there was a change, also
    /// where there was nothing: it may have been asked for in vain.
    pub(crate) fn remove(&mut self, first: u64, last: u64) {
        let (from, to) = self.range(first, last);
        self.entries.drain(from..to);
        self.table.write(&self.entries, from);
        self.table.lost();
    }

    /// The entries that overlap with the addresses from `first` to `last`, by number.
    fn range(&self, first: u64, last: u64) -> (usize, usize) {
        let to = self.entries.partition_point(|entry| entry.first <= last);
        (self.position(first).min(to), to)
    }

    /// The first entry that does not end before `addr`.
    fn position(&self, addr: u64) -> usize {
        self.entries.partition_point(|entry| entry.last < addr)
    }
}

#[cfg(test)]
mod tests;
