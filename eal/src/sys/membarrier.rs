//! Memory barriers on all threads of the process (`linux/membarrier.h`); loom has fences of its own.

use rustix::thread::{MembarrierCommand, membarrier};

/// Asks the kernel to let this process order the memory accesses of all its threads from one of them.
pub(crate) fn register() -> bool {
    membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
}

/// A full memory barrier on every thread of this process that runs now; false when the kernel refuses.
pub(crate) fn process() -> bool {
    membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}
