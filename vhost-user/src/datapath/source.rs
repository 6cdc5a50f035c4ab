//! What is sent: bytes in runs, whether they are in packets of ours or, but for the first of them, in the buffer of another peer.

use linecard_mempool::Packet;
use linecard_pmd::direct::Frame;
use linecard_pmd::offload::{Malformed, TxRequest, asks};
use linecard_pmd::stats::QueueStats;

use super::copy::copy;
use super::fault_budget::FaultBudget;
use super::scatter::Cursor;
use crate::port::TxLoss;

/// One frame to be sent. Its bytes are read once.
pub(super) trait Source {
    /// Bytes in all runs.
    fn len(&self) -> usize;
    /// Whether [`copy_to`](Self::copy_to) copies all of it.
    fn is_simple(&self) -> bool;
    /// Whether it asks the receiver for something.
    fn asks(&self) -> bool;
    /// What it asks the receiver for.
    fn request(&self) -> Result<Option<TxRequest>, Malformed>;
    /// Copies a simple one.
    ///
    /// # Safety
    /// `len` is [`len`](Self::len), which the caller has at hand; `to` is writable for as many bytes and overlaps with no run.
    unsafe fn copy_to(&self, to: *mut u8, len: usize);
    /// Where its bytes are, in their order: readable for as many as are said, as long as the source is borrowed.
    fn runs(&self) -> impl Iterator<Item = (*const u8, usize)>;
    /// It is dropped, for this reason.
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
        // SAFETY: the only segment of a simple packet has `len` bytes at `data_ptr`; the caller answers for `to`.
        unsafe { copy(to, self.data_ptr(), len) };
    }

    fn runs(&self) -> impl Iterator<Item = (*const u8, usize)> {
        // Segments lie in buffers of the packet, which is borrowed.
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
        // SAFETY: the frame promises `head_len` bytes; the caller, that there is room for all of them.
        unsafe { copy(to, head, head_len) };
        if rest_len == 0 {
            return;
        }
        // SAFETY: the head is shorter than the frame, for which there is room.
        let to = unsafe { to.add(head_len) };
        // SAFETY: the frame promises `rest_len` bytes; the caller, that there is room for all of them. Peers that share the same
        // pages may find a mix of old and new bytes in them; here their mappings are different ranges.
        unsafe { copy(to, rest, rest_len) };
    }

    fn runs(&self) -> impl Iterator<Item = (*const u8, usize)> {
        Frame::runs(self).into_iter()
    }

    /// A capture disables the direct path, so no observer is to be shown the frame.
    fn dropped(&self, cause: TxLoss, stats: &QueueStats<TxLoss>) {
        stats.lost(cause, 1);
    }
}

/// A position in the runs of a source; every copy moves it on.
pub(super) struct Reader<I> {
    runs: I,
    rest: (*const u8, usize),
}

impl<I: Iterator<Item = (*const u8, usize)>> Reader<I> {
    /// At the start of `runs`, which are those of a [`Source`] that is borrowed meanwhile.
    pub(super) fn new(runs: I) -> Self {
        Self { runs, rest: (std::ptr::null(), 0) }
    }

    /// Copies up to `len` bytes to `cursor`, until the budget is spent; returns how many.
    ///
    /// # Safety
    /// The runs can be read.
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
            // SAFETY: the run has `left` bytes, at least `part`, and the caller says that they can be read.
            let copied = unsafe { cursor.write(from, part, || fault_budget.copied()) };
            // Stays in the run, or one behind it.
            self.rest = (from.wrapping_add(copied), left - copied);
            done += copied;
            if copied < part {
                break;
            }
        }
        done as u32
    }
}
