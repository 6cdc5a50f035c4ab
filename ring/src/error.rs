//! Errors of creating, attaching to and using a ring.

use std::fmt;

/// Why a ring could not be created or attached to.
///
/// ```
/// let error = linecard_ring::spsc::ring::<u64>(1000).err().map(|e| e.to_string());
/// assert_eq!(error.as_deref(), Some(
///     "ring capacity 1000 is not a power of two; use 1024, or ask for an exact capacity"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The requested capacity is 0.
    ZeroCapacity,
    /// The requested capacity exceeds the range of indices.
    TooBig {
        /// The requested number of elements.
        asked: usize,
        /// The maximum number of elements ([`MAX_CAPACITY`](crate::MAX_CAPACITY)).
        max: usize,
    },
    /// The requested capacity is not a power of two, although required.
    NotPowerOfTwo {
        /// The requested number of elements.
        asked: usize,
        /// The next power of two.
        next: usize,
    },
    /// The watermark is out of range.
    Watermark {
        /// The requested watermark in elements.
        asked: usize,
        /// The number of elements that the ring holds.
        capacity: usize,
    },
    /// The heap has no memory for the ring.
    OutOfMemory {
        /// The length of the ring in bytes.
        bytes: usize,
    },
    /// The given memory is not aligned for a ring.
    Misaligned {
        /// The given address.
        address: usize,
        /// The required alignment in bytes.
        align: usize,
    },
    /// The given memory is shorter than the ring.
    RegionTooSmall {
        /// The given length in bytes.
        have: usize,
        /// The required length in bytes.
        need: usize,
    },
    /// The memory has no ring, or its creation is not complete.
    NotARing,
    /// The ring in memory has the layout of another version.
    Version {
        /// The layout version found.
        found: u32,
        /// The layout version of this crate.
        want: u32,
    },
    /// The ring in memory has elements of another size.
    Element {
        /// The element size found, in bytes.
        found: u32,
        /// The requested element size, in bytes.
        want: u32,
    },
    /// The ring in memory has another mode on this side.
    Mode {
        /// The mode found (`single`, `multi`, `rts`, `hts`, `adaptive` or `unknown`).
        found: &'static str,
        /// The requested mode.
        want: &'static str,
    },
    /// The header of the ring in memory is inconsistent.
    BadHeader,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroCapacity => write!(f, "ring capacity is 0; ask for at least 1 element"),
            Self::TooBig { asked, max } => {
                write!(f, "ring capacity {asked} is too big; ask for at most {max}")
            }
            Self::NotPowerOfTwo { asked, next } => write!(
                f,
                "ring capacity {asked} is not a power of two; use {next}, or ask for an exact capacity"
            ),
            Self::Watermark { asked, capacity } => {
                write!(f, "ring watermark {asked} is out of range; choose 1 to {capacity}")
            }
            Self::OutOfMemory { bytes } => {
                write!(f, "no memory for a ring of {bytes} bytes; ask for a smaller capacity")
            }
            Self::Misaligned { address, align } => {
                write!(f, "ring memory at {address:#x} is misaligned; align it to {align} bytes")
            }
            Self::RegionTooSmall { have, need } => {
                write!(f, "ring memory of {have} bytes is too small; give {need} bytes")
            }
            Self::NotARing => write!(f, "memory holds no ring yet; format it first, then attach"),
            Self::Version { found, want } => write!(
                f,
                "ring memory has layout version {found}, this program knows {want}; run the same version on both sides"
            ),
            Self::Element { found, want } => write!(
                f,
                "ring memory holds elements of {found} bytes, not {want}; use the same element type on both sides"
            ),
            Self::Mode { found, want } => write!(
                f,
                "this side of the ring in memory is {found}, not {want}; attach with the mode it was made with"
            ),
            Self::BadHeader => {
                write!(f, "ring header in memory contradicts itself; format it again")
            }
        }
    }
}

/// All slots of a [`Reservation`](crate::Reservation) are written; returned by
/// [`write`](crate::Reservation::write).
///
/// ```
/// let (mut producer, _consumer) = linecard_ring::spsc::ring::<u32>(8)?;
/// let error = producer.reserve(0).write(1).unwrap_err();
/// assert_eq!(error.to_string(), "all reserved slots are written; publish them, and reserve more");
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllWritten;

impl std::error::Error for AllWritten {}

impl fmt::Display for AllWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all reserved slots are written; publish them, and reserve more")
    }
}

/// The slot of a [`Reservation`](crate::Reservation) is not written yet; returned by
/// [`rewrite`](crate::Reservation::rewrite), which has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotWritten {
    /// The index of the slot in the reservation.
    pub index: usize,
    /// The number of slots written so far.
    pub written: usize,
}

impl std::error::Error for NotWritten {}

impl fmt::Display for NotWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, written } = self;
        write!(f, "slot {index} of the reservation is not written yet; rewrite one of the first {written}")
    }
}
