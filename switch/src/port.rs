//! A port as the workers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use linecard_mempool::Burst;
use linecard_pmd::TxQueue;

use crate::api::{Cause, DropCounters};
use crate::rate::Tokens;
use crate::rules::Rules;

/// Frames lost by one worker at one port; that worker writes, anybody reads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Losses([AtomicU64; Cause::ALL.len()]);

impl Losses {
    #[inline]
    pub(crate) fn add(&self, cause: Cause, packets: u64) {
        if let Some(counter) = self.0.get(cause as usize) {
            // One writer: a plain addition, no locked instruction.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(packets), Ordering::Relaxed);
        }
    }

    /// Adds what was counted to `sum`.
    pub(crate) fn add_to(&self, sum: &mut DropCounters) {
        for (cause, counter) in Cause::ALL.iter().zip(&self.0) {
            sum.add(*cause, counter.load(Ordering::Relaxed));
        }
    }
}

/// How a worker sends to a port.
pub(crate) enum Way {
    /// By a queue of its own.
    Own(Box<dyn TxQueue>),
    /// By the worker of this number, which has a queue.
    Through(usize),
}

/// One port at one worker.
pub(crate) struct Seat {
    pub(crate) rules: Arc<Rules>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) way: Way,
    /// Frames on their way out.
    pub(crate) out: Burst,
    /// Frames to all, and addresses to learn.
    pub(crate) floods: Tokens,
    /// Bytes.
    pub(crate) policing: Option<Tokens>,
}

impl Seat {
    /// `share` workers poll the port together, so that each may let pass that part of what the port may send.
    pub(crate) fn new(rules: Arc<Rules>, losses: Arc<Losses>, way: Way, share: u64) -> Self {
        let share = share.max(1);
        let floods = u64::from(rules.flood_rate) / share;
        let policing = rules.policing.map(|policing| {
            Tokens::new(
                policing.bytes_per_second / share,
                (policing.burst_bytes / share).max(rules.longest as u64),
            )
        });
        // A tenth of a second's worth at once; a start finds many unknown.
        let at_once = if floods == 0 { 0 } else { (floods / 10).max(2048) };
        Self { rules, losses, way, out: Burst::new(), floods: Tokens::new(floods, at_once), policing }
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("rules", &self.rules).finish_non_exhaustive()
    }
}
