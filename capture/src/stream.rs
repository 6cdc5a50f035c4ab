//! The reader of a capture: the records of all rings, earliest first.

use std::os::fd::OwnedFd;

use super::CaptureError;
use super::memory::{self, Consumer, RingExtent};
use super::record::{self, Cell, Found, Frame};

/// The number of cells taken from a ring at a time, unless a record is longer.
const TAKE: usize = 4096;

/// One ring, and cells taken from it.
struct RingReader {
    ring: Consumer,
    cells: Vec<Cell>,
    /// Cells before this index were returned.
    start: usize,
    /// Cells from this index on are unused.
    end: usize,
}

impl RingReader {
    /// Takes more cells from the ring; false if there are none.
    fn refill(&mut self) -> bool {
        self.cells.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.cells.len() {
            self.cells.resize(self.cells.len() * 2, [0; size_of::<Cell>()]);
        }
        let taken = self.ring.dequeue_burst(&mut self.cells[self.end..]).count;
        self.end += taken;
        taken > 0
    }

    /// The time of the next complete record, if any, taken from the ring if necessary.
    fn time(&mut self) -> Result<Option<u64>, CaptureError> {
        loop {
            match record::read(&self.cells[self.start..self.end]) {
                Found::Frame(frame, _) => return Ok(Some(frame.time)),
                Found::Withdrawn(count) => self.start += count,
                Found::Garbled if self.start < self.end => {
                    let text = "the capture ring is garbled; the captured process misbehaves, start it anew";
                    return Err(CaptureError::Refused(text.into()));
                }
                Found::Part | Found::Garbled => {
                    if !self.refill() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// Records of a capture; made by [`Hub::open`](super::Hub::open) or [`Client::capture`](super::Client::capture).
///
/// The earliest of the available records comes first; a record that another queue publishes later may be
/// earlier.
///
/// ```
/// use linecard_capture::{Frame, Stream};
/// fn bytes(stream: &mut Stream) -> usize {
///     let mut sum = 0;
///     while let Ok(Some(Frame { data, .. })) = stream.next() {
///         sum += data.len();
///     }
///     sum
/// }
/// ```
pub struct Stream {
    lanes: Vec<RingReader>,
}

impl Stream {
    pub(super) fn attach(file: &OwnedFd, places: &[RingExtent]) -> std::io::Result<Self> {
        let lane = |ring| RingReader { ring, cells: vec![[0; size_of::<Cell>()]; TAKE], start: 0, end: 0 };
        Ok(Self { lanes: memory::attach(file, places)?.into_iter().map(lane).collect() })
    }

    /// Returns the next record; `None` if there is none now.
    ///
    /// # Errors
    /// A ring has invalid content.
    #[allow(clippy::should_implement_trait, reason = "it lends what it gives")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let mut first: Option<(u64, usize)> = None;
        for (i, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(time) = lane.time()?
                && first.is_none_or(|(earliest, _)| time < earliest)
            {
                first = Some((time, i));
            }
        }
        let Some(lane) = first.and_then(|(_, i)| self.lanes.get_mut(i)) else { return Ok(None) };
        let RingReader { cells, start, end, .. } = lane;
        let Found::Frame(frame, count) = record::read(&cells[*start..*end]) else { return Ok(None) };
        *start += count;
        Ok(Some(frame))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("rings", &self.lanes.len()).finish()
    }
}
