//! The one door to atomics: ring words are [`linecard_eal::shared`] cells; under loom they are modelled ones.

#[cfg(not(loom))]
pub(crate) use linecard_eal::shared::{Shared, SharedBytes, SharedSlice};
#[cfg(loom)]
pub(crate) use model::{Shared, SharedBytes, SharedSlice};

pub(crate) use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Orders every earlier store before every later load. The callers say which pair of them matters.
#[inline(always)]
pub(crate) fn full_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    #[cfg(not(loom))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
