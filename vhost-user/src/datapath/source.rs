//! Frames to be sent, as runs of bytes: in packets, or, except for the first run, in another peer's buffer.

use linecard_mempool::Packet;
use linecard_pmd::direct::Frame;
use linecard_pmd::offload::{Malformed, TxRequest, asks};
use linecard_pmd::stats::QueueStats;

use super::copy::copy;
use super::fault_budget::FaultBudget;
use super::scatter::Cursor;
use crate::port::TxLoss;

/// A frame to be sent. Its bytes are read once.
pub(super) trait Source {
    /// The total length of all runs in bytes.
    fn len(&self) -> usize;
    /// Whether [`copy_to`](Self::copy_to) copies the whole frame.
    fn is_simple(&self) -> bool;
    /// Whether the frame requests an offload.
    fn asks(&self) -> bool;
    /// The offload that the frame requests.
    fn request(&self) -> Result<Option<TxRequest>, Malformed>;
    /// Copies a simple frame.
    ///
    /// # Safety
    /// `len` is [`len`](Self::len), which the caller knows already; `to` is writable for that many bytes and
    /// overlaps with no run.
    unsafe fn copy_to(&self, to: *mut u8, len: usize);
    /// The runs of the frame in order: addresses and lengths, readable as long as the source is borrowed.
    fn runs(&self) -> impl Iterator<Item = (*const u8, usize)>;
    /// Counts the frame as dropped for `cause`.
    fn dropped(&self, cause: TxLoss, stats: &QueueStats<TxLoss>);
}

impl Source for Packet {
    #[inline(always)]
    fn len(&self) -> usize {
        Packet::len(self)
    }

    #[inline(always)]
    fn is_simple(&self) -> bool {
        self.data_len() == Packet::len(self)
    }

    #[inline(always)]
    fn asks(&self) -> bool {
        asks(self.offload())
    }

    fn request(&self) -> Result<Option<TxRequest>, Malformed> {
        TxRequest::of(self)
    }

    #[inline(always)]
    unsafe fn copy_to(&self, to: *mut u8, len: usize) {
        // SAFETY: the only segment of a simple packet has `len` bytes at `data_ptr`; the caller guarantees
        // `to`.
        unsafe { copy(to, self.data_ptr(), len) };
    }

    fn runs(&self) -> impl Iterator<Item = (*const u8, usize)> {
        // The segments are in buffers of the packet, which is borrowed.
        self.segments().map(|segment| (segment.data().as_ptr(), segment.len()))
    }

    fn dropped(&self, cause: TxLoss, stats: &QueueStats<TxLoss>) {
        stats.dropped(cause, self);
    }
}

impl Source for Frame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        Frame::len(self)
    }

    #[inline(always)]
    fn is_simple(&self) -> bool {
        true
    }

    #[inline(always)]
    fn asks(&self) -> bool {
        false
    }

    fn request(&self) -> Result<Option<TxRequest>, Malformed> {
        Ok(None)
    }

    #[inline(always)]
    unsafe fn copy_to(&self, to: *mut u8, _len: usize) {
        let [(head, head_len), (rest, rest_len)] = Frame::runs(self);
        // SAFETY: the frame guarantees `head_len` bytes, and the caller guarantees room for the whole frame.
        unsafe { copy(to, head, head_len) };
        if rest_len == 0 {
            return;
        }
        // SAFETY: the head is not longer than the frame, for which there is room.
        let to = unsafe { to.add(head_len) };
        // SAFETY: the frame guarantees `rest_len` bytes, and the caller guarantees room for the whole frame.
        // Peers that share the same pages may see a mix of old and new bytes; in this process their mappings
        // are different ranges.
        unsafe { copy(to, rest, rest_len) };
    }

    fn runs(&self) -> impl Iterator<Item = (*const u8, usize)> {
        Frame::runs(self).into_iter()
    }

    /// Captures disable the direct path, so there is no observer to show the frame to.
    fn dropped(&self, cause: TxLoss, stats: &QueueStats<TxLoss>) {
        stats.lost(cause, 1);
    }
}

/// A position in the runs of a source; every copy advances it.
pub(super) struct Reader<I> {
    runs: I,
    rest: (*const u8, usize),
}

impl<I: Iterator<Item = (*const u8, usize)>> Reader<I> {
    /// A position at the start of `runs`, which belong to a borrowed [`Source`].
    pub(super) fn new(runs: I) -> Self {
        Self { runs, rest: (std::ptr::null(), 0) }
    }

    /// Copies up to `len` bytes to `cursor`, until the budget is spent. Returns the number of bytes.
    ///
    /// # Safety
    /// The runs are readable.
    pub(super) unsafe fn fill(
        &mut self,
        cursor: &mut Cursor<'_>,
        len: u32,
        fault_budget: &mut FaultBudget,
    ) -> u32 {
        let mut done = 0usize;
        while done < len as usize && !fault_budget.is_over() {
            let (from, left) = self.rest;
            if left == 0 {
                let Some(run) = self.runs.next() else { break };
                self.rest = run;
                continue;
            }
            let part = left.min(len as usize - done);
            // SAFETY: the run has `left` bytes, at least `part`, and the caller guarantees that they are
            // readable.
            let copied = unsafe { cursor.write(from, part, || fault_budget.copied()) };
            // Stays in the run, or at its end.
            self.rest = (from.wrapping_add(copied), left - copied);
            done += copied;
            if copied < part {
                break;
            }
        }
        done as u32
    }
}
