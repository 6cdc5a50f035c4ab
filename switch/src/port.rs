//! A port as the workers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linecard_mempool::{Burst, Pool};
use linecard_pmd::TxQueue;

use crate::api::{Cause, DropCounters};
use crate::rate::{Limit, TokenBucket};
use crate::relations::Relations;
use crate::rules::{Flood, Policing, Rules};

/// Frames dropped by one worker at one port, and frames it copied directly to the port. That worker writes;
/// any thread may read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Losses([AtomicU64; Cause::ALL.len()], AtomicU64);

/// There is one writer, so a plain addition without a locked instruction is enough.
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

    /// Counts frames copied directly from their sender's memory.
    #[inline]
    pub(crate) fn add_straight(&self, packets: usize) {
        add(&self.1, packets as u64);
    }

    pub(crate) fn straight(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }

    /// Adds the drop counters to `sum`.
    pub(crate) fn add_to(&self, sum: &mut DropCounters) {
        for (cause, counter) in Cause::ALL.iter().zip(&self.0) {
            sum.add(*cause, counter.load(Ordering::Relaxed));
        }
    }
}

/// How a worker sends to a port.
pub(crate) enum Egress {
    /// Through a transmit queue of its own.
    Own(Box<dyn TxQueue>),
    /// Through the worker with this number, which has a queue.
    Through(usize),
}

/// The rate limits of a port, shared by all workers that receive from it.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes.
    policing: Option<Arc<Limit>>,
    /// Flooded frames, of kinds without a limit of their own.
    floods: Arc<Limit>,
    /// Flooded frames of each [`Flood`] that has a limit of its own.
    kinds: [Option<Arc<Limit>>; Flood::ALL.len()],
    /// New addresses.
    learning: Arc<Limit>,
}

impl Limits {
    /// The limits of a port from which at most `takers` workers receive.
    pub(crate) fn new(rules: &Rules, takers: u64) -> Self {
        // Workers that receive nothing can keep at most a quarter of the burst from the others.
        let shared = |limit: Limit, burst: u64, least: u64| {
            Arc::new(if takers > 1 { limit.in_slices_of((burst / (4 * takers)).max(least)) } else { limit })
        };
        let a_second = |rate: u32| {
            // A burst of a tenth of a second's worth, but at least 2048, because many stations are unknown
            // after a start.
            let (rate, at_once) = (u64::from(rate), u64::from(rate / 10).max(2048));
            shared(Limit::new(rate, at_once), at_once, 1)
        };
        let policing = rules.policing.map(|Policing { bytes_per_second, burst_bytes }| {
            shared(Limit::new(bytes_per_second, burst_bytes), burst_bytes, rules.longest as u64)
        });
        Self {
            policing,
            floods: a_second(rules.flood_rate),
            kinds: rules.flood_rates.map(|rate| rate.map(a_second)),
            learning: a_second(rules.learn_rate),
        }
    }
}

/// A worker's share of a port's flood limits.
#[derive(Debug)]
pub(crate) struct Floods {
    common: TokenBucket,
    /// For kinds with a limit of their own.
    kinds: Option<Box<[Option<TokenBucket>; Flood::ALL.len()]>>,
}

impl Floods {
    fn new(limits: &Limits) -> Self {
        let common = TokenBucket::of(&limits.floods);
        let kinds = limits.kinds.each_ref().map(|limit| limit.as_ref().map(TokenBucket::of));
        Self { common, kinds: kinds.iter().any(Option::is_some).then(|| Box::new(kinds)) }
    }

    /// Returns whether a frame that begins with `front` may be flooded, or the cause of its drop.
    #[inline]
    pub(crate) fn take(&mut self, front: &[u8], now: u64) -> Result<(), Cause> {
        match &mut self.kinds {
            None if self.common.take(1, now) => Ok(()),
            None => Err(Cause::FloodRate),
            Some(_) => self.take_kind(Flood::of(front), now),
        }
    }

    fn take_kind(&mut self, kind: Flood, now: u64) -> Result<(), Cause> {
        let own = self.kinds.as_mut().and_then(|kinds| kinds[kind as usize].as_mut());
        let (tokens, cause) = match own {
            Some(tokens) => (tokens, kind.cause()),
            None => (&mut self.common, Cause::FloodRate),
        };
        if tokens.take(1, now) { Ok(()) } else { Err(cause) }
    }

    fn give_back(&mut self) {
        self.common.give_back();
        self.kinds.iter_mut().flat_map(|kinds| kinds.iter_mut().flatten()).for_each(TokenBucket::give_back);
    }
}

/// The state of a port that all its workers share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Limits,
    /// The port has a peer; updated ten times a second.
    pub(crate) up: Arc<AtomicBool>,
    /// The pool of a port whose device may keep the packets it is given. Frames to this port are copied into
    /// packets of this pool: a peer that returns no packets holds only these, and it sees only these.
    pub(crate) own: Option<Pool>,
}

impl Common {
    /// The state of a port from which one worker receives.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn of(rules: Rules, up: Arc<AtomicBool>) -> Self {
        Self { limits: Limits::new(&rules, 1), rules: Arc::new(rules), up, own: None }
    }
}

/// One port at one worker.
pub(crate) struct WorkerPort {
    pub(crate) rules: Arc<Rules>,
    pub(crate) up: Arc<AtomicBool>,
    pub(crate) own: Option<Pool>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) egress: Egress,
    /// Frames to send.
    pub(crate) out: Burst,
    /// The last burst of shown frames in which some became packets for this port.
    pub(crate) packets_in_burst: u64,
    /// Flooded frames.
    pub(crate) floods: Floods,
    /// New addresses.
    pub(crate) learning: TokenBucket,
    /// Bytes.
    pub(crate) policing: Option<TokenBucket>,
    /// The mirroring and sharing relations of the port.
    pub(crate) relations: Relations,
}

impl WorkerPort {
    pub(crate) fn new(common: Common, losses: Arc<Losses>, egress: Egress) -> Self {
        let Common { rules, limits, up, own } = common;
        Self {
            rules,
            up,
            own,
            losses,
            egress,
            out: Burst::new(),
            packets_in_burst: 0,
            floods: Floods::new(&limits),
            learning: TokenBucket::of(&limits.learning),
            policing: limits.policing.as_ref().map(TokenBucket::of),
            relations: Relations::default(),
        }
    }

    /// Called when this worker no longer receives from the port: returns unused tokens to the others.
    pub(crate) fn rest(&mut self) {
        self.floods.give_back();
        self.learning.give_back();
        self.policing.iter_mut().for_each(TokenBucket::give_back);
    }
}

impl std::fmt::Debug for WorkerPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPort").field("rules", &self.rules).finish_non_exhaustive()
    }
}
