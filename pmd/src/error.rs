//! Errors of a port's control path.

use crate::queue::QueueId;

/// Why a port was not opened, configured or started. Each message is one sentence, mostly with a remedy.
///
/// ```
/// use linecard_pmd::{DevArgs, Error};
/// let error = DevArgs::parse("net_null0,copy").expect_err("a key without a value");
/// assert!(matches!(error, Error::Argument { .. }));
/// assert_eq!(error.to_string(), "net_null0: 'copy' has no value; write copy=VALUE");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device argument that is malformed or not possible.
    #[error("{device}: {problem}; {remedy}")]
    Argument {
        /// The device as it was requested.
        device: String,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        remedy: String,
    },
    /// No driver has that name.
    #[error("no driver for device '{device}'; known drivers: {known}")]
    UnknownDriver {
        /// The device as it was requested.
        device: String,
        /// All known drivers, comma-separated.
        known: String,
    },
    /// A queue count out of range.
    #[error("{port}: {asked} {what} queues requested, the device has {max}; {remedy}")]
    Queues {
        /// Name of the port.
        port: String,
        /// `receive` or `transmit`.
        what: &'static str,
        /// The requested number.
        asked: u16,
        /// The maximum.
        max: u16,
        /// What to do: the device argument that provides more queues, if there is one.
        remedy: String,
    },
    /// A queue that the port does not have.
    #[error("{port}: there is no {queue}, and {queues} of these, from 0 on")]
    NoQueue {
        /// Name of the port.
        port: String,
        /// The requested queue.
        queue: QueueId,
        /// Number of queues of that kind.
        queues: u16,
    },
    /// A ring size out of range or of the wrong shape.
    #[error("{port}: a ring of {asked} descriptors asked, {need} from {min} to {max} is possible")]
    Depth {
        /// Name of the port.
        port: String,
        /// The requested size.
        asked: u16,
        /// Smallest allowed.
        min: u16,
        /// Largest allowed.
        max: u16,
        /// The required form, as a noun phrase (`a power of two`).
        need: &'static str,
    },
    /// An MTU out of range.
    #[error("{port}: an MTU of {asked} asked, {min} to {max} is possible")]
    Mtu {
        /// Name of the port.
        port: String,
        /// The requested MTU.
        asked: u16,
        /// Smallest allowed.
        min: u16,
        /// Largest allowed.
        max: u16,
    },
    /// The peer did not answer, refused, or broke the protocol while the port was set up.
    #[error("{port}: {problem}; {remedy}")]
    Peer {
        /// Name of the port.
        port: String,
        /// What happened.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A system call failed.
    #[error("{port}: {action}: {source}; {remedy}")]
    System {
        /// Name of the port.
        port: String,
        /// The action that failed.
        action: String,
        /// The error of the system call.
        source: std::io::Error,
        /// What to do.
        remedy: String,
    },
    /// Memory for rings could not be allocated.
    #[error("{port}: {source}")]
    Memory {
        /// Name of the port.
        port: String,
        /// The cause.
        source: linecard_eal::Error,
    },
    /// The device does not support the request.
    #[error("{port}: {what} is not supported; {remedy}")]
    Unsupported {
        /// Name of the port.
        port: String,
        /// What was requested.
        what: String,
        /// What to do instead.
        remedy: String,
    },
}

impl Error {
    /// What to do about the error; `None` if the message states what is allowed instead.
    ///
    /// ```
    /// use linecard_pmd::DevArgs;
    /// let error = DevArgs::parse("net_null0,copy").expect_err("a key without a value");
    /// assert_eq!(error.problem(), "net_null0: 'copy' has no value");
    /// assert_eq!(error.remedy(), Some("write copy=VALUE"));
    /// ```
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Argument { remedy, .. }
            | Self::Queues { remedy, .. }
            | Self::Peer { remedy, .. }
            | Self::System { remedy, .. }
            | Self::Unsupported { remedy, .. } => Some(remedy),
            Self::UnknownDriver { .. }
            | Self::NoQueue { .. }
            | Self::Depth { .. }
            | Self::Mtu { .. }
            | Self::Memory { .. } => None,
        }
    }

    /// The message without the [remedy](Self::remedy).
    #[must_use]
    pub fn problem(&self) -> String {
        let mut text = self.to_string();
        if let Some(remedy) = self.remedy() {
            // Each of these messages ends with a semicolon, a space and the remedy.
            text.truncate(text.len().saturating_sub(remedy.len() + 2));
        }
        text
    }
}
