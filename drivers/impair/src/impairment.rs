//! The impairment of one direction, independent of ports and clocks: packets leave it changed, late, or
//! never.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use linecard_eal::random::SplitMix64;
use linecard_mempool::{Packet, Pool};

use super::faults::{Chance, Faults, Rate};
use linecard_pmd::stats::{QueueStats, Total};

linecard_pmd::causes! {
    /// The faults that packets met. All but the missing buffer are intended, and no loss of the port.
    pub enum Fault {
        /// Dropped.
        Lost = ("lost", Total::None),
        /// Duplicated.
        Duplicated = ("duplicated", Total::None),
        /// Overtaken by later packets.
        Reordered = ("reordered", Total::None),
        /// Changed in one bit.
        Corrupted = ("corrupted", Total::None),
        /// Delayed.
        Delayed = ("delayed", Total::None),
        /// Still waiting when the port stopped, and returned to its pool.
        Stopped = ("returned_at_stop", Total::None),
        /// Selected for duplication, but the pool had no packet.
        NoBuffer = ("no_buffer", Total::NoBuffer),
    }
}

/// The most packets that wait to be overtaken.
const HELD: usize = 16;
/// The most packets that overtake one.
const OVERTAKERS: u64 = 8;
/// The nanoseconds after which a packet proceeds without having been overtaken.
const HOLD_NS: u64 = 1_000_000;

/// Draws a number only for a fault that is on, so that a fault that is off does not change the others.
fn hits(random: &mut SplitMix64, chance: Chance) -> bool {
    chance.0 > 0 && random.draw() >> 11 < chance.0
}

/// A packet with the time at which it may leave, after the earlier ones.
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
    /// The arrival count at which it proceeds.
    until: u64,
    deadline: u64,
    packet: Packet,
}

/// The impairment of one direction.
pub(super) struct Impairment {
    faults: Faults,
    random: SplitMix64,
    pool: Pool,
    arrivals: u64,
    order: u64,
    /// The time at which the earlier packets have passed the rate limit.
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

    /// Returns how many packets can be pushed; each may become two.
    pub(super) fn room(&self) -> usize {
        self.faults.limit.saturating_sub(self.waiting()) / 2
    }

    /// Returns the number of packets inside.
    pub(super) fn waiting(&self) -> usize {
        self.late.len() + self.held.len()
    }

    /// Adds a packet. There must be [`room`](Self::room).
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
        self.release_held(now, stats);
    }

    /// Returns the next packet that is due.
    pub(super) fn pop(&mut self, now: u64, stats: &QueueStats<Fault>) -> Option<Packet> {
        if !self.held.is_empty() {
            self.release_held(now, stats);
        }
        if self.late.peek()?.0.due > now {
            return None;
        }
        self.late.pop().map(|late| late.0.packet)
    }

    /// Returns the time at which the first packet inside may leave, if there is one.
    pub(super) fn next_due(&self) -> Option<u64> {
        let late = self.late.peek().map(|late| late.0.due);
        let held = self.held.iter().map(|held| held.deadline).min();
        late.into_iter().chain(held).min()
    }

    /// Queues the packets that have been overtaken, or have waited long enough for that.
    fn release_held(&mut self, now: u64, stats: &QueueStats<Fault>) {
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

    /// Flips one bit; in the first segment of a packet that cannot be put into one buffer.
    fn flip(&mut self, packet: &mut Packet) -> bool {
        _ = packet.linearize();
        let Some(data) = packet.data_mut().filter(|data| !data.is_empty()) else { return false };
        let bit = self.random.below(data.len() as u64 * 8);
        // Less than the length, which is a `usize`.
        data[(bit / 8) as usize] ^= 1 << (bit % 8);
        true
    }
}

fn ns(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
