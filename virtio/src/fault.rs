//! What a peer can do wrong, as values. A fault stops one queue, never the process.

use thiserror::Error;

/// Something the peer wrote into a ring that it can not have meant.
///
/// The queue that reports one should be stopped; other queues and ports go on.
///
/// ```
/// use linecard_virtio::PeerFault;
/// let fault = PeerFault::UnknownId { id: 700, size: 256 };
/// assert_eq!(fault.to_string(), "peer returned buffer id 700, which is not in flight (ring size 256)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// The device returned a buffer that was not lent to it.
    #[error("peer returned buffer id {id}, which is not in flight (ring size {size})")]
    UnknownId {
        /// The id it wrote.
        id: u32,
        /// The ring size.
        size: u16,
    },
    /// The device says it wrote more bytes than the buffer has.
    #[error("peer claims to have written {len} bytes into a buffer of {lent}")]
    UsedLen {
        /// The length it wrote.
        len: u32,
        /// The bytes that were lent.
        lent: u32,
    },
    /// The device's used index is not within the buffers in flight.
    #[error("peer moved the used index from {from} to {to} with {in_flight} buffers in flight")]
    UsedJump {
        /// The index up to which completions were taken.
        from: u16,
        /// The index it wrote.
        to: u16,
        /// Buffers in flight.
        in_flight: u16,
    },
    /// The driver's available index is more than a ring ahead.
    #[error("peer moved the available index from {from} to {to}, more than the ring size {size}")]
    AvailJump {
        /// The index up to which chains are completed.
        from: u16,
        /// The index it wrote.
        to: u16,
        /// The ring size.
        size: u16,
    },
    /// A descriptor number outside the table.
    #[error("peer names descriptor {index} of a table of {size}")]
    DescOutOfRange {
        /// The number it wrote.
        index: u16,
        /// Descriptors in the table.
        size: u16,
    },
    /// A chain with more descriptors than the ring (or that loops).
    #[error("peer made a chain of more than {max} descriptors")]
    ChainTooLong {
        /// The most descriptors allowed.
        max: u16,
    },
    /// A chain with more than 2³² − 1 bytes.
    #[error("peer made a chain of {bytes} bytes, more than 4294967295")]
    ChainTooLarge {
        /// Bytes counted so far.
        bytes: u64,
    },
    /// A packed chain whose later descriptors were not written before its head.
    #[error("peer made the head of a chain available before its slot {slot}")]
    ChainIncomplete {
        /// The slot that is not available.
        slot: u16,
    },
    /// A range outside the memory the peer shared.
    #[error("peer gave address {addr:#x} length {len}, which is outside its memory")]
    BadAddress {
        /// The address it wrote.
        addr: u64,
        /// The length it wrote.
        len: u32,
    },
    /// A device-writable descriptor on a transmit queue, or a readable one on a receive queue.
    #[error("peer gave descriptor {index} the wrong direction")]
    WrongDirection {
        /// Its place in the table or ring.
        index: u16,
    },
    /// An indirect descriptor that is not negotiated, nested, combined with NEXT, or of a length that is not a
    /// positive multiple of 16.
    #[error(
        "peer wrote an indirect descriptor of {len} bytes with flags {flags:#x}, which is not allowed here"
    )]
    BadIndirect {
        /// Length of the table in bytes.
        len: u32,
        /// Flags of the descriptor.
        flags: u16,
    },
}
