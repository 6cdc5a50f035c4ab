//! What the console may change while packets move, as the polling threads see it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::latency::Latency;
use super::soft::Rules;
use super::verbose::Verbose;

/// What the console may change while packets move.
#[derive(Default)]
pub(crate) struct Live {
    /// 0 while nothing here is on, so that a round asks one question; else another number with each change.
    extras: AtomicU32,
    /// Whether packets are shown.
    verbose: AtomicU16,
    /// Where they are shown.
    pub(crate) shown: Verbose,
    /// Cycles to spend on nothing for each received packet.
    work_cycles: AtomicU32,
    /// How long packets stay, where that was asked for at the start.
    pub(crate) latency: Option<Latency>,
    /// What is done in software to what a port receives.
    rules: Mutex<BTreeMap<u16, Arc<Rules>>>,
}

impl Live {
    /// Nothing is on; `latency` is where packets' times are counted, if they are.
    pub(crate) fn new(latency: Option<Latency>) -> Self {
        Self { latency, ..Self::default() }
    }

    /// 0 while nothing is on; else a number that another one follows with each change.
    #[inline]
    pub(crate) fn extras(&self) -> u32 {
        self.extras.load(Ordering::Relaxed)
    }

    pub(crate) fn verbose(&self) -> u16 {
        self.verbose.load(Ordering::Relaxed)
    }

    pub(crate) fn work_cycles(&self) -> u32 {
        self.work_cycles.load(Ordering::Relaxed)
    }

    pub(crate) fn set_verbose(&self, level: u16) {
        self.verbose.store(level, Ordering::Relaxed);
        self.changed();
    }

    pub(crate) fn set_work_cycles(&self, cycles: u32) {
        self.work_cycles.store(cycles, Ordering::Relaxed);
        self.changed();
    }

    pub(crate) fn set_rules(&self, port: u16, rules: Option<Arc<Rules>>) {
        let mut all = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        match rules {
            Some(rules) => all.insert(port, rules),
            None => all.remove(&port),
        };
        drop(all);
        self.changed();
    }

    /// No port has rules any more.
    pub(crate) fn forget_rules(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.changed();
    }

    pub(crate) fn rules(&self, port: u16) -> Option<Arc<Rules>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).get(&port).cloned()
    }

    fn changed(&self) {
        static GENERATION: AtomicU32 = AtomicU32::new(0);
        // Never 0, and no number twice in a row.
        let any = self.verbose.load(Ordering::Relaxed) > 0
            || self.work_cycles.load(Ordering::Relaxed) > 0
            || self.latency.is_some()
            || !self.rules.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let next = GENERATION.fetch_add(1, Ordering::Relaxed) % (u32::MAX - 1) + 1;
        self.extras.store(if any { next } else { 0 }, Ordering::Relaxed);
    }
}
