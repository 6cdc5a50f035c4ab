//! Receive queues: the frames of a file, once or in a loop.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use linecard_mempool::{Burst, Packet, Pool};

use super::args::tell_skipped;
use linecard_capture::pcap::read::{Damage, Reader, Skipped};
use linecard_pmd::port::RxQueue;
use linecard_pmd::stats::{QueueStats, Total};
use linecard_pmd::wake::Armed;

linecard_pmd::causes! {
    /// The causes for which frames of a file are not received.
    pub enum RxLoss {
        /// The pool had no packets; the frame is received by a later burst.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// The rest of the file could not be read, and the queue stopped.
        Damaged = ("damaged_file", Total::Error),
        /// The record has no bytes of its frame.
        Empty = ("empty_frame", Total::Error),
        /// The frame needs more segments than a packet can have.
        TooLong = ("too_long", Total::Error),
    }
}

/// The timing of received frames.
///
/// ```
/// use linecard_net_pcap::Timing;
/// assert_ne!(Timing::Fast, Timing::Original);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// As fast as the queue is polled.
    Fast,
    /// This number of packets per second.
    Rate(u64),
    /// With the intervals of the capture.
    Original,
}

/// A source of frames.
pub(super) trait Source: Send {
    /// Returns whether a frame is available.
    fn ready(&mut self) -> Result<bool, Damage>;
    fn frame(&self) -> &[u8];
    /// Returns the frame's time in nanoseconds, comparable with other times of this source.
    fn time(&self) -> u64;
    fn advance(&mut self);
    /// Returns the interfaces that were skipped so far, because they are not Ethernet.
    fn skipped(&self) -> &[Skipped];
}

impl Source for Reader {
    fn ready(&mut self) -> Result<bool, Damage> {
        Self::ready(self)
    }

    fn frame(&self) -> &[u8] {
        Self::frame(self)
    }

    fn time(&self) -> u64 {
        Self::time(self)
    }

    fn advance(&mut self) {
        Self::advance(self);
    }

    fn skipped(&self) -> &[Skipped] {
        Self::skipped(self)
    }
}

/// A file in memory that repeats without end.
pub(super) struct Loop {
    bytes: Vec<u8>,
    /// The end of each frame in `bytes`, and its time since the first.
    frames: Vec<(usize, u64)>,
    skipped: Vec<Skipped>,
    next: usize,
    start: usize,
    /// The offset to the times of this round.
    base: u64,
}

/// The most memory for the frames of one file.
pub(super) const LOOP_BYTES: usize = 256 << 20;

/// The reasons why a file cannot be repeated.
pub(super) enum NoLoop {
    Damage(Damage),
    TooLarge,
    Empty,
}

impl Loop {
    pub(super) fn read(path: &Path) -> Result<Self, NoLoop> {
        let mut reader = Reader::open(path).map_err(NoLoop::Damage)?;
        let (bytes, frames, skipped) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = Self { bytes, frames, skipped, next: 0, start: 0, base: 0 };
        let mut first = None;
        while reader.ready().map_err(NoLoop::Damage)? {
            let frame = reader.frame();
            if all.bytes.len() + frame.len() + all.frames.len() * 16 > LOOP_BYTES {
                return Err(NoLoop::TooLarge);
            }
            let first = *first.get_or_insert(reader.time());
            if !frame.is_empty() {
                all.bytes.extend_from_slice(frame);
                all.frames.push((all.bytes.len(), reader.time().saturating_sub(first)));
            }
            reader.advance();
        }
        all.skipped = reader.skipped().to_vec();
        if all.frames.is_empty() { Err(NoLoop::Empty) } else { Ok(all) }
    }
}

impl Source for Loop {
    fn ready(&mut self) -> Result<bool, Damage> {
        Ok(true)
    }

    fn frame(&self) -> &[u8] {
        &self.bytes[self.start..self.frames[self.next].0]
    }

    fn time(&self) -> u64 {
        self.base.saturating_add(self.frames[self.next].1)
    }

    fn advance(&mut self) {
        self.start = self.frames[self.next].0;
        self.next += 1;
        if self.next == self.frames.len() {
            // The first frame follows the last without an interval.
            self.base = self.base.saturating_add(self.frames[self.next - 1].1);
            (self.next, self.start) = (0, 0);
        }
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

/// Decides when the next frame is due.
struct Pace {
    timing: Timing,
    started: Option<Instant>,
    /// The time of the first frame (original timing).
    first: u64,
    /// The number of frames that were due so far (rate).
    given: u64,
    /// The nanoseconds since the start, as of this burst.
    elapsed: u64,
}

/// The most packets that a rate may catch up after a pause of polling.
const CATCH_UP: u64 = linecard_mempool::BURST as u64;

impl Pace {
    const fn new(timing: Timing) -> Self {
        Self { timing, started: None, first: 0, given: 0, elapsed: 0 }
    }

    /// Reads the clock, unless the timing is `Fast`.
    fn begin(&mut self, first: u64) {
        if self.timing == Timing::Fast {
            return;
        }
        let started = *self.started.get_or_insert_with(|| {
            self.first = first;
            Instant::now()
        });
        self.elapsed = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Timing::Rate(rate) = self.timing {
            self.given = self.given.max(due(self.elapsed, rate).saturating_sub(CATCH_UP));
        }
    }

    /// Returns whether a frame of `time` is due.
    const fn allows(&self, time: u64) -> bool {
        match self.timing {
            Timing::Fast => true,
            Timing::Rate(rate) => self.given < due(self.elapsed, rate),
            Timing::Original => time.saturating_sub(self.first) <= self.elapsed,
        }
    }
}

/// Returns the number of frames due `elapsed` nanoseconds after the first, including it.
const fn due(elapsed: u64, rate: u64) -> u64 {
    // Cannot overflow: a rate is at most 2^40 (`args`), and the dividend has 128 bits.
    (elapsed as u128 * rate as u128 / 1_000_000_000) as u64 + 1
}

/// A receive queue over a source of frames.
pub(super) struct Rx<S> {
    source: S,
    pace: Pace,
    pool: Pool,
    stats: Arc<QueueStats<RxLoss>>,
    /// Names the file in messages.
    what: String,
    /// The interfaces about which a warning was logged.
    told: Vec<Skipped>,
    stopped: bool,
}

impl<S: Source> Rx<S> {
    pub(super) fn new(
        source: S,
        timing: Timing,
        pool: &Pool,
        stats: Arc<QueueStats<RxLoss>>,
        (what, told): (String, Vec<Skipped>),
    ) -> Self {
        Self { source, pace: Pace::new(timing), pool: pool.clone(), stats, what, told, stopped: false }
    }

    /// Returns whether a frame is available. After the end of the file, or an error, it never is again.
    fn ready(&mut self) -> bool {
        if self.stopped {
            return false;
        }
        match self.source.ready() {
            Ok(true) => true,
            Ok(false) => {
                self.stopped = true;
                tell_skipped(&self.what, self.source.skipped(), &self.told);
                false
            }
            Err(damage) => {
                self.stopped = true;
                self.stats.lost(RxLoss::Damaged, 1);
                tracing::warn!("{} {damage}; nothing more is received from it", self.what);
                false
            }
        }
    }
}

impl<S: Source> RxQueue for Rx<S> {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let before = packets.len();
        let mut bytes = 0;
        if packets.room() > 0 && self.ready() {
            self.pace.begin(self.source.time());
        }
        while packets.room() > 0 && self.ready() && self.pace.allows(self.source.time()) {
            match copy_in(&self.pool, self.source.frame()) {
                Ok(packet) => {
                    bytes += packet.len() as u64;
                    // The loop has checked the room.
                    let _ = packets.push(packet);
                }
                Err(RxLoss::NoBuffer) => {
                    self.stats.lost(RxLoss::NoBuffer, 1);
                    break;
                }
                Err(cause) => self.stats.lost(cause, 1),
            }
            self.pace.given += 1;
            self.source.advance();
        }
        let count = packets.len() - before;
        self.stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        match self.pace.timing {
            Timing::Fast => "file",
            Timing::Rate(_) => "file at a rate",
            Timing::Original => "file in its own time",
        }
    }

    /// Frames with a timing become due without waking a thread.
    fn arm(&mut self) -> Armed {
        let now = self.ready() && matches!(self.pace.timing, Timing::Fast);
        if now { Armed::Ready } else { Armed::Unable }
    }
}

/// The receive queue of a port that only writes.
pub(super) struct NoRx;

impl RxQueue for NoRx {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        0
    }

    fn path(&self) -> &'static str {
        "off"
    }
}

/// Copies `frame` into a packet, in as many segments as needed.
fn copy_in(pool: &Pool, frame: &[u8]) -> Result<Packet, RxLoss> {
    let room = usize::from(pool.data_room());
    if frame.is_empty() {
        return Err(RxLoss::Empty);
    }
    if frame.len() > room * usize::from(Packet::MAX_SEGS) {
        return Err(RxLoss::TooLong);
    }
    pool.packet_of(frame, room).ok_or(RxLoss::NoBuffer)
}
