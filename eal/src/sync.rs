//! What the gate and the quiescent states are built on. `tests/*_loom.rs` have a module of the same name and shape made of
//! loom's parts, and run the same code on it.

pub(crate) use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::atomic::{compiler_fence, fence};
pub(crate) use std::sync::{Arc, Mutex};

use crate::sys;

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
        let done = sys::process_barrier();
        // Cannot fail once registered; were it to, two threads could be in at once.
        assert!(done, "membarrier stopped working");
    }
    fence(std::sync::atomic::Ordering::SeqCst);
}

/// Whether the kernel can fence other threads for us; the answer never changes.
pub(crate) fn asymmetric_fences() -> bool {
    static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *REGISTERED.get_or_init(|| !cfg!(miri) && sys::register_membarrier() && sys::process_barrier())
}
