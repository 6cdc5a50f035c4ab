//! What the gate is built on. `tests/gate_loom.rs` has a module of the same name and shape made of loom's parts, and
//! compiles `gate.rs` against that one.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

use std::sync::OnceLock;
use std::sync::atomic::{compiler_fence, fence};

/// A value reached through a raw pointer for the length of a closure.
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

/// Whether the kernel can put a barrier into our other threads; asked once per process.
pub(crate) fn remote_barriers() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| crate::sys::register_membarrier() && crate::sys::process_barrier())
}

/// The frequent side of an asymmetric barrier: free when the rare side can reach into this thread.
#[inline(always)]
pub(crate) fn light_fence(remote: bool) {
    if remote {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The rare side: orders this thread's accesses and, when `remote`, those of all others.
pub(crate) fn heavy_fence(remote: bool) {
    fence(Ordering::SeqCst);
    if remote {
        crate::sys::process_barrier();
        fence(Ordering::SeqCst);
    }
}

/// Gives the other thread time: a bit at first, more later.
pub(crate) fn pause(turn: u32) {
    if turn < 64 {
        std::thread::yield_now();
    } else {
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}
