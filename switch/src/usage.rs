//! What a worker does with its time: cycles of turns that moved frames, and all others.
//!
//! A worker that has frames all the time does nothing for it. One that finds nothing reads the counter of cycles after each such
//! turn, and so knows its idle cycles; the others are busy ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use linecard_eal::clock::cycles;

/// What one word tells at any moment: while the worker is idle, its busy cycles, which then stand still; while it is busy, its
/// idle cycles. So whoever reads it needs no lock, and never sees the two at different moments.
#[derive(Debug)]
struct Word(AtomicU64);

/// In the lowest bit: the worker is idle. Cycles fill 63 bits in a century.
const IDLE: u64 = 1;

/// What others may ask of a worker.
#[derive(Debug)]
pub(crate) struct Usage {
    lcore: u32,
    /// When the worker began.
    start: u64,
    word: CachePadded<Word>,
    /// The most that was told so far: a counter does not go back.
    told: AtomicU64,
}

impl Usage {
    pub(crate) fn lcore(&self) -> u32 {
        self.lcore
    }

    /// Busy cycles and all cycles since the worker began.
    pub(crate) fn cycles(&self) -> (u64, u64) {
        self.cycles_at(cycles())
    }

    fn cycles_at(&self, now: u64) -> (u64, u64) {
        let word = self.word.0.load(Ordering::Relaxed);
        let all = now.saturating_sub(self.start);
        let busy = if word & IDLE == 0 { all.saturating_sub(word >> 1) } else { word >> 1 }.min(all);
        (self.told.fetch_max(busy, Ordering::Relaxed).max(busy).min(all), all)
    }
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Meter {
    usage: Arc<Usage>,
    /// Idle cycles so far.
    idle: u64,
    /// When the last turn without frames ended.
    last: u64,
    /// What a turn without frames takes.
    turn: u64,
    busy: bool,
}

impl Meter {
    /// For a worker that begins now.
    pub(crate) fn new(lcore: u32) -> (Self, Arc<Usage>) {
        Self::at(lcore, cycles())
    }

    fn at(lcore: u32, start: u64) -> (Self, Arc<Usage>) {
        let word = CachePadded::new(Word(AtomicU64::new(IDLE)));
        let usage = Arc::new(Usage { lcore, start, word, told: AtomicU64::new(0) });
        (Self { usage: Arc::clone(&usage), idle: 0, last: start, turn: 0, busy: false }, usage)
    }

    /// A turn moved frames. It began when the last one without ended, or it is not the first one.
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

    /// A turn moved nothing. The worker may have `rested` after it.
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
        // When the turns with frames ended was not written down; this one took as long as the last of its kind.
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
