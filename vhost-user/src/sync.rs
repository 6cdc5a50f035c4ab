//! The one door to atomics and fences, so that loom can stand in for them.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{Arc, atomic::AtomicBool},
};

#[cfg(not(loom))]
pub(crate) use cell::UnsafeCell;
#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, atomic::AtomicBool};

pub(crate) use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// `std`'s cell with loom's shape: access by closure.
#[cfg(not(loom))]
mod cell {
    /// A cell whose exclusivity the gate's protocol guarantees.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// The cheap half of an asymmetric fence pair: orders nothing in hardware while [`heavy_fence`] does it for
/// both sides, a full fence where the kernel cannot help.
#[inline(always)]
pub(crate) fn light_fence(asymmetric: bool) {
    #[cfg(not(loom))]
    if asymmetric {
        return std::sync::atomic::compiler_fence(SeqCst);
    }
    let _ = asymmetric;
    full_fence();
}

/// The dear half: every thread of this process passes a full fence before this returns.
pub(crate) fn heavy_fence(asymmetric: bool) {
    #[cfg(not(loom))]
    if asymmetric && membarrier::barrier() {
        return;
    }
    let _ = asymmetric;
    full_fence();
}

#[inline(always)]
fn full_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(SeqCst);
    #[cfg(not(loom))]
    std::sync::atomic::fence(SeqCst);
}

/// Whether the kernel can fence other threads for us. Asked once per gate; the answer never changes.
pub(crate) fn asymmetric_fences() -> bool {
    #[cfg(not(any(loom, miri)))]
    return membarrier::registered();
    #[cfg(any(loom, miri))]
    return false;
}

#[cfg(not(loom))]
mod membarrier {
    //! `membarrier(2)`, private expedited: one interrupt per running thread of this process.

    const PRIVATE_EXPEDITED: libc::c_long = 1 << 3;
    #[cfg(not(miri))]
    const REGISTER_PRIVATE_EXPEDITED: libc::c_long = 1 << 4;

    fn call(command: libc::c_long) -> bool {
        // SAFETY: membarrier takes three integers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    pub(super) fn barrier() -> bool {
        call(PRIVATE_EXPEDITED)
    }

    #[cfg(not(miri))]
    pub(super) fn registered() -> bool {
        static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *REGISTERED.get_or_init(|| call(REGISTER_PRIVATE_EXPEDITED))
    }
}
