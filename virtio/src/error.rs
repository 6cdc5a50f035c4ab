//! Errors in the configuration of a queue, and buffers or requests that a queue cannot accept.

use thiserror::Error;

use crate::layout::Layout;

/// Why a queue could not be created.
///
/// ```
/// let error = linecard_virtio::Layout::Split.check_size(300).unwrap_err();
/// assert_eq!(error.to_string(), "ring size 300 is not possible: a split ring needs a power of two from 1 to 32768");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The layout does not allow this ring size.
    #[error("ring size {asked} is not possible: a {} from 1 to 32768", size_rule(*.layout))]
    Size {
        /// The requested layout.
        layout: Layout,
        /// The requested size.
        asked: u32,
    },
    /// An area is too small or not aligned.
    #[error(
        "the {area} area of the ring has {len} bytes at {addr:#x}: it needs {need} bytes aligned to {align}"
    )]
    Area {
        /// `descriptor`, `driver`, `device`, or `whole` for a zone that holds all three.
        area: &'static str,
        /// The address of the area.
        addr: usize,
        /// The length of the area in bytes.
        len: usize,
        /// The required length in bytes.
        need: usize,
        /// The required alignment.
        align: usize,
    },
    /// The start position is outside the ring.
    #[error(
        "ring position {base:#x} is not possible with ring size {size}: give what GET_VRING_BASE returned"
    )]
    Base {
        /// The requested position.
        base: u32,
        /// The ring size.
        size: u16,
    },
    /// The memory for indirect tables cannot hold one table per descriptor.
    #[error(
        "indirect tables need {need} bytes for {tables} tables of {entries} entries (1 to ring size), not {len}"
    )]
    Indirect {
        /// The number of tables, one per descriptor.
        tables: u16,
        /// The requested entries per table.
        entries: u16,
        /// The length of the memory in bytes.
        len: usize,
        /// The required length in bytes.
        need: usize,
    },
}

const fn size_rule(layout: Layout) -> &'static str {
    match layout {
        Layout::Split => "split ring needs a power of two",
        Layout::Packed => "packed ring needs a size",
    }
}

/// A buffer was not added: the ring has too few free descriptors, or the buffer is empty or longer than 2³² −
/// 1 bytes.
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

/// A request was not submitted: another one is in flight, or it has no element or more than two.
///
/// ```
/// assert!(linecard_virtio::NotSubmitted.to_string().contains("wait for its answer"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a request is in flight, or this one has not 1 or 2 elements: wait for its answer, or give as many")]
pub struct NotSubmitted;
