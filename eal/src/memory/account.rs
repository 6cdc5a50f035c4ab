//! What all domains of one [`Memory`](super::Memory) hold together, and the limit on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Usage;
use super::page::PageKind;
use crate::error::{Error, Result};

/// Counters; each is exact on its own.
#[derive(Debug)]
pub(super) struct Account {
    limit: Option<usize>,
    total: AtomicUsize,
    by_kind: [AtomicUsize; 4],
    zones: AtomicUsize,
    /// A bit for each kind of page that was ever used.
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

    /// Counts a segment, unless the limit forbids it.
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

/// A segment's bytes, counted as used until dropped.
#[derive(Debug)]
pub(super) struct Charge {
    account: Arc<Account>,
    bytes: usize,
    kind: PageKind,
}

impl Charge {
    /// Whether nothing of this kind was asked about before: said once, for the log.
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
