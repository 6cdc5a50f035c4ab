//! The differences between the standard library and loom.

pub(crate) use imp::{AtomicU64, Pause, Track};

#[cfg(not(loom))]
mod imp {
    pub(crate) use core::sync::atomic::AtomicU64;

    /// Waits for another thread of the same side: spins, then yields the core.
    pub(crate) struct Pause(crossbeam::utils::Backoff);

    impl Pause {
        pub(crate) fn new() -> Self {
            Self(crossbeam::utils::Backoff::new())
        }

        pub(crate) fn wait(&self) {
            self.0.snooze();
        }
    }

    /// Access tracking of slots; does nothing outside loom.
    #[derive(Clone)]
    pub(crate) struct Track;

    impl Track {
        pub(crate) fn new(_slots: usize) -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn read(&self, _slot: usize, _count: usize) {}

        #[inline(always)]
        pub(crate) fn write(&self, _slot: usize, _count: usize) {}
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::atomic::AtomicU64;

    pub(crate) struct Pause;

    impl Pause {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn wait(&self) {
            loom::thread::yield_now();
        }
    }

    /// Reports to loom which slots are read and written, so that it detects unordered accesses.
    #[derive(Clone)]
    pub(crate) struct Track(std::sync::Arc<Tracked>);

    struct Tracked {
        cells: Box<[loom::cell::UnsafeCell<()>]>,
        /// Loom's clocks advance only at atomic operations: without one between a claim and the access to its
        /// slots, loom considers the access as old as the claim and misses races.
        tick: AtomicU64,
    }

    // SAFETY: the cells have no content; loom itself checks that their use is ordered.
    unsafe impl Send for Track {}
    // SAFETY: the cells have no content, and loom fails the test if two threads use one without order.
    unsafe impl Sync for Track {}

    impl Track {
        pub(crate) fn new(slots: usize) -> Self {
            let cells = (0..slots).map(|_| loom::cell::UnsafeCell::new(())).collect();
            Self(std::sync::Arc::new(Tracked { cells, tick: AtomicU64::new(0) }))
        }

        pub(crate) fn read(&self, slot: usize, count: usize) {
            self.0.tick.load(std::sync::atomic::Ordering::Relaxed);
            self.0.cells[slot..slot + count].iter().for_each(|cell| cell.with(|_| ()));
        }

        pub(crate) fn write(&self, slot: usize, count: usize) {
            self.0.tick.load(std::sync::atomic::Ordering::Relaxed);
            self.0.cells[slot..slot + count].iter().for_each(|cell| cell.with_mut(|_| ()));
        }
    }
}
