//! What can go wrong between two ends of a vhost-user socket.

/// Why a message could not be read, sent or understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer closed the connection between two messages.
    #[error("the peer closed the connection; it may be started again")]
    Closed,
    /// The peer closed the connection inside a message.
    #[error(
        "the peer closed the connection after {got} of {want} bytes of a message; it may be started again"
    )]
    Truncated {
        /// Bytes that came, header included.
        got: usize,
        /// Bytes the message should have had.
        want: usize,
    },
    /// Nothing came, or nothing could be sent, in time.
    #[error("the peer did not {action} within the time allowed; check that it is alive")]
    TimedOut {
        /// What was waited for (`answer`).
        action: &'static str,
    },
    /// A protocol version other than 1.
    #[error("request {request} has protocol version {got}, only version 1 exists; check what is connected")]
    Version {
        /// Request code.
        request: u32,
        /// Version bits found.
        got: u32,
    },
    /// A header that promises more than a message may carry.
    #[error("request {request} announces {size} bytes, at most {max} are allowed; check what is connected")]
    TooLong {
        /// Request code.
        request: u32,
        /// Announced payload length in bytes.
        size: u32,
        /// Largest payload in bytes.
        max: usize,
    },
    /// The kernel dropped file descriptors because this process may not open more.
    #[error("file descriptors of a message were lost; raise the limit on open files (ulimit -n)")]
    FdsLost,
    /// The peer made its port take more than a port may.
    #[error(transparent)]
    Limit(#[from] crate::ledger::LimitError),
    /// The peer does not read what is sent to it.
    #[error("{queued} bytes wait for a peer that does not read, at most {max} are kept; end or fix the peer")]
    Backlog {
        /// Bytes that would be queued.
        queued: usize,
        /// Bytes that may be queued.
        max: usize,
    },
    /// A payload of the wrong length.
    #[error("a {what} payload of {got} bytes came, it must have {want}; check what is connected")]
    PayloadLength {
        /// Payload type.
        what: &'static str,
        /// Bytes found.
        got: usize,
        /// Bytes the type has.
        want: usize,
    },
    /// A payload whose fields contradict each other.
    #[error("a {what} payload has {field} {got}, at most {max} is allowed; check what is connected")]
    PayloadField {
        /// Payload type.
        what: &'static str,
        /// Field name.
        field: &'static str,
        /// Value found.
        got: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// The operating system refused.
    #[error("{action} on a vhost-user socket failed: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the peer is simply not there any more, so that reconnecting is the cure.
    pub fn is_peer_gone(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
        match self {
            Self::Closed | Self::Truncated { .. } => true,
            Self::System { source, .. } => {
                matches!(source.kind(), BrokenPipe | ConnectionReset | NotConnected)
            }
            _ => false,
        }
    }
}
