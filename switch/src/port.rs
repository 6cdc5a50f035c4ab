//! A port as the workers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linecard_mempool::{Burst, Pool};
use linecard_pmd::TxQueue;

use crate::api::{Cause, DropCounters};
use crate::rate::TokenBucket;
use crate::relations::Relations;
use crate::rules::Rules;

/// Frames lost by one worker at one port, and those that it had copied straight to it; that worker writes, anybody reads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Losses([AtomicU64; Cause::ALL.len()], AtomicU64);

/// One writer: a plain addition, no locked instruction.
#[inline(always)]
fn add(counter: &AtomicU64, packets: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(packets), Ordering::Relaxed);
}

impl Losses {
    #[inline]
    pub(crate) fn add(&self, cause: Cause, packets: u64) {
        if let Some(counter) = self.0.get(cause as usize) {
            add(counter, packets);
        }
    }

    /// So many frames went straight from their sender's memory.
    #[inline]
    pub(crate) fn add_straight(&self, packets: usize) {
        add(&self.1, packets as u64);
    }

    pub(crate) fn straight(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }

    /// Adds what was counted to `sum`.
    pub(crate) fn add_to(&self, sum: &mut DropCounters) {
        for (cause, counter) in Cause::ALL.iter().zip(&self.0) {
            sum.add(*cause, counter.load(Ordering::Relaxed));
        }
    }
}

/// How a worker sends to a port.
pub(crate) enum Egress {
    /// By a queue of its own.
    Own(Box<dyn TxQueue>),
    /// By the worker of this number, which has a queue.
    Through(usize),
}

/// What all workers know of a port.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) rules: Arc<Rules>,
    /// The port has a peer; looked at ten times a second.
    pub(crate) up: Arc<AtomicBool>,
    /// For a port whose device may keep what it is given: what is sent there is copied into packets of the port's own, so that
    /// a peer that returns none keeps nobody else's, and sees nobody else's.
    pub(crate) own: Option<Pool>,
}

/// One port at one worker.
pub(crate) struct WorkerPort {
    pub(crate) rules: Arc<Rules>,
    pub(crate) up: Arc<AtomicBool>,
    pub(crate) own: Option<Pool>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) egress: Egress,
    /// Frames on their way out.
    pub(crate) out: Burst,
    /// The last burst of shown frames of which some became packets for this port.
    pub(crate) packets_in_burst: u64,
    /// Frames to all, and addresses to learn.
    pub(crate) floods: TokenBucket,
    /// Bytes.
    pub(crate) policing: Option<TokenBucket>,
    /// What of it other ports get copies of.
    pub(crate) relations: Relations,
}

impl WorkerPort {
    /// `share` workers poll the port together, so that each may let pass that part of what the port may send.
    pub(crate) fn new(common: Common, losses: Arc<Losses>, egress: Egress, share: u64) -> Self {
        let Common { rules, up, own } = common;
        let share = share.max(1);
        let floods = u64::from(rules.flood_rate) / share;
        let policing = rules.policing.map(|policing| {
            TokenBucket::new(
                policing.bytes_per_second / share,
                (policing.burst_bytes / share).max(rules.longest as u64),
            )
        });
        // A tenth of a second's worth at once; a start finds many unknown.
        let at_once = if floods == 0 { 0 } else { (floods / 10).max(2048) };
        Self {
            rules,
            up,
            own,
            losses,
            egress,
            out: Burst::new(),
            packets_in_burst: 0,
            floods: TokenBucket::new(floods, at_once),
            policing,
            relations: Relations::default(),
        }
    }
}

impl std::fmt::Debug for WorkerPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("rules", &self.rules).finish_non_exhaustive()
    }
}
