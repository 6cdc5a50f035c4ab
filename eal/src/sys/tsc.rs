//! The processor's time stamp counter.

/// The time stamp counter; CLOCK_MONOTONIC in nanoseconds on machines without one.
#[inline(always)]
pub(crate) fn read() -> u64 {
    arch::read()
}

/// Whether the counter runs at one rate on all cores, also in sleep states.
pub(crate) fn invariant() -> bool {
    arch::invariant()
}

/// The rate that the processor reports.
pub(crate) fn stated_hz() -> Option<u64> {
    arch::stated_hz()
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod arch {
    use core::arch::x86_64::{__cpuid, __get_cpuid_max, _rdtsc, CpuidResult};

    #[inline(always)]
    pub(super) fn read() -> u64 {
        // SAFETY: every x86_64 processor has the instruction, and Linux allows user code to execute it unless
        // a process forbids it (PR_SET_TSC).
        unsafe { _rdtsc() }
    }

    pub(super) fn invariant() -> bool {
        // Intel SDM vol. 2, CPUID leaf 80000007H: EDX bit 8.
        leaf(0x8000_0007).is_some_and(|leaf| leaf.edx >> 8 & 1 == 1)
    }

    pub(super) fn stated_hz() -> Option<u64> {
        // Intel SDM vol. 2, CPUID leaf 15H: TSC rate = crystal rate (ECX) × EBX / EAX. Leaf 16H states a rounded base
        // rate only: measuring is better.
        let leaf = leaf(0x15)?;
        let hz = u64::from(leaf.ecx).checked_mul(u64::from(leaf.ebx))?.checked_div(u64::from(leaf.eax))?;
        (hz > 0).then_some(hz)
    }

    /// The content of a CPUID leaf, if the processor has it.
    // These two functions are safe since Rust 1.94.
    #[allow(unused_unsafe, reason = "needed by the oldest Rust that is supported")]
    fn leaf(number: u32) -> Option<CpuidResult> {
        // SAFETY: every x86_64 processor has the instruction, and the leaf is at most the highest of its
        // range.
        unsafe { (__get_cpuid_max(number & 0x8000_0000).0 >= number).then(|| __cpuid(number)) }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod arch {
    #[inline(always)]
    pub(super) fn read() -> u64 {
        super::super::monotonic_ns()
    }

    pub(super) fn invariant() -> bool {
        true
    }

    pub(super) fn stated_hz() -> Option<u64> {
        Some(1_000_000_000)
    }
}
