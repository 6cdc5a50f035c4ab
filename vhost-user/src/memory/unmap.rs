//! Unmapping what a peer shared.
//!
//! Often the peer is gone by then, and this process is the last that holds its memory: to unmap it is to free it, which
//! takes half a second for a GiB. So the port's own closing thread does that, and whoever else of the process maps
//! something meanwhile waits for a step of it at most.

use memmap2::MmapRaw;

/// Bytes taken out of the page tables at a time: whoever maps something meanwhile waits for no more than this.
const STEP: usize = 64 << 20;

/// Unmaps `mapping`, which nobody uses any more.
pub(super) fn unmap(mapping: MmapRaw) {
    for at in (0..mapping.len()).step_by(STEP) {
        let len = STEP.min(mapping.len() - at);
        let start = mapping.as_mut_ptr().wrapping_add(at);
        // Where the kernel refuses, the end of the mapping does it at once.
        // SAFETY: the range is in a mapping that nobody uses any more.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
    }
}
