//! What can be wrong with a request for a ring.

use std::fmt;

/// Why a ring could not be made or attached to.
///
/// ```
/// let error = linecard_ring::spsc::ring::<u64>(1000).err().map(|e| e.to_string());
/// assert_eq!(error.as_deref(), Some(
///     "ring capacity 1000 is not a power of two; use 1024, or ask for an exact capacity"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No room for a single element was asked for.
    ZeroCapacity,
    /// More elements than indices can tell apart.
    TooBig {
        /// Elements asked for.
        asked: usize,
        /// Most elements of a ring ([`MAX_CAPACITY`](crate::MAX_CAPACITY)).
        max: usize,
    },
    /// A power of two was asked for, and this is none.
    NotPowerOfTwo {
        /// Elements asked for.
        asked: usize,
        /// The next power of two.
        next: usize,
    },
    /// The watermark lies outside the ring.
    Watermark {
        /// Elements asked for.
        asked: usize,
        /// Elements the ring holds.
        capacity: usize,
    },
    /// The heap has no room for the ring.
    OutOfMemory {
        /// Bytes of the ring.
        bytes: usize,
    },
    /// The given memory is not aligned for a ring.
    Misaligned {
        /// Address given.
        address: usize,
        /// Alignment needed, in bytes.
        align: usize,
    },
    /// The given memory is shorter than the ring.
    RegionTooSmall {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// The memory holds no ring, or its maker is not done yet.
    NotARing,
    /// The ring in memory was made by a version with another layout.
    Version {
        /// Layout version found.
        found: u32,
        /// Layout version of this crate.
        want: u32,
    },
    /// The ring in memory holds other elements.
    Element {
        /// Bytes per element found.
        found: u32,
        /// Bytes per element asked for.
        want: u32,
    },
    /// The ring in memory synchronises this side in another way.
    Mode {
        /// Mode found (`single`, `multi`, `rts`, `hts`, `adaptive` or `unknown`).
        found: &'static str,
        /// Mode asked for.
        want: &'static str,
    },
    /// The header of the ring in memory contradicts itself.
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

/// All slots of a [`Reservation`](crate::Reservation) are written: what [`write`](crate::Reservation::write) says then.
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

/// A slot of a [`Reservation`](crate::Reservation) is not written yet: what [`rewrite`](crate::Reservation::rewrite), where
/// there is an example, says then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotWritten {
    /// The slot, counted from the first of the reservation.
    pub index: usize,
    /// Slots written so far.
    pub written: usize,
}

impl std::error::Error for NotWritten {}

impl fmt::Display for NotWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, written } = self;
        write!(f, "slot {index} of the reservation is not written yet; rewrite one of the first {written}")
    }
}
