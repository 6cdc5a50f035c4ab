//! The differences between the standard library and loom, for the gate, the quiescent states and the wake-ups.

pub(crate) use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

pub(crate) use imp::{
    Arc, AtomicBool, AtomicU64, Mutex, UnsafeCell, asymmetric_fences, full_fence, heavy_fence, light_fence,
};

#[cfg(not(loom))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::atomic::{compiler_fence, fence};
    pub(crate) use std::sync::{Arc, Mutex};

    use crate::sys::membarrier;

    /// The cell of `std` with loom's interface: access by closure.
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

    /// Orders all accesses before it against all accesses after it, for all threads.
    #[inline(always)]
    pub(crate) fn full_fence() {
        fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// The cheap half of an asymmetric fence pair: it only prevents reordering by the compiler, while
    /// [`heavy_fence`] orders the hardware for both sides. A full fence if the kernel does not support this.
    #[inline(always)]
    pub(crate) fn light_fence(asymmetric: bool) {
        if asymmetric {
            compiler_fence(std::sync::atomic::Ordering::SeqCst);
        } else {
            fence(std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// The expensive half: every running thread of this process executes a full fence before this returns.
    pub(crate) fn heavy_fence(asymmetric: bool) {
        if asymmetric {
            let done = membarrier::process();
            // Cannot fail once registered; otherwise two threads could be inside at once.
            assert!(done, "membarrier stopped working");
        }
        fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether the kernel can execute fences on other threads; the answer never changes.
    pub(crate) fn asymmetric_fences() -> bool {
        static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *REGISTERED.get_or_init(|| !cfg!(miri) && membarrier::register() && membarrier::process())
    }
}

/// Both fences are full ones here, like the combination of `membarrier` and the light one.
#[cfg(loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    use loom::sync::atomic::fence;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use loom::sync::{Arc, Mutex};
    use std::sync::atomic::Ordering::SeqCst;

    pub(crate) fn full_fence() {
        fence(SeqCst);
    }

    pub(crate) fn light_fence(_: bool) {
        fence(SeqCst);
    }

    pub(crate) fn heavy_fence(_: bool) {
        fence(SeqCst);
    }

    pub(crate) fn asymmetric_fences() -> bool {
        false
    }
}
