//! Inline assembly: prefetches of cache lines, and a compiler barrier.

/// The length of a cache line in bytes.
pub(crate) const LINE: usize = 64;

pub(crate) use imp::{compiler_barrier, read, write};

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod imp {
    /// Prefetches the line of `at` for reading.
    #[inline(always)]
    pub(crate) fn read(at: *const u8) {
        // SAFETY: a hint; any address is allowed, and memory is neither read nor written.
        unsafe {
            core::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
        };
    }

    /// Prefetches the line of `at` for writing, so that a later store finds it in exclusive state. Does
    /// nothing on processors without `prefetchw`, where its encoding is reserved as a no-operation.
    #[inline(always)]
    pub(crate) fn write(at: *const u8) {
        // SAFETY: a hint; any address is allowed, and memory is neither read nor written.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
        };
    }

    /// Prevents the compiler from unrolling the loop around it, and from turning the branch around it into a
    /// conditional move. Bursts are a few lines long: an unrolled loop spends more time on finding its entry
    /// than on them, and a conditional move waits for the operands of both sides of the branch.
    #[inline(always)]
    pub(crate) fn compiler_barrier() {
        // SAFETY: no instruction is emitted.
        unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod imp {
    #[inline(always)]
    pub(crate) fn read(_: *const u8) {}

    #[inline(always)]
    pub(crate) fn write(_: *const u8) {}

    #[inline(always)]
    pub(crate) fn compiler_barrier() {}
}
