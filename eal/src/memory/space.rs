//! First-fit allocation of ranges, as pure arithmetic: it places zones in a segment and segments in a domain.

use std::collections::BTreeMap;

/// Free ranges by start; neighbours are always merged.
#[derive(Debug, Default)]
pub(super) struct Space {
    free: BTreeMap<usize, usize>,
}

impl Space {
    /// All of `start .. start + len`.
    pub(super) fn new(start: usize, len: usize) -> Self {
        Self { free: BTreeMap::from([(start, len)]) }
    }

    /// The lowest `len` bytes at a multiple of `align` (a power of two), no longer free.
    pub(super) fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        let (start, end, at) = self.free.iter().find_map(|(&start, &size)| {
            let end = start + size;
            let at = start.checked_next_multiple_of(align)?;
            (at.checked_add(len)? <= end).then_some((start, end, at))
        })?;
        self.free.remove(&start);
        self.insert(start, at - start);
        self.insert(at + len, end - at - len);
        Some(at)
    }

    /// Frees what [`take`](Self::take) gave, merging it with its free neighbours.
    pub(super) fn give(&mut self, mut start: usize, mut len: usize) {
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            start = before;
            len += size;
        }
        if let Some(size) = self.free.remove(&(start + len)) {
            len += size;
        }
        self.insert(start, len);
    }

    /// Bytes free in all ranges together.
    pub(super) fn free(&self) -> usize {
        self.free.values().sum()
    }

    /// Bytes of the longest free range.
    pub(super) fn longest(&self) -> usize {
        self.free.values().copied().max().unwrap_or(0)
    }

    fn insert(&mut self, start: usize, len: usize) {
        if len > 0 {
            self.free.insert(start, len);
        }
    }
}
