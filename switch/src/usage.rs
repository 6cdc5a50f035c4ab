//! The time accounting of a worker: cycles of rounds that moved frames, and of all others.
//!
//! A worker that always has frames spends nothing on this. One that finds none reads the cycle counter after
//! each such round, and so knows its idle cycles; all others are busy ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use linecard_eal::clock::cycles;

/// One word that is consistent at any moment: while the worker is idle, its busy cycles, which do not change
/// then; while it is busy, its idle cycles. So a reader needs no lock and never sees values of two different
/// moments.
#[derive(Debug)]
struct Word(AtomicU64);

/// The lowest bit: the worker is idle. The other 63 bits hold cycles for a century.
const IDLE: u64 = 1;

/// The usage of a worker, readable by other threads.
#[derive(Debug)]
pub(crate) struct Usage {
    lcore: u32,
    /// When the worker started.
    start: u64,
    word: CachePadded<Word>,
    /// The largest value reported so far: a counter does not decrease.
    reported: AtomicU64,
}

impl Usage {
    pub(crate) fn lcore(&self) -> u32 {
        self.lcore
    }

    /// Returns the busy cycles and all cycles since the worker started.
    pub(crate) fn cycles(&self) -> (u64, u64) {
        self.cycles_at(cycles())
    }

    fn cycles_at(&self, now: u64) -> (u64, u64) {
        let word = self.word.0.load(Ordering::Relaxed);
        let all = now.saturating_sub(self.start);
        let busy = if word & IDLE == 0 { all.saturating_sub(word >> 1) } else { word >> 1 }.min(all);
        (self.reported.fetch_max(busy, Ordering::Relaxed).max(busy).min(all), all)
    }
}

/// The worker's side of [`Usage`].
#[derive(Debug)]
pub(crate) struct Meter {
    usage: Arc<Usage>,
    /// The idle cycles so far.
    idle: u64,
    /// When the last round without frames ended.
    last: u64,
    /// The duration of a round without frames, in cycles.
    turn: u64,
    busy: bool,
}

impl Meter {
    /// The meter of a worker that starts now.
    pub(crate) fn new(lcore: u32) -> (Self, Arc<Usage>) {
        Self::at(lcore, cycles())
    }

    fn at(lcore: u32, start: u64) -> (Self, Arc<Usage>) {
        let word = CachePadded::new(Word(AtomicU64::new(IDLE)));
        let usage = Arc::new(Usage { lcore, start, word, reported: AtomicU64::new(0) });
        (Self { usage: Arc::clone(&usage), idle: 0, last: start, turn: 0, busy: false }, usage)
    }

    /// Records a round that moved frames. It started when the last round without frames ended, or follows
    /// another round with frames.
    #[inline(always)]
    pub(crate) fn moved(&mut self) {
        if !self.busy {
            self.begin();
        }
    }

    #[cold]
    fn begin(&mut self) {
        self.busy = true;
        self.usage.word.0.store(self.idle << 1, Ordering::Relaxed);
    }

    /// Records a round that moved nothing. The worker may have `rested` after it.
    #[inline]
    pub(crate) fn found_nothing(&mut self, rested: bool) {
        self.found_nothing_at(cycles(), rested);
    }

    fn found_nothing_at(&mut self, now: u64, rested: bool) {
        let spent = now.saturating_sub(self.last);
        self.last = now;
        if !self.busy {
            self.idle += spent;
            if !rested {
                self.turn = spent;
            }
            return;
        }
        // The end of the last round with frames was not recorded; this round counts as long as the last one
        // without frames.
        self.busy = false;
        self.idle += self.turn.min(spent);
        let busy = now.saturating_sub(self.usage.start).saturating_sub(self.idle);
        self.usage.word.0.store(busy << 1 | IDLE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_turns_are_what_idle_ones_leave() {
        let (mut meter, usage) = Meter::at(3, 1000);
        assert_eq!((usage.lcore(), usage.cycles_at(1000)), (3, (0, 0)));
        meter.found_nothing_at(1010, false);
        meter.found_nothing_at(1020, false);
        assert_eq!(usage.cycles_at(1020), (0, 20));
        // Busy from 1020 to 1120, then an idle turn of 10.
        meter.moved();
        assert_eq!(usage.cycles_at(1100), (80, 100), "while it lasts");
        meter.moved();
        meter.found_nothing_at(1130, false);
        assert_eq!(usage.cycles_at(1130), (100, 130));
        // Asleep: nobody writes, and it is idle.
        assert_eq!(usage.cycles_at(5000), (100, 4000));
        meter.found_nothing_at(5000, true);
        // A rest is not what a turn takes.
        meter.moved();
        meter.found_nothing_at(5050, false);
        assert_eq!(usage.cycles_at(5050), (140, 4050));
    }

    #[test]
    fn one_that_never_rests_is_busy_all_the_time() {
        let (mut meter, usage) = Meter::at(0, 0);
        (0..1000).for_each(|_| meter.moved());
        assert_eq!(usage.cycles_at(1 << 40), (1 << 40, 1 << 40));
    }

    #[test]
    fn a_counter_does_not_go_back() {
        let (mut meter, usage) = Meter::at(0, 0);
        meter.found_nothing_at(100, false);
        meter.moved();
        let (before, _) = usage.cycles_at(290);
        // The turn that ends now is taken to be as long as the last one: 100 cycles.
        meter.found_nothing_at(300, false);
        let (after, all) = usage.cycles_at(300);
        assert!(before <= after && after <= all, "{before} {after} {all}");
        // A clock of another core that is behind does not make it negative.
        assert_eq!(Meter::at(0, 500).1.cycles_at(400), (0, 0));
    }
}
