//! Memory barriers on all threads of the process (`linux/membarrier.h`). Not used with loom, which has its
//! own fences.

use rustix::thread::{MembarrierCommand, membarrier};

/// Registers this process with the kernel, so that one thread can order the memory accesses of all threads.
pub(crate) fn register() -> bool {
    membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
}

/// Executes a full memory barrier on every running thread of this process; false if the kernel refuses.
pub(crate) fn process() -> bool {
    membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}
