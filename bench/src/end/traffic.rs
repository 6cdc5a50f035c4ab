//! The tester's traffic: offers frames at a rate or one at a time, and accounts for each of them.

use std::hint::spin_loop;
use std::time::Duration;

use hdrhistogram::Histogram;
use linecard::eal::Clock;
use linecard::eal::clock::cycles;
use linecard::mempool::{Burst, Packet, Pool};
use linecard::pmd::{RxQueue, TxQueue};
use serde::{Deserialize, Serialize};

use super::frame::{self, Stamp, Template};
use crate::loopback::{Load, Offer};
use linecard_apps_common::Track;
use linecard_apps_common::clock::monotonic_ns;

/// The queues of the tester's port.
pub(crate) struct Queues<'a> {
    pub(crate) rx: &'a mut dyn RxQueue,
    pub(crate) tx: &'a mut dyn TxQueue,
}

/// The result of a trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Frames that were due and could be generated.
    pub(crate) offered: u64,
    /// Distinct frames that returned.
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupted: u64,
    /// Frames that were due but that the tester was too slow to generate.
    pub(crate) short: u64,
    /// The time during which frames were offered.
    pub(crate) nanos: u64,
    /// Frames that returned in that time.
    pub(crate) in_time: u64,
    /// Round trips in nanoseconds; 0 if there were none.
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

/// The tester's traffic and its counters.
pub(crate) struct Traffic {
    clock: Clock,
    pool: Pool,
    /// The frames to send in turn; their lengths repeat after twelve.
    templates: Vec<Template>,
    burst: usize,
    /// Descriptors per ring.
    ring: u16,
    received: Burst,
    made: Burst,
    /// Buffer for a frame in several segments.
    whole: Vec<u8>,
    /// The number of the next frame, never used twice.
    next: u64,
    /// The first number of this trial.
    base: u64,
    track: Track,
    corrupted: u64,
    round_trips: Histogram<u64>,
    /// When the first frame came back, on the system's monotonic clock.
    first_came: u64,
}

/// After the last frame was offered: the longest pause between two received frames.
const QUIET: Duration = Duration::from_millis(20);
/// After the last frame was offered: the longest time in total.
const DRAIN: Duration = Duration::from_millis(500);
/// The time after which a single frame is considered lost.
const LOST: Duration = Duration::from_millis(100);
/// The interval between attempts to send a first frame.
const PROBE: Duration = Duration::from_micros(20);
/// The divisor of a ring's size that limits the frames to catch up after an interruption.
const CATCH_UP: u64 = 4;
/// A longer round of the tester counts as interrupted.
const INTERRUPTED: Duration = Duration::from_micros(20);

impl Traffic {
    pub(crate) fn new(clock: Clock, pool: Pool, load: Load) -> Self {
        let Load { size, ring, burst } = load;
        let lengths =
            size.parts().into_iter().flat_map(|(bytes, times)| std::iter::repeat_n(bytes, times.into()));
        let burst = Burst::with_capacity(burst.into());
        Self {
            clock,
            pool,
            templates: lengths.map(Template::new).collect(),
            burst: burst.capacity(),
            ring,
            received: Burst::new(),
            made: burst,
            whole: Vec::new(),
            next: 0,
            base: 0,
            track: Track::new(),
            corrupted: 0,
            round_trips: Self::histogram(),
            first_came: 0,
        }
    }

    /// Creates a histogram of cycles, up to some seconds, with three significant digits.
    fn histogram() -> Histogram<u64> {
        const LONGEST: u64 = 1 << 36;
        Histogram::new_with_bounds(1, LONGEST, 3)
            .unwrap_or_else(|_| unreachable!("bounds and digits are within what a histogram allows"))
    }

    /// Resets all counters; late frames of earlier trials are not counted.
    fn begin(&mut self, queues: &mut Queues<'_>) {
        self.made.clear();
        self.drain(queues);
        self.base = self.next;
        self.track = Track::new();
        self.corrupted = 0;
        self.round_trips = Self::histogram();
    }

    /// Offers frames for `time`, then waits for the last ones.
    pub(crate) fn trial(&mut self, queues: &mut Queues<'_>, offer: Offer, time: Duration) -> Tally {
        self.begin(queues);
        let mut pace = Pace::new(offer, &self.clock, self.burst, self.ring);
        let (start, all) = (cycles(), self.clock.cycles_in(time));
        let mut offered = 0;
        let spent = loop {
            let now = cycles();
            let gone = now.wrapping_sub(start);
            if gone >= all {
                break gone;
            }
            let due = pace.due(gone, offered);
            offered += self.offer(queues, offer, due, now);
            self.receive(queues);
        };
        let in_time = self.track.unique();
        if offer == Offer::Max {
            // Frames that the ring did not accept were not offered.
            self.next -= self.made.len() as u64;
        }
        self.made.clear();
        self.drain(queues);
        Tally { short: pace.short, ..self.tally(offered, spent, in_time) }
    }

    /// Generates and sends up to `due` frames; returns how many were offered.
    #[inline]
    fn offer(&mut self, queues: &mut Queues<'_>, offer: Offer, due: usize, now: u64) -> u64 {
        let wanted = due.saturating_sub(self.made.len());
        if wanted > 0 {
            self.make(wanted, now);
        }
        if self.made.is_empty() {
            return 0;
        }
        let all = self.made.len();
        let sent = queues.tx.tx_burst(&mut self.made);
        if offer == Offer::Max {
            return sent as u64;
        }
        // An open loop does not wait: frames that do not fit are lost.
        self.made.clear();
        all as u64
    }

    /// Generates up to `count` frames; fewer when the pool is empty.
    fn make(&mut self, count: usize, time: u64) {
        let count = count.min(self.made.room());
        for _ in 0..count {
            let Some(packet) = self.frame(time) else { return };
            if self.made.push(packet).is_err() {
                return;
            }
            self.next += 1;
        }
    }

    /// Generates the frame with the next number.
    #[inline]
    fn frame(&mut self, time: u64) -> Option<Packet> {
        let stamp = Stamp { number: self.next, time };
        let template = &self.templates[(self.next % self.templates.len() as u64) as usize];
        let mut packet = self.pool.get()?;
        if template.len() <= packet.tailroom() {
            template.fill(packet.append(template.len())?, stamp);
            return Some(packet);
        }
        self.whole.resize(template.len(), 0);
        template.fill(&mut self.whole, stamp);
        let (head, mut rest) = self.whole.split_at(packet.tailroom());
        packet.append(head.len())?.copy_from_slice(head);
        while !rest.is_empty() {
            let mut segment = self.pool.get()?;
            let (head, tail) = rest.split_at(rest.len().min(segment.tailroom()));
            segment.append(head.len())?.copy_from_slice(head);
            packet.chain(segment).ok()?;
            rest = tail;
        }
        Some(packet)
    }

    /// Receives a burst and checks it; returns the number of frames.
    #[inline]
    fn receive(&mut self, queues: &mut Queues<'_>) -> usize {
        let count = queues.rx.rx_burst(&mut self.received);
        if count == 0 {
            return 0;
        }
        let now = cycles();
        for at in 0..count {
            let stamp = self.read(at);
            self.account(stamp, now);
        }
        self.received.clear();
        count
    }

    /// Parses the received packet at `at`.
    #[inline]
    fn read(&mut self, at: usize) -> Option<Stamp> {
        let packet = self.received.get(at)?;
        if packet.data_len() == packet.len() {
            return frame::check(packet.data());
        }
        self.whole.clear();
        packet.segments().for_each(|segment| self.whole.extend_from_slice(segment.data()));
        frame::check(&self.whole)
    }

    #[inline]
    fn account(&mut self, stamp: Option<Stamp>, now: u64) {
        let Some(stamp) = stamp.filter(|stamp| stamp.number < self.next) else {
            self.corrupted += 1;
            return;
        };
        // A late frame of an earlier trial was counted as lost there.
        let Some(number) = stamp.number.checked_sub(self.base) else { return };
        if self.track.arrived(number) {
            self.round_trips.saturating_record(now.saturating_sub(stamp.time));
        }
    }

    /// Receives until no more frames arrive.
    fn drain(&mut self, queues: &mut Queues<'_>) {
        let (quiet, all) = (self.clock.cycles_in(QUIET), self.clock.cycles_in(DRAIN));
        let start = cycles();
        let mut last = start;
        loop {
            let moved = self.receive(queues);
            queues.tx.reclaim();
            let now = cycles();
            if moved > 0 {
                last = now;
            }
            if now.wrapping_sub(last) > quiet || now.wrapping_sub(start) > all {
                return;
            }
        }
    }

    /// Sends one frame at a time, `count` times or until `most` has passed, with pauses of `gap`.
    pub(crate) fn ping(
        &mut self,
        queues: &mut Queues<'_>,
        count: u64,
        gap: Duration,
        most: Duration,
    ) -> Tally {
        self.begin(queues);
        let (gap, patience) = (self.clock.cycles_in(gap), self.clock.cycles_in(LOST));
        let (most, mut offered) = (self.clock.cycles_in(most), 0);
        let mut trips = Self::histogram();
        let start = cycles();
        while offered < count && (offered == 0 || cycles().wrapping_sub(start) < most) {
            offered += 1;
            let idle = cycles();
            while cycles().wrapping_sub(idle) < gap {
                spin_loop();
            }
            self.make(1, 0);
            let before = self.track.unique();
            let sent = cycles();
            queues.tx.tx_burst(&mut self.made);
            let back = self.one_back(queues, sent, patience);
            if self.track.unique() > before {
                trips.saturating_record(back.wrapping_sub(sent));
            }
            self.made.clear();
        }
        let spent = cycles().wrapping_sub(start);
        self.drain(queues);
        self.round_trips = trips;
        self.tally(offered, spent, self.track.unique())
    }

    /// Waits until a frame returns or `patience` has passed; returns the time.
    #[inline]
    fn one_back(&mut self, queues: &mut Queues<'_>, sent: u64, patience: u64) -> u64 {
        loop {
            let count = queues.rx.rx_burst(&mut self.received);
            let now = cycles();
            if count > 0 {
                for at in 0..count {
                    let stamp = self.read(at);
                    self.account(stamp, now);
                }
                self.received.clear();
                return now;
            }
            if now.wrapping_sub(sent) > patience {
                return now;
            }
        }
    }

    /// Sends frames until the first one returns; returns whether that happened within `time`.
    pub(crate) fn first(
        &mut self,
        queues: &mut Queues<'_>,
        time: Duration,
        mut between: impl FnMut(),
    ) -> bool {
        self.base = self.next;
        self.track = Track::new();
        let (all, step) = (self.clock.cycles_in(time), self.clock.cycles_in(PROBE));
        let start = cycles();
        let mut last = start;
        loop {
            let now = cycles();
            if self.track.unique() > 0 || now.wrapping_sub(start) > all {
                self.first_came = monotonic_ns();
                break;
            }
            if now.wrapping_sub(last) > step {
                last = now;
                between();
                self.offer(queues, Offer::PerSecond(0), 1, now);
            }
            self.receive(queues);
        }
        let came = self.track.unique() > 0;
        self.drain(queues);
        came
    }

    /// The time at which [`first`](Self::first) ended its wait, on the system's monotonic clock.
    pub(crate) fn first_came(&self) -> u64 {
        self.first_came
    }

    fn tally(&self, offered: u64, spent: u64, in_time: u64) -> Tally {
        let at = |quantile| match self.round_trips.len() {
            0 => 0,
            _ => self.clock.ns(self.round_trips.value_at_quantile(quantile)),
        };
        Tally {
            offered,
            received: self.track.unique(),
            lost: offered.saturating_sub(self.track.unique()),
            duplicated: self.track.duplicated(),
            reordered: self.track.reordered(),
            corrupted: self.corrupted,
            short: 0,
            nanos: self.clock.ns(spent),
            in_time,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// Calculates how many frames are due.
struct Pace {
    /// Frames per cycle; `None` for as many as possible.
    rate: Option<f64>,
    burst: usize,
    /// The most frames to catch up.
    most: u64,
    /// A round of at least this many cycles was interrupted.
    interrupted: u64,
    /// The start of the last round.
    last: u64,
    /// Frames that were due and are not sent later.
    skipped: u64,
    /// Those of them that no interruption explains.
    short: u64,
}

impl Pace {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn new(offer: Offer, clock: &Clock, burst: usize, ring: u16) -> Self {
        let rate = match offer {
            Offer::Max => None,
            Offer::PerSecond(count) => Some(count as f64 / clock.hz() as f64),
        };
        let most = (u64::from(ring) / CATCH_UP).max(2 * burst as u64);
        let interrupted = clock.cycles_in(INTERRUPTED);
        Self { rate, burst, most, interrupted, last: 0, skipped: 0, short: 0 }
    }

    /// Frames due after `gone` cycles, of which `offered` were made; at most a burst.
    #[inline]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a trial has fewer than 2^52 cycles"
    )]
    fn due(&mut self, gone: u64, offered: u64) -> usize {
        let Some(rate) = self.rate else { return self.burst };
        let open = ((gone as f64 * rate) as u64).saturating_sub(offered + self.skipped);
        let excess = open.saturating_sub(self.most);
        self.skipped += excess;
        if gone - self.last < self.interrupted {
            self.short += excess;
        }
        self.last = gone;
        usize::try_from(open).unwrap_or(usize::MAX).min(self.burst)
    }
}

#[cfg(test)]
mod tests;
