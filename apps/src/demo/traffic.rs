//! The traffic of one end: sends numbered requests, echoes the peer's, checks every frame.

use hdrhistogram::Histogram;
use linecard::eal::Clock;
use linecard::eal::clock::cycles;
use linecard::mempool::{Burst, Pool};
use linecard::pmd::{RxQueue, TxQueue};

use super::frame::{self, Kind, Maker};
use super::report::{EndReport, Progress};
use linecard_apps_common::Track;

/// The most outstanding requests of one end: the requests and echoes of both ends together fit into any ring
/// of 512, so nothing is dropped for lack of room.
pub(super) const WINDOW: u64 = 128;

/// One request in this many is longer, with these lengths in turn.
const LONG_EVERY: u64 = 16;
const LONG: [usize; 5] = [128, 256, 590, 1024, frame::MAX_LEN];

/// The queues of this end's port.
pub(super) struct Queues<'a> {
    pub(super) rx: &'a mut dyn RxQueue,
    pub(super) tx: &'a mut dyn TxQueue,
}

/// The traffic of one end, and its counters.
pub(super) struct Traffic {
    clock: Clock,
    pool: Pool,
    maker: Maker,
    origin: u8,
    received: Burst,
    echoes: Burst,
    requests: Burst,
    sent: u64,
    in_flight: u64,
    echoed: u64,
    from_peer: Track,
    returned: Track,
    duplicated: u64,
    corrupted: u64,
    round_trips: Histogram<u64>,
    first: Option<u64>,
    last: u64,
}

impl Traffic {
    /// `origin` is 0 for the backend, 1 for the frontend.
    pub(super) fn new(origin: u8, pool: Pool, clock: Clock) -> Self {
        Self {
            clock,
            pool,
            maker: Maker::new(origin),
            origin,
            received: Burst::new(),
            echoes: Burst::new(),
            requests: Burst::new(),
            sent: 0,
            in_flight: 0,
            echoed: 0,
            from_peer: Track::new(),
            returned: Track::new(),
            duplicated: 0,
            corrupted: 0,
            round_trips: Self::histogram(),
            first: None,
            last: 0,
        }
    }

    /// Creates a histogram up to a minute with two significant digits; longer times count as a minute.
    fn histogram() -> Histogram<u64> {
        const MINUTE_NS: u64 = 60_000_000_000;
        Histogram::new_with_bounds(1, MINUTE_NS, 2)
            .unwrap_or_else(|_| unreachable!("bounds and digits are within what a histogram allows"))
    }

    /// Receives, echoes and, with `generate`, sends new requests. Returns how many frames moved.
    pub(super) fn round(&mut self, queues: &mut Queues<'_>, generate: bool) -> usize {
        // Echoes that did not fit are sent first; nothing is received until they are sent.
        let mut moved = self.send_echoes(queues);
        if self.echoes.is_empty() {
            let count = queues.rx.rx_burst(&mut self.received);
            if count > 0 {
                self.take();
                moved += count + self.send_echoes(queues);
            }
        }
        if generate {
            self.make_requests();
        }
        if !self.requests.is_empty() {
            moved += queues.tx.tx_burst(&mut self.requests);
        }
        moved
    }

    fn send_echoes(&mut self, queues: &mut Queues<'_>) -> usize {
        if self.echoes.is_empty() {
            return 0;
        }
        let count = queues.tx.tx_burst(&mut self.echoes);
        self.echoed += count as u64;
        count
    }

    /// Checks the received frames; leaves the echoes to send in `echoes`.
    fn take(&mut self) {
        let now = cycles();
        self.first.get_or_insert(now);
        self.last = now;
        let count = self.received.len();
        for mut packet in self.received.drain(..count) {
            let Some(stamp) = frame::check(packet.data()) else {
                self.corrupted += 1;
                continue;
            };
            match stamp.kind {
                Kind::Echo if stamp.origin == self.origin && stamp.number < self.sent => {
                    if self.returned.arrived(stamp.number) {
                        self.in_flight = self.in_flight.saturating_sub(1);
                        let nanos = self.clock.ns(now.saturating_sub(stamp.time));
                        self.round_trips.saturating_record(nanos);
                    }
                }
                Kind::Request if stamp.origin != self.origin => {
                    if self.from_peer.arrived(stamp.number) {
                        // A received packet is not shared, so its data is writable.
                        packet.data_mut().map(frame::make_echo);
                        // Both bursts have the same size, and `echoes` was empty.
                        let _ = self.echoes.push(packet);
                    }
                }
                Kind::Echo | Kind::Request => self.corrupted += 1,
            }
        }
        self.duplicated = self.from_peer.duplicated() + self.returned.duplicated();
    }

    /// Generates as many requests as the window and one burst allow.
    fn make_requests(&mut self) {
        let room = WINDOW.saturating_sub(self.in_flight).min(self.requests.room() as u64);
        if room < WINDOW.min(16) {
            return;
        }
        let now = cycles();
        for _ in 0..room {
            let Some(mut packet) = self.pool.get() else { return };
            let len = match self.sent % LONG_EVERY {
                0 => LONG[(self.sent / LONG_EVERY) as usize % LONG.len()],
                _ => frame::MIN_LEN,
            };
            let Some(data) = packet.append(len) else { return };
            self.maker.request(data, self.sent, now);
            if self.requests.push(packet).is_err() {
                return;
            }
            self.sent += 1;
            self.in_flight += 1;
        }
    }

    /// Gives up outstanding requests: they count as lost unless they arrive later.
    pub(super) fn write_off(&mut self) {
        self.in_flight = 0;
    }

    pub(super) fn drained(&self) -> bool {
        self.in_flight == 0 && self.requests.is_empty() && self.echoes.is_empty()
    }

    /// Returns the progress so far; the caller sets `drained`.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            received: self.from_peer.unique() + self.returned.unique(),
            p50_ns: self.round_trips.value_at_quantile(0.5),
            p99_ns: self.round_trips.value_at_quantile(0.99),
            drained: false,
        }
    }

    /// Returns the results. `monotonic_ns` is the current time of the system's monotonic clock.
    pub(super) fn report(&self, monotonic_ns: u64) -> EndReport {
        let now = cycles();
        let ago = |cycles: u64| self.clock.ns(now.saturating_sub(cycles));
        EndReport {
            sent: self.sent - self.requests.len() as u64,
            echoed: self.echoed,
            requests: self.from_peer.unique(),
            echoes: self.returned.unique(),
            duplicated: self.duplicated,
            reordered: self.from_peer.reordered() + self.returned.reordered(),
            corrupted: self.corrupted,
            first_ns: self.first.map(|first| monotonic_ns.saturating_sub(ago(first))),
            active_ns: self.first.map_or(0, |first| self.clock.ns(self.last.saturating_sub(first))),
            round_trips: self
                .round_trips
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
            ..EndReport::default()
        }
    }
}
