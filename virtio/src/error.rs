//! What can be wrong with a queue's configuration.

use thiserror::Error;

use crate::layout::Layout;

/// A queue could not be made from what was given.
///
/// ```
/// let error = linecard_virtio::Layout::Split.check_size(300).unwrap_err();
/// assert_eq!(error.to_string(), "ring size 300 is not possible: a split ring needs a power of two from 1 to 32768");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A ring size the layout does not have.
    #[error("ring size {asked} is not possible: a {} from 1 to 32768", size_rule(*.layout))]
    Size {
        /// The layout asked for.
        layout: Layout,
        /// The size asked for.
        asked: u32,
    },
    /// An area is too small or not aligned.
    #[error(
        "the {area} area of the ring has {len} bytes at {addr:#x}: it needs {need} bytes aligned to {align}"
    )]
    Area {
        /// `descriptor`, `driver`, `device`, or `whole` for a zone that holds all three.
        area: &'static str,
        /// Where it was.
        addr: usize,
        /// Its bytes.
        len: usize,
        /// The bytes it needs.
        need: usize,
        /// The alignment it needs.
        align: usize,
    },
    /// A start position outside the ring.
    #[error(
        "ring position {base:#x} is not possible with ring size {size}: give what GET_VRING_BASE returned"
    )]
    Base {
        /// The position asked for.
        base: u32,
        /// The ring size.
        size: u16,
    },
    /// Memory for indirect tables that can not hold one table per descriptor.
    #[error(
        "indirect tables need {need} bytes for {tables} tables of {entries} entries (1 to ring size), not {len}"
    )]
    Indirect {
        /// Tables, one per descriptor.
        tables: u16,
        /// Entries asked for per table.
        entries: u16,
        /// Bytes given.
        len: usize,
        /// Bytes needed.
        need: usize,
    },
}

const fn size_rule(layout: Layout) -> &'static str {
    match layout {
        Layout::Split => "split ring needs a power of two",
        Layout::Packed => "packed ring needs a size",
    }
}

/// A buffer was not lent: the ring has too few free descriptors for it, or it is empty or longer than 2³² − 1 bytes.
///
/// ```
/// assert!(linecard_virtio::NotLent.to_string().contains("take back what the device has finished"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the ring has no room for the buffer, or it is empty or longer than 2^32 - 1 bytes: take back what the device has finished, \
     or lend less"
)]
pub struct NotLent;

/// A request was not made: another one is in flight, or it has no element or more than two.
///
/// ```
/// assert!(linecard_virtio::NotSubmitted.to_string().contains("wait for its answer"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a request is in flight, or this one has not 1 or 2 elements: wait for its answer, or give as many")]
pub struct NotSubmitted;
