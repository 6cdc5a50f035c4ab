//! Protocol violations by a peer, as values. A fault stops one queue, never the process.

use thiserror::Error;

/// A value in the ring that violates the protocol.
///
/// The queue that reports a fault should be stopped. Other queues and ports continue.
///
/// ```
/// use linecard_virtio::PeerFault;
/// let fault = PeerFault::UnknownId { id: 700, size: 256 };
/// assert_eq!(fault.to_string(), "peer returned buffer id 700, which is not in flight (ring size 256)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// The device returned a buffer that is not in flight.
    #[error("peer returned buffer id {id}, which is not in flight (ring size {size})")]
    UnknownId {
        /// The id in the ring.
        id: u32,
        /// The ring size.
        size: u16,
    },
    /// The device reports more written bytes than the buffer has.
    #[error("peer claims to have written {len} bytes into a buffer of {lent}")]
    UsedLen {
        /// The length in the ring.
        len: u32,
        /// The size of the buffer in bytes.
        lent: u32,
    },
    /// The device's used index is beyond the buffers in flight.
    #[error("peer moved the used index from {from} to {to} with {in_flight} buffers in flight")]
    UsedJump {
        /// The index up to which completions were taken.
        from: u16,
        /// The index in the ring.
        to: u16,
        /// The number of buffers in flight.
        in_flight: u16,
    },
    /// The driver's available index is more than a ring ahead.
    #[error("peer moved the available index from {from} to {to}, more than the ring size {size}")]
    AvailJump {
        /// The index up to which chains are completed.
        from: u16,
        /// The index in the ring.
        to: u16,
        /// The ring size.
        size: u16,
    },
    /// The descriptor number is outside the table.
    #[error("peer names descriptor {index} of a table of {size}")]
    DescOutOfRange {
        /// The number in the ring.
        index: u16,
        /// The number of descriptors in the table.
        size: u16,
    },
    /// The chain has more descriptors than the ring, or loops.
    #[error("peer made a chain of more than {max} descriptors")]
    ChainTooLong {
        /// The largest number of descriptors allowed.
        max: u16,
    },
    /// The chain has more than 2³² − 1 bytes.
    #[error("peer made a chain of {bytes} bytes, more than 4294967295")]
    ChainTooLarge {
        /// The bytes counted so far.
        bytes: u64,
    },
    /// The head of a packed chain was made available before its later descriptors.
    #[error("peer made the head of a chain available before its slot {slot}")]
    ChainIncomplete {
        /// The slot that is not available.
        slot: u16,
    },
    /// The range is outside the memory that the peer shared.
    #[error("peer gave address {addr:#x} length {len}, which is outside its memory")]
    BadAddress {
        /// The address in the ring.
        addr: u64,
        /// The length in the ring.
        len: u32,
    },
    /// A device-writable descriptor on a transmit queue, or a readable one on a receive queue.
    #[error("peer gave descriptor {index} the wrong direction")]
    WrongDirection {
        /// Its index in the table or ring.
        index: u16,
    },
    /// An indirect descriptor that is not negotiated, nested, combined with NEXT, or of a length that is not
    /// a positive multiple of 16.
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
