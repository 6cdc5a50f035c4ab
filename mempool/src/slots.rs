//! Thread slots, which determine the thread that owns each row of every pool's caches.
//!
//! A thread claims a slot when it first needs one and releases it when it ends. The next thread that claims
//! it, on its first use or when it runs out of packets, takes over the caches with their content.

#[cfg(test)]
mod tests;

use crate::sync::{AtomicU64, Ordering};

/// The maximum number of threads that have caches at the same time; further threads work without caches.
pub(crate) const SLOTS: usize = 128;

/// The slot of threads without one; its caches never have room.
#[cfg_attr(loom, allow(dead_code, reason = "loom builds the parts without threads"))]
pub(crate) const NO_SLOT: usize = SLOTS;

const WORDS: usize = SLOTS / 64;

/// The slots that are owned, and those that ever were.
pub(crate) struct Registry {
    owned: [AtomicU64; WORDS],
    used: [AtomicU64; WORDS],
}

const fn place(slot: usize) -> (usize, u64) {
    (slot / 64 % WORDS, 1 << (slot % 64))
}

impl Registry {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { owned: [const { AtomicU64::new(0) }; WORDS], used: [const { AtomicU64::new(0) }; WORDS] }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            owned: std::array::from_fn(|_| AtomicU64::new(0)),
            used: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Claims the lowest slot that is not owned.
    #[cfg_attr(loom, allow(dead_code, reason = "loom builds the parts without threads"))]
    pub(crate) fn claim_any(&self) -> Option<usize> {
        (0..WORDS).find_map(|word| {
            loop {
                let bit = self.owned[word].load(Ordering::Relaxed).trailing_ones() as usize;
                if bit == 64 {
                    return None;
                }
                if self.claim(word * 64 + bit) {
                    return Some(word * 64 + bit);
                }
            }
        })
    }

    /// Claims `slot` unless it is owned. The caller owns its caches until [`Registry::release`].
    #[must_use]
    pub(crate) fn claim(&self, slot: usize) -> bool {
        let (word, bit) = place(slot);
        // O1, pairs with O2: the content that the last owner left in the caches is visible; otherwise packets
        // would be lost or duplicated.
        if self.owned[word].fetch_or(bit, Ordering::Acquire) & bit != 0 {
            return false;
        }
        self.used[word].fetch_or(bit, Ordering::Relaxed);
        true
    }

    /// Releases `slot`, with the content of its caches.
    pub(crate) fn release(&self, slot: usize) {
        let (word, bit) = place(slot);
        // O2, pairs with O1.
        self.owned[word].fetch_and(!bit, Ordering::Release);
    }

    /// The slots that were owned once and are not now.
    pub(crate) fn abandoned(&self) -> impl Iterator<Item = usize> {
        (0..WORDS).flat_map(|word| {
            let mut bits =
                self.used[word].load(Ordering::Relaxed) & !self.owned[word].load(Ordering::Relaxed);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(word * 64 + bit as usize)
            })
        })
    }
}

#[cfg(not(loom))]
mod thread {
    use std::cell::Cell;

    use super::{NO_SLOT, Registry};

    /// The slots of the threads of this process.
    pub(crate) static THREADS: Registry = Registry::new();

    thread_local! {
        // Without a destructor, so that reading it is one instruction and works while a thread ends.
        static CURRENT: Cell<usize> = const { Cell::new(NO_SLOT) };
        static OWNED: Owned = const { Owned(Cell::new(None)) };
    }

    struct Owned(Cell<Option<usize>>);

    impl Drop for Owned {
        fn drop(&mut self) {
            CURRENT.set(NO_SLOT);
            if let Some(slot) = self.0.take() {
                THREADS.release(slot);
            }
        }
    }

    /// This thread's slot, or [`NO_SLOT`].
    #[inline(always)]
    pub(crate) fn current() -> usize {
        CURRENT.get()
    }

    /// This thread's slot. Claims one if one is free and the thread is not ending.
    pub(crate) fn enter() -> Option<usize> {
        if current() != NO_SLOT {
            return Some(current());
        }
        OWNED
            .try_with(|owned| {
                let slot = THREADS.claim_any()?;
                owned.0.set(Some(slot));
                CURRENT.set(slot);
                Some(slot)
            })
            .ok()
            .flatten()
    }
}

#[cfg(not(loom))]
pub(crate) use thread::{THREADS, current, enter};
