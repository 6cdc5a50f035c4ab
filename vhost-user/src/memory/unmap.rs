//! Unmapping what a peer shared, where it makes nobody wait.
//!
//! Often the peer is gone by then, and this process is the last that holds its memory: to unmap it is to free it, which
//! takes half a second for a GiB. The control thread serves every port, so a thread of its own does that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, SendError, Sender};

use memmap2::MmapRaw;

/// Mappings that may wait. Beyond, a peer that maps and unmaps pays itself, with its control messages.
const MAX_WAITING: usize = 1024;
/// Bytes taken out of the page tables at a time: whoever maps something meanwhile waits for no more than this.
const STEP: usize = 64 << 20;

/// Unmaps `mapping`, which nobody uses any more, soon.
pub(super) fn unmap_elsewhere(mapping: MmapRaw) {
    static THREAD: OnceLock<Option<Sender<MmapRaw>>> = OnceLock::new();
    static WAITING: AtomicUsize = AtomicUsize::new(0);
    let thread = THREAD.get_or_init(|| {
        let (sender, mappings) = mpsc::channel::<MmapRaw>();
        let body = move || {
            for mapping in mappings {
                release(&mapping);
                drop(mapping);
                WAITING.fetch_sub(1, Relaxed);
            }
        };
        std::thread::Builder::new().name("vhost-unmap".into()).spawn(body).ok().map(|_| sender)
    });
    // Without a thread there is nothing better than to unmap it here.
    let Some(thread) = thread else { return };
    if WAITING.fetch_add(1, Relaxed) >= MAX_WAITING {
        WAITING.fetch_sub(1, Relaxed);
    } else if let Err(SendError(mapping)) = thread.send(mapping) {
        drop(mapping);
    }
}

/// Takes the pages of a mapping out of the page tables, step by step. Where the kernel refuses, unmapping does it at once.
fn release(mapping: &MmapRaw) {
    for at in (0..mapping.len()).step_by(STEP) {
        let len = STEP.min(mapping.len() - at);
        let start = mapping.as_mut_ptr().wrapping_add(at);
        // SAFETY: the range is in a mapping that nobody uses any more.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
    }
}
