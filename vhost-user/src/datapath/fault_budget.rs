//! Time budget for page faults in one burst.
//!
//! The first access to an unallocated page of a peer's memory waits while the kernel allocates and clears it:
//! about 3 µs for 4 KiB, 100 µs for 2 MiB. One chain may lead to as many pages as a ring has descriptors. The
//! slow path therefore measures time. If page faults have used up the budget, the burst ends, even in the
//! middle of a chain: that chain is started again by the next burst, and gets further because its pages are
//! now allocated. Time that passed without a fault (the thread was preempted, or the packets are long) does
//! not end a burst, so a chain whose pages are all allocated is always finished.

use std::mem::MaybeUninit;
use std::sync::LazyLock;
use std::time::Duration;

use linecard_eal::Clock;

/// Half of what a burst may spend on page faults. Faults in the first half are ignored; a fault in the second
/// half ends the burst.
const HALF: Duration = Duration::from_micros(250);
/// Pieces between two readings of the clock. A piece is rarely more than a page.
const PIECES: u32 = 4;
/// Descriptors of a chain that count as a piece: 256 descriptors of a table share a page.
const DESCRIPTORS: u32 = 64;

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::calibrated);

/// Calibrates the clock in advance, because that takes some milliseconds.
pub(crate) fn prepare_clock() {
    LazyLock::force(&CLOCK);
}

/// The fault budget of a burst on the slow path.
#[derive(Debug)]
pub(super) struct FaultBudget {
    clock: Clock,
    half: u64,
    began: u64,
    pieces: u32,
    /// The page faults of this thread at the end of the first half.
    faults: Option<u64>,
    over: bool,
}

impl FaultBudget {
    /// The budget of a path, created by the control thread. Each burst calls [`begin`](Self::begin).
    pub(super) fn new() -> Self {
        let clock = *CLOCK;
        let half = clock.cycles_in(HALF);
        Self { clock, half, began: 0, pieces: 0, faults: None, over: false }
    }

    /// Starts a burst.
    pub(super) fn begin(&mut self) {
        (self.began, self.pieces, self.faults, self.over) = (self.clock.cycles(), 0, None, false);
    }

    /// Whether the burst must end.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Counts a chain that was walked. Returns false if the burst must end.
    pub(super) fn walked(&mut self, descriptors: u16) -> bool {
        self.count(1 + u32::from(descriptors) / DESCRIPTORS)
    }

    /// Counts a piece that was copied. Returns false if the burst must end.
    #[inline]
    pub(super) fn copied(&mut self) -> bool {
        self.count(1)
    }

    #[inline]
    fn count(&mut self, pieces: u32) -> bool {
        self.pieces += pieces;
        if self.pieces >= PIECES {
            self.pieces = 0;
            if self.clock.cycles().wrapping_sub(self.began) >= self.half {
                self.half_gone();
            }
        }
        !self.over
    }

    #[cold]
    fn half_gone(&mut self) {
        let faults = faults();
        self.over = self.faults.is_some_and(|before| faults > before);
        self.faults = Some(faults);
        self.began = self.clock.cycles();
    }
}

/// The page faults of this thread so far, for any kind of memory.
fn faults() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the structure.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: all integers, zeroed before and filled now.
    let usage = unsafe { usage.assume_init() };
    (usage.ru_minflt + usage.ru_majflt).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(budget: &FaultBudget) {
        let from = budget.clock.cycles();
        while budget.clock.cycles() - from <= budget.half {
            std::hint::spin_loop();
        }
    }

    /// Causes a page fault.
    fn fault() {
        let map =
            memmap2::MmapOptions::new().len(4096).map_anon().map(memmap2::MmapRaw::from).expect("a page");
        // SAFETY: one byte of the new mapping.
        unsafe { map.as_mut_ptr().write_volatile(1) };
    }

    #[test]
    fn only_faults_end_a_turn() {
        let mut budget = FaultBudget::new();
        budget.begin();
        // The first reading of the clock may itself cause page faults.
        wait(&budget);
        (0..PIECES).for_each(|_| assert!(budget.copied()));
        for _ in 0..5 {
            wait(&budget);
            (0..PIECES).for_each(|_| assert!(budget.copied(), "time alone ends nothing"));
        }
        fault();
        (0..PIECES).for_each(|_| assert!(budget.copied(), "it is not the time yet"));
        wait(&budget);
        assert!(!budget.walked(DESCRIPTORS as u16 * PIECES as u16));
        assert!(budget.is_over() && !budget.copied());
        budget.begin();
        assert!(!budget.is_over() && budget.copied());
    }
}
