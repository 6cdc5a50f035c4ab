//! The settings that the console can change while packets are forwarded, as the polling threads read them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::latency::Latency;
use super::soft::Rules;
use super::verbose::Verbose;

/// The settings that the console can change while packets are forwarded.
#[derive(Default)]
pub(crate) struct Live {
    /// 0 while every setting here is off, so that a round tests only one value; otherwise changes with each
    /// setting.
    extras: AtomicU32,
    /// The verbosity level.
    verbose: AtomicU16,
    /// Displays packets.
    pub(crate) shown: Verbose,
    /// Cycles to spend for each received packet.
    work_cycles: AtomicU32,
    /// The latency figures, if `--latencystats` was given.
    pub(crate) latency: Option<Latency>,
    /// The software processing of received packets, by port.
    rules: Mutex<BTreeMap<u16, Arc<Rules>>>,
}

impl Live {
    /// Creates settings that are all off; `latency` counts the packets' latencies, if they are measured.
    pub(crate) fn new(latency: Option<Latency>) -> Self {
        Self { latency, ..Self::default() }
    }

    /// 0 while every setting is off; otherwise a number that changes with each setting.
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

    /// Removes the rules of all ports.
    pub(crate) fn forget_rules(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.changed();
    }

    pub(crate) fn rules(&self, port: u16) -> Option<Arc<Rules>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).get(&port).cloned()
    }

    fn changed(&self) {
        static GENERATION: AtomicU32 = AtomicU32::new(0);
        // Never 0, and never the same number twice in a row.
        let any = self.verbose.load(Ordering::Relaxed) > 0
            || self.work_cycles.load(Ordering::Relaxed) > 0
            || self.latency.is_some()
            || !self.rules.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let next = GENERATION.fetch_add(1, Ordering::Relaxed) % (u32::MAX - 1) + 1;
        self.extras.store(if any { next } else { 0 }, Ordering::Relaxed);
    }
}
