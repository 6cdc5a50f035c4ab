//! Errors of a vhost-user connection.

/// Why a message could not be read, sent or decoded.
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
        /// Bytes received, including the header.
        got: usize,
        /// The full length of the message.
        want: usize,
    },
    /// Nothing arrived, or nothing could be sent, in time.
    #[error("the peer did not {action} within the time allowed; check that it is alive")]
    TimedOut {
        /// The expected action of the peer (`answer`).
        action: &'static str,
    },
    /// The protocol version is not 1.
    #[error("request {request} has protocol version {got}, only version 1 exists; check what is connected")]
    Version {
        /// Request code.
        request: u32,
        /// The version bits of the message.
        got: u32,
    },
    /// The header announces more bytes than a message may have.
    #[error("request {request} announces {size} bytes, at most {max} are allowed; check what is connected")]
    TooLong {
        /// Request code.
        request: u32,
        /// The announced payload length in bytes.
        size: u32,
        /// The largest payload in bytes.
        max: usize,
    },
    /// The kernel dropped file descriptors because this process may not open more.
    #[error("file descriptors of a message were lost; raise the limit on open files (ulimit -n)")]
    FdsLost,
    /// The peer exceeded a limit of its port.
    #[error(transparent)]
    Limit(#[from] crate::ledger::LimitError),
    /// The peer does not read data sent to it.
    #[error("{queued} bytes wait for a peer that does not read, at most {max} are kept; end or fix the peer")]
    Backlog {
        /// The bytes that would be queued.
        queued: usize,
        /// The bytes that may be queued.
        max: usize,
    },
    /// The payload has the wrong length.
    #[error("a {what} payload of {got} bytes came, it must have {want}; check what is connected")]
    PayloadLength {
        /// The payload type.
        what: &'static str,
        /// The bytes received.
        got: usize,
        /// The length of the type in bytes.
        want: usize,
    },
    /// The fields of the payload contradict each other.
    #[error("a {what} payload has {field} {got}, at most {max} is allowed; check what is connected")]
    PayloadField {
        /// The payload type.
        what: &'static str,
        /// The field name.
        field: &'static str,
        /// The value received.
        got: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// A system call failed.
    #[error("{action} on a vhost-user socket failed: {source}")]
    System {
        /// The attempted action.
        action: &'static str,
        /// The error of the system call.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the peer has closed the connection or ended, so that reconnecting is the remedy.
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
