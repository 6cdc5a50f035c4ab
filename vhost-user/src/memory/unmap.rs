//! Unmapping of memory that a peer shared.
//!
//! Often the peer has exited by then, and this process is the last user of the memory: unmapping then frees
//! it, which takes half a second per GiB. Therefore the port's closing thread unmaps in steps, and other
//! threads that map memory meanwhile wait for one step at most.

use memmap2::MmapRaw;

/// Bytes removed from the page tables at a time, which bounds the wait of other threads that map memory.
const STEP: usize = 64 << 20;

/// Unmaps `mapping`, which is not in use any more.
pub(super) fn unmap(mapping: MmapRaw) {
    for at in (0..mapping.len()).step_by(STEP) {
        let len = STEP.min(mapping.len() - at);
        let start = mapping.as_mut_ptr().wrapping_add(at);
        // If the kernel refuses, dropping the mapping does it at once.
        // SAFETY: the range is in a mapping that is not in use any more.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
    }
}
