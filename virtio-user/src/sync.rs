//! The one place that knows whether threads are real or loom's.

#[cfg(not(loom))]
mod real {
    pub(crate) use std::cell::UnsafeCell;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

    use std::sync::OnceLock;

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

    pub(crate) fn pause(turn: u32) {
        if turn < 64 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
}

#[cfg(loom)]
mod model {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};

    pub(crate) fn remote_barriers() -> bool {
        false
    }
    pub(crate) fn light_fence(_remote: bool) {
        fence(Ordering::SeqCst);
    }
    pub(crate) fn heavy_fence(_remote: bool) {
        fence(Ordering::SeqCst);
    }
    pub(crate) fn pause(_turn: u32) {
        loom::thread::yield_now();
    }
}

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;
