//! Memory barriers on all threads of the process (`linux/membarrier.h`); loom has fences of its own.

const MEMBARRIER_PRIVATE_EXPEDITED: libc::c_long = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: libc::c_long = 1 << 4;

fn membarrier(command: libc::c_long) -> bool {
    // SAFETY: the call takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Asks the kernel to let this process order the memory accesses of all its threads from one of them.
pub(crate) fn register() -> bool {
    membarrier(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED)
}

/// A full memory barrier on every thread of this process that runs now; false when the kernel refuses.
pub(crate) fn process() -> bool {
    membarrier(MEMBARRIER_PRIVATE_EXPEDITED)
}
