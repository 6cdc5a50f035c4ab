//! The memory in use by all domains of one [`Memory`](super::Memory), and its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Usage;
use super::page::PageKind;
use crate::error::{Error, Result};

/// Counters; each is exact, but they are not consistent with each other.
#[derive(Debug)]
pub(super) struct Account {
    limit: Option<usize>,
    total: AtomicUsize,
    by_kind: [AtomicUsize; 4],
    zones: AtomicUsize,
    /// One bit for each kind of page that was ever used.
    seen: AtomicUsize,
}

impl Account {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            total: AtomicUsize::new(0),
            by_kind: Default::default(),
            zones: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
        }
    }

    /// Charges a segment, unless this exceeds the limit.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize, kind: PageKind) -> Result<Charge> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let grown = |total: usize| total.checked_add(bytes).filter(|total| *total <= limit);
        self.total.fetch_update(Relaxed, Relaxed, grown).map_err(|total| Error::Limit {
            asked: bytes,
            left: limit.saturating_sub(total),
            limit,
        })?;
        self.by_kind[kind.index()].fetch_add(bytes, Relaxed);
        Ok(Charge { account: Arc::clone(self), bytes, kind })
    }

    pub(super) fn zone_taken(&self, bytes: usize) {
        self.zones.fetch_add(bytes, Relaxed);
    }

    pub(super) fn zone_given(&self, bytes: usize) {
        self.zones.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn usage(&self) -> Usage {
        let kind = |kind: PageKind| self.by_kind[kind.index()].load(Relaxed);
        Usage {
            limit: self.limit,
            huge_1g: kind(PageKind::Huge1G),
            huge_2m: kind(PageKind::Huge2M),
            transparent: kind(PageKind::Transparent),
            small: kind(PageKind::Small),
            zones: self.zones.load(Relaxed),
        }
    }
}

/// The bytes of a segment, charged until dropped.
#[derive(Debug)]
pub(super) struct Charge {
    account: Arc<Account>,
    bytes: usize,
    kind: PageKind,
}

impl Charge {
    /// Whether this is the first call for this kind of page; used to log it once.
    pub(super) fn first_of_kind(&self) -> bool {
        let bit = 1 << self.kind.index();
        self.account.seen.fetch_or(bit, Relaxed) & bit == 0
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.by_kind[self.kind.index()].fetch_sub(self.bytes, Relaxed);
        self.account.total.fetch_sub(self.bytes, Relaxed);
    }
}
