//! The impairment of one direction: what goes in comes out faulty, late, or never. Knows no port and no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use linecard_eal::random::SplitMix64;
use linecard_mempool::{Packet, Pool};

use super::faults::{Chance, Faults, Rate};
use linecard_pmd::stats::{QueueStats, Total};

linecard_pmd::causes! {
    /// What was done to packets; all but the missing buffer are the impairment's doing and no loss of the port.
    pub enum Fault {
        /// Dropped.
        Lost = ("lost", Total::None),
        /// Sent on twice.
        Duplicated = ("duplicated", Total::None),
        /// Overtaken by packets that came later.
        Reordered = ("reordered", Total::None),
        /// One bit is another.
        Corrupted = ("corrupted", Total::None),
        /// Had to wait.
        Delayed = ("delayed", Total::None),
        /// Still waiting when the port stopped, and returned to its pool.
        Stopped = ("returned_at_stop", Total::None),
        /// To be duplicated, but the pool had no packet.
        NoBuffer = ("no_buffer", Total::NoBuffer),
    }
}

/// Packets that wait to be overtaken, at most.
const HELD: usize = 16;
/// Packets that overtake one, at most.
const OVERTAKERS: u64 = 8;
/// When nobody comes to overtake it, a packet goes on after this many nanoseconds.
const HOLD_NS: u64 = 1_000_000;

/// Draws only where something can happen, so that a fault that is off changes no other.
fn hits(random: &mut SplitMix64, chance: Chance) -> bool {
    chance.0 > 0 && random.draw() >> 11 < chance.0
}

/// A packet that may leave at a time, after those before it.
struct DelayedPacket {
    due: u64,
    order: u64,
    packet: Packet,
}

impl PartialEq for DelayedPacket {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}

impl Eq for DelayedPacket {}

impl PartialOrd for DelayedPacket {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DelayedPacket {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

/// A packet that waits to be overtaken.
struct HeldPacket {
    /// Arrivals after which it goes on.
    until: u64,
    deadline: u64,
    packet: Packet,
}

/// See the module.
pub(super) struct Impairment {
    faults: Faults,
    random: SplitMix64,
    pool: Pool,
    arrivals: u64,
    order: u64,
    /// When the packet before was, or will be, through (rate).
    free_at: u64,
    held: Vec<HeldPacket>,
    late: BinaryHeap<Reverse<DelayedPacket>>,
}

impl Impairment {
    pub(super) fn new(faults: Faults, seed: u64, pool: &Pool) -> Self {
        Self {
            faults,
            random: SplitMix64::new(seed),
            pool: pool.clone(),
            arrivals: 0,
            order: 0,
            free_at: 0,
            held: Vec::with_capacity(HELD),
            late: BinaryHeap::with_capacity(faults.limit),
        }
    }

    /// Packets that can be pushed; each may become two.
    pub(super) fn room(&self) -> usize {
        self.faults.limit.saturating_sub(self.waiting()) / 2
    }

    /// Packets inside.
    pub(super) fn waiting(&self) -> usize {
        self.late.len() + self.held.len()
    }

    /// Lets a packet in. There must be [`room`](Self::room).
    pub(super) fn push(&mut self, mut packet: Packet, now: u64, stats: &QueueStats<Fault>) {
        self.arrivals += 1;
        if hits(&mut self.random, self.faults.loss) {
            stats.dropped(Fault::Lost, &packet);
            drop(packet);
        } else {
            if hits(&mut self.random, self.faults.corrupt) && self.flip(&mut packet) {
                stats.lost(Fault::Corrupted, 1);
            }
            let twin =
                if hits(&mut self.random, self.faults.duplicate) { self.twin(&packet, stats) } else { None };
            if hits(&mut self.random, self.faults.reorder) && self.held.len() < HELD {
                stats.lost(Fault::Reordered, 1);
                let until = self.arrivals + 1 + self.random.below(OVERTAKERS);
                self.held.push(HeldPacket { until, deadline: now.saturating_add(HOLD_NS), packet });
            } else {
                self.enqueue(packet, now, stats);
            }
            if let Some(twin) = twin {
                self.enqueue(twin, now, stats);
            }
        }
        self.let_go(now, stats);
    }

    /// The next packet that is due.
    pub(super) fn pop(&mut self, now: u64, stats: &QueueStats<Fault>) -> Option<Packet> {
        if !self.held.is_empty() {
            self.let_go(now, stats);
        }
        if self.late.peek()?.0.due > now {
            return None;
        }
        self.late.pop().map(|late| late.0.packet)
    }

    /// When the first of the packets inside may leave, if there is one.
    pub(super) fn next_due(&self) -> Option<u64> {
        let late = self.late.peek().map(|late| late.0.due);
        let held = self.held.iter().map(|held| held.deadline).min();
        late.into_iter().chain(held).min()
    }

    /// Moves on what has been overtaken, or has waited long enough for it.
    fn let_go(&mut self, now: u64, stats: &QueueStats<Fault>) {
        while let Some(at) =
            self.held.iter().position(|held| held.until <= self.arrivals || held.deadline <= now)
        {
            let held = self.held.remove(at);
            self.enqueue(held.packet, now, stats);
        }
    }

    fn enqueue(&mut self, packet: Packet, now: u64, stats: &QueueStats<Fault>) {
        let mut due = now.saturating_add(ns(self.faults.delay));
        if !self.faults.jitter.is_zero() {
            due = due.saturating_add(self.random.below(ns(self.faults.jitter) + 1));
        }
        if let Some(rate) = self.faults.rate {
            due = due.max(self.free_at);
            self.free_at = due.saturating_add(Rate::takes(rate, packet.len()));
        }
        if due > now {
            stats.lost(Fault::Delayed, 1);
        }
        self.order += 1;
        self.late.push(Reverse(DelayedPacket { due, order: self.order, packet }));
    }

    fn twin(&self, packet: &Packet, stats: &QueueStats<Fault>) -> Option<Packet> {
        let twin = packet.copy(&self.pool);
        stats.lost(if twin.is_some() { Fault::Duplicated } else { Fault::NoBuffer }, 1);
        twin
    }

    /// Changes one bit, of the first segment where a packet has several that fit into no one buffer.
    fn flip(&mut self, packet: &mut Packet) -> bool {
        _ = packet.linearize();
        let Some(data) = packet.data_mut().filter(|data| !data.is_empty()) else { return false };
        let bit = self.random.below(data.len() as u64 * 8);
        // Below the length, which is a `usize`.
        data[(bit / 8) as usize] ^= 1 << (bit % 8);
        true
    }
}

fn ns(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
