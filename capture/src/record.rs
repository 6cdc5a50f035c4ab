//! Records in a ring of 64-byte cells: a header, the frame's bytes, a comment.
//!
//! ```text
//!   0  time, ns since 1970    8  copies lost before    16  length on the wire    20  bytes kept
//!  24  cells of the record   28  queue    30  direction    31  length of the comment
//!  32  the frame, then the comment, then nothing up to the end of the last cell
//! ```

use linecard_ring::{Reservation, Single};

use crate::pcap::encode::{Direction, SNAPLEN};

/// What a ring is made of.
pub(super) type Cell = [u8; CELL];
/// Bytes of a cell: a cache line.
pub(super) const CELL: usize = 64;
const HEADER: usize = 32;
/// Instead of a direction: the record is to be passed over.
const WITHDRAWN: u8 = 0xff;

/// A frame as it was seen.
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
    /// Copies that did not fit into this ring so far.
    pub lost: u64,
    /// Length on the wire.
    pub len: u32,
    /// The queue it passed.
    pub queue: u16,
    /// Which way.
    pub direction: Direction,
    /// Its bytes, as far as they were kept.
    pub data: &'a [u8],
    /// Why it was dropped; empty for a frame that passed.
    pub comment: &'a str,
}

/// Cells of a record with so many bytes of frame and comment.
pub(super) const fn cells(kept: usize, comment: usize) -> usize {
    (HEADER + kept + comment).div_ceil(CELL)
}

/// Longest comment.
pub(super) const COMMENT: usize = u8::MAX as usize;

/// Fills cells with bytes from anywhere.
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
                // There is room for the whole record: `write`.
                _ = self.slots.write(self.cell);
                self.used = 0;
            }
        }
    }

    /// Ends the record with a whole cell.
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
    // Fit: bounded by the longest snapshot, 2^18.
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

/// The first cell of a record that tells nothing after all, whose frame took `kept` bytes.
pub(super) fn withdrawn(kept: usize) -> Cell {
    let mut cell = [0; CELL];
    // Fit: bounded by the longest snapshot, 2^18.
    cell[20..24].copy_from_slice(&(kept as u32).to_le_bytes());
    cell[24..28].copy_from_slice(&(cells(kept, 0) as u32).to_le_bytes());
    cell[30] = WITHDRAWN;
    cell
}

/// What lies at the beginning of some cells.
pub(super) enum Found<'a> {
    /// A record, and how many cells it takes.
    Frame(Frame<'a>, usize),
    /// So many cells that tell nothing.
    Withdrawn(usize),
    /// Less than a record.
    Part,
    /// No record.
    Garbled,
}

/// Reads the first record of `cells`, which may be anything.
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
