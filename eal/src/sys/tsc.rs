//! The processor's own clock.

/// The time stamp counter; CLOCK_MONOTONIC in nanoseconds on machines without one.
#[inline(always)]
pub(crate) fn read() -> u64 {
    arch::read()
}

/// Whether the counter runs at one rate on all cores, through sleep states too.
pub(crate) fn invariant() -> bool {
    arch::invariant()
}

/// The counter's rate as the processor states it.
pub(crate) fn stated_hz() -> Option<u64> {
    arch::stated_hz()
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod arch {
    use core::arch::x86_64::{__cpuid, __get_cpuid_max, _rdtsc};

    #[inline(always)]
    pub(super) fn read() -> u64 {
        // SAFETY: every x86_64 processor has the instruction, and Linux lets user code execute it unless a process asks
        // for the contrary (PR_SET_TSC).
        unsafe { _rdtsc() }
    }

    pub(super) fn invariant() -> bool {
        // Intel SDM vol. 2, CPUID leaf 80000007H: EDX bit 8.
        __get_cpuid_max(0x8000_0000).0 >= 0x8000_0007 && __cpuid(0x8000_0007).edx >> 8 & 1 == 1
    }

    pub(super) fn stated_hz() -> Option<u64> {
        // Intel SDM vol. 2, CPUID leaf 15H: TSC rate = crystal rate (ECX) × EBX / EAX. Leaf 16H states a rounded base
        // rate only: measuring is better.
        if __get_cpuid_max(0).0 < 0x15 {
            return None;
        }
        let leaf = __cpuid(0x15);
        let hz = u64::from(leaf.ecx).checked_mul(u64::from(leaf.ebx))?.checked_div(u64::from(leaf.eax))?;
        (hz > 0).then_some(hz)
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
