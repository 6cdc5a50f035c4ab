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
