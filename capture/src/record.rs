//! Records in a ring of 64-byte cells: a header, the frame's bytes, a comment.
//!
//! ```text
//!   0  time, ns since 1970    8  copies lost before    16  length on the wire    20  bytes kept
//!  24  cells of the record   28  queue    30  direction    31  length of the comment
//!  32  the frame, then the comment, then nothing up to the end of the last cell
//! ```

use linecard_ring::{Reservation, Single};

use crate::pcap::encode::{Direction, SNAPLEN};

/// The element of a ring.
pub(super) type Cell = [u8; CELL];
/// The length of a cell in bytes: a cache line.
pub(super) const CELL: usize = 64;
const HEADER: usize = 32;
/// The value of the direction in a record that readers skip.
const WITHDRAWN: u8 = 0xff;

/// A captured frame.
///
/// ```
/// use linecard_capture::Frame;
/// use linecard_capture::pcap::encode::Direction;
/// let frame = Frame { time: 1, lost: 0, len: 60, queue: 0, direction: Direction::In, data: &[0; 60], comment: "" };
/// assert_eq!(frame.data.len(), 60);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The number of copies so far for which this ring had no room.
    pub lost: u64,
    /// The length on the wire.
    pub len: u32,
    /// The queue that it passed.
    pub queue: u16,
    /// The direction.
    pub direction: Direction,
    /// The captured bytes.
    pub data: &'a [u8],
    /// Why it was dropped; empty for a frame that passed.
    pub comment: &'a str,
}

/// The number of cells of a record with this many bytes of frame and comment.
pub(super) const fn cells(kept: usize, comment: usize) -> usize {
    (HEADER + kept + comment).div_ceil(CELL)
}

/// The maximum length of a comment.
pub(super) const COMMENT: usize = u8::MAX as usize;

/// Fills cells with bytes from several slices.
struct Filler<'a, 'b> {
    slots: &'a mut Reservation<'b, Cell, Single>,
    cell: Cell,
    used: usize,
}

impl Filler<'_, '_> {
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CELL - self.used));
            self.cell[self.used..self.used + now.len()].copy_from_slice(now);
            self.used += now.len();
            bytes = later;
            if self.used == CELL {
                // There is room for the whole record, see `write`.
                _ = self.slots.write(self.cell);
                self.used = 0;
            }
        }
    }

    /// Ends the record with a complete cell.
    fn end(mut self) {
        if self.used > 0 {
            self.cell[self.used..].fill(0);
            _ = self.slots.write(self.cell);
        }
    }
}

/// Writes a record whose frame is the first `kept` bytes of `parts`; `slots` has room for it.
pub(super) fn write<'a>(
    slots: &mut Reservation<'_, Cell, Single>,
    frame: &Frame<'_>,
    parts: impl Iterator<Item = &'a [u8]>,
    kept: usize,
) {
    let cells = cells(kept, frame.comment.len());
    let mut filler = Filler { slots, cell: [0; CELL], used: 0 };
    filler.put(&frame.time.to_le_bytes());
    filler.put(&frame.lost.to_le_bytes());
    filler.put(&frame.len.to_le_bytes());
    // Fits: limited by the longest snapshot, 2^18.
    filler.put(&(kept as u32).to_le_bytes());
    filler.put(&(cells as u32).to_le_bytes());
    filler.put(&frame.queue.to_le_bytes());
    filler.put(&[frame.direction as u8, frame.comment.len() as u8]);
    let mut left = kept;
    for part in parts {
        let part = &part[..part.len().min(left)];
        filler.put(part);
        left -= part.len();
    }
    filler.put(frame.comment.as_bytes());
    filler.end();
}

/// The first cell of a withdrawn record, whose frame took `kept` bytes.
pub(super) fn withdrawn(kept: usize) -> Cell {
    let mut cell = [0; CELL];
    // Fits: limited by the longest snapshot, 2^18.
    cell[20..24].copy_from_slice(&(kept as u32).to_le_bytes());
    cell[24..28].copy_from_slice(&(cells(kept, 0) as u32).to_le_bytes());
    cell[30] = WITHDRAWN;
    cell
}

/// The content at the beginning of some cells.
pub(super) enum Found<'a> {
    /// A record, and its number of cells.
    Frame(Frame<'a>, usize),
    /// This many cells to skip.
    Withdrawn(usize),
    /// An incomplete record.
    Part,
    /// Not a record.
    Garbled,
}

/// Reads the first record of `cells`, whose content may be anything.
pub(super) fn read(cells: &[Cell]) -> Found<'_> {
    let bytes = cells.as_flattened();
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return Found::Part };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let (kept, count, comment) = (word(20) as usize, word(24) as usize, usize::from(header[31]));
    if count != self::cells(kept, comment) || kept > SNAPLEN as usize {
        return Found::Garbled;
    }
    if count > cells.len() {
        return Found::Part;
    }
    let (Some(data), Some(comment)) = (rest.get(..kept), rest.get(kept..kept + comment)) else {
        return Found::Garbled;
    };
    if header[30] == WITHDRAWN {
        return Found::Withdrawn(count);
    }
    let direction = match header[30] {
        1 => Direction::In,
        2 => Direction::Out,
        _ => Direction::Unknown,
    };
    let frame = Frame {
        time: long(0),
        lost: long(8),
        len: word(16),
        queue: u16::from_le_bytes([header[28], header[29]]),
        direction,
        data,
        comment: std::str::from_utf8(comment).unwrap_or("garbled"),
    };
    Found::Frame(frame, count)
}
