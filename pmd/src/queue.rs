//! Identifiers of single queues of a started port.

use std::fmt;

/// A queue of a port; for [`PortControl`](crate::PortControl) and
/// [`PortConfig::deferred`](crate::PortConfig::deferred).
///
/// ```
/// use linecard_pmd::QueueId;
/// assert_eq!(QueueId::Receive(2).to_string(), "receive queue 2");
/// assert_eq!(QueueId::Transmit(0).index(), 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueId {
    /// A receive queue, by its number.
    Receive(u16),
    /// A transmit queue, by its number.
    Transmit(u16),
}

impl QueueId {
    /// The number of the queue among the queues of its kind.
    #[must_use]
    pub const fn index(self) -> u16 {
        match self {
            Self::Receive(index) | Self::Transmit(index) => index,
        }
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive(index) => write!(f, "receive queue {index}"),
            Self::Transmit(index) => write!(f, "transmit queue {index}"),
        }
    }
}
