//! Assembly: prefetches of cache lines, and a barrier for the compiler.

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

pub(crate) use imp::{compiler_barrier, read, write};

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod imp {
    /// Fetches the line of `at` for reading.
    #[inline(always)]
    pub(crate) fn read(at: *const u8) {
        // SAFETY: a hint; any address is allowed, nothing is read or written.
        unsafe {
            core::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
        };
    }

    /// Fetches the line of `at` for writing, so that the store finds it owned. Does nothing on processors
    /// without `prefetchw`, where its encoding is reserved as a no-operation.
    #[inline(always)]
    pub(crate) fn write(at: *const u8) {
        // SAFETY: a hint; any address is allowed, nothing is read or written.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
        };
    }

    /// Prevents the compiler from unrolling the loop around it and from making a conditional move of the branch around it. Bursts
    /// are a few lines long, and an unrolled loop spends more on finding its entry than on them; a conditional move waits for what
    /// both sides of the branch need.
    #[inline(always)]
    pub(crate) fn compiler_barrier() {
        // SAFETY: no instruction at all.
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
