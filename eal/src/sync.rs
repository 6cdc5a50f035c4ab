//! The one place where the standard library and loom differ, for the gate and the quiescent states.

pub(crate) use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub(crate) use imp::{
    Arc, AtomicBool, AtomicU64, Mutex, UnsafeCell, asymmetric_fences, full_fence, heavy_fence, light_fence,
};

#[cfg(not(loom))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::atomic::{compiler_fence, fence};
    pub(crate) use std::sync::{Arc, Mutex};

    use crate::sys::membarrier;

    /// `std`'s cell with loom's shape: access by closure.
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

    /// Orders everything before it against everything behind it, for all threads.
    #[inline(always)]
    pub(crate) fn full_fence() {
        fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// The cheap half of an asymmetric fence pair: keeps the compiler from reordering, while [`heavy_fence`]
    /// orders the hardware for both sides; a full fence where the kernel cannot help.
    #[inline(always)]
    pub(crate) fn light_fence(asymmetric: bool) {
        if asymmetric {
            compiler_fence(std::sync::atomic::Ordering::SeqCst);
        } else {
            fence(std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// The dear half: every running thread of this process passes a full fence before this returns.
    pub(crate) fn heavy_fence(asymmetric: bool) {
        if asymmetric {
            let done = membarrier::process();
            // Cannot fail once registered; were it to, two threads could be in at once.
            assert!(done, "membarrier stopped working");
        }
        fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether the kernel can fence other threads for us; the answer never changes.
    pub(crate) fn asymmetric_fences() -> bool {
        static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *REGISTERED.get_or_init(|| !cfg!(miri) && membarrier::register() && membarrier::process())
    }
}

/// Both fences are full ones here: what `membarrier` makes of the light one.
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
