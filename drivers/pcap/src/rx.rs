//! Receive queues: frames of a file, or the same frames again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use linecard_mempool::{Burst, Packet, Pool};

use linecard_capture::pcap::read::{Damage, Reader};
use linecard_pmd::port::RxQueue;
use linecard_pmd::stats::{QueueStats, Total};

linecard_pmd::causes! {
    /// Why a file's frames are not received.
    pub enum RxLoss {
        /// The pool had no packets; the frame comes with a later burst.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// The file could not be read on, and the queue stopped.
        Damaged = ("damaged_file", Total::Error),
        /// A record without a byte of its frame.
        Empty = ("empty_frame", Total::Error),
        /// More segments than a packet can have.
        TooLong = ("too_long", Total::Error),
    }
}

/// How fast frames are to come.
///
/// ```
/// use linecard_net_pcap::Timing;
/// assert_ne!(Timing::Fast, Timing::Original);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Whenever asked for.
    Fast,
    /// So many packets per second.
    Rate(u64),
    /// As far apart as they were captured.
    Original,
}

/// Where frames come from.
pub(super) trait Source: Send {
    /// Whether a frame is there.
    fn ready(&mut self) -> Result<bool, Damage>;
    fn frame(&self) -> &[u8];
    /// Nanoseconds, to be compared with other times of this source.
    fn time(&self) -> u64;
    fn advance(&mut self);
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
}

/// A file in memory, without end.
pub(super) struct Loop {
    bytes: Vec<u8>,
    /// End of each frame in `bytes`, and its time since the first.
    frames: Vec<(usize, u64)>,
    next: usize,
    start: usize,
    /// Added to the times of this round.
    base: u64,
}

/// Most memory for the frames of one file.
pub(super) const LOOP_BYTES: usize = 256 << 20;

/// Why a file cannot be played in a loop.
pub(super) enum NoLoop {
    Damage(Damage),
    TooLarge,
    Empty,
}

impl Loop {
    pub(super) fn read(path: &Path) -> Result<Self, NoLoop> {
        let mut reader = Reader::open(path).map_err(NoLoop::Damage)?;
        let mut all = Self { bytes: Vec::new(), frames: Vec::new(), next: 0, start: 0, base: 0 };
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
            // The first frame follows the last as if they had been captured at the same time.
            self.base = self.base.saturating_add(self.frames[self.next - 1].1);
            (self.next, self.start) = (0, 0);
        }
    }
}

/// When the next frame is due.
struct Pace {
    timing: Timing,
    started: Option<Instant>,
    /// Time of the first frame (original timing).
    first: u64,
    /// Frames that were due so far (rate).
    given: u64,
    /// Nanoseconds since the start, as of this burst.
    elapsed: u64,
}

/// How far a rate may catch up after nobody asked for a while, in packets.
const CATCH_UP: u64 = linecard_mempool::BURST as u64;

impl Pace {
    const fn new(timing: Timing) -> Self {
        Self { timing, started: None, first: 0, given: 0, elapsed: 0 }
    }

    /// Looks at the clock, if it matters.
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

    /// Whether a frame of `time` may come.
    const fn allows(&self, time: u64) -> bool {
        match self.timing {
            Timing::Fast => true,
            Timing::Rate(rate) => self.given < due(self.elapsed, rate),
            Timing::Original => time.saturating_sub(self.first) <= self.elapsed,
        }
    }
}

/// Frames that are due `elapsed` nanoseconds after the first, itself included.
const fn due(elapsed: u64, rate: u64) -> u64 {
    // Fits: a rate is at most 2^40 (`args`), and what is divided here has 128 bits.
    (elapsed as u128 * rate as u128 / 1_000_000_000) as u64 + 1
}

/// See the module.
pub(super) struct Rx<S> {
    source: S,
    pace: Pace,
    pool: Pool,
    stats: Arc<QueueStats<RxLoss>>,
    /// For the message when the file cannot be read on.
    what: String,
    stopped: bool,
}

impl<S: Source> Rx<S> {
    pub(super) fn new(
        source: S,
        timing: Timing,
        pool: &Pool,
        stats: Arc<QueueStats<RxLoss>>,
        what: String,
    ) -> Self {
        Self { source, pace: Pace::new(timing), pool: pool.clone(), stats, what, stopped: false }
    }

    /// Whether a frame is there; the first time it cannot be known is also the last.
    fn ready(&mut self) -> bool {
        if self.stopped {
            return false;
        }
        match self.source.ready() {
            Ok(true) => true,
            Ok(false) => {
                self.stopped = true;
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
                    // There is room.
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
}

/// Nothing is received: a port that only writes.
pub(super) struct NoRx;

impl RxQueue for NoRx {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        0
    }

    fn path(&self) -> &'static str {
        "off"
    }
}

/// A packet with the bytes of `frame`, in as many segments as it takes.
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
