//! All atomics of this crate: ring words are [`linecard_eal::shared`] cells.
//!
//! Under loom they are modelled cells, so that the same queues run in the model. In unit tests they are real
//! cells that can count how often each byte is read.

#[cfg(loom)]
pub(crate) mod modelled;
#[cfg(all(test, not(loom)))]
pub(crate) mod watched;

pub(crate) use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

#[cfg(not(loom))]
pub(crate) use linecard_eal::shared::Word;
#[cfg(all(not(test), not(loom)))]
pub(crate) use linecard_eal::shared::{Shared, SharedBytes, SharedSlice};
#[cfg(loom)]
pub(crate) use modelled::{Shared, SharedBytes, SharedSlice, Word};
#[cfg(all(test, not(loom)))]
pub(crate) use watched::{Shared, SharedBytes, SharedSlice};

/// Orders every earlier store before every later load. The callers document which pair matters.
#[inline(always)]
pub(crate) fn full_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    #[cfg(not(loom))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
