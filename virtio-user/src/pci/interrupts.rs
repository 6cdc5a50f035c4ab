//! The ways in which a device wakes its driver: a message for each ring, one for all, a line, or none.
//!
//! ```text
//!   each ring    message 0: configuration ─► changed     message 1 + n: ring ─► its call
//!   one, line    everything ─► changed ─► control thread ─► call of every ring
//! ```
//! Queues that are polled use no interrupts. They serve queues with a sleeping thread, and changes of the
//! link.

use super::bus::Interrupts;
use super::registers::NO_VECTOR;

/// The selected use of a device's interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A message for the configuration, and one for each ring.
    Each,
    /// One message for everything.
    OneMessage,
    /// The line for everything.
    Line,
    /// No interrupts: the configuration is checked periodically.
    Polled,
}

/// Selects the use of these interrupts for `rings` rings.
pub(super) fn plan(there: Interrupts, rings: usize) -> Plan {
    match there {
        Interrupts::Messages(count) if usize::try_from(count).is_ok_and(|count| count > rings) => Plan::Each,
        Interrupts::Messages(0) | Interrupts::Absent => Plan::Polled,
        Interrupts::Messages(_) => Plan::OneMessage,
        Interrupts::Line => Plan::Line,
    }
}

impl Plan {
    /// Returns the message vector for changes of the configuration.
    pub(super) const fn config_vector(self) -> u16 {
        match self {
            Self::Each | Self::OneMessage => 0,
            Self::Line | Self::Polled => NO_VECTOR,
        }
    }

    /// Returns the message vector of the ring at index `place` among all rings.
    pub(super) fn vector(self, place: Option<usize>) -> u16 {
        let own = place.and_then(|place| u16::try_from(place.saturating_add(1)).ok());
        match self {
            Self::Each => own.unwrap_or(NO_VECTOR),
            Self::OneMessage => 0,
            Self::Line | Self::Polled => NO_VECTOR,
        }
    }

    /// Returns a description to follow the device's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Each => ", an interrupt for each queue",
            Self::OneMessage => ", one interrupt",
            Self::Line => ", an interrupt line",
            Self::Polled => ", no interrupts",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_way_that_is_there_is_used() {
        for (there, rings, want) in [
            (Interrupts::Messages(4), 3, Plan::Each),
            (Interrupts::Messages(3), 3, Plan::OneMessage),
            (Interrupts::Messages(1), 3, Plan::OneMessage),
            (Interrupts::Messages(0), 3, Plan::Polled),
            (Interrupts::Messages(u32::MAX), 257, Plan::Each),
            (Interrupts::Line, 3, Plan::Line),
            (Interrupts::Absent, 3, Plan::Polled),
        ] {
            assert_eq!(plan(there, rings), want, "{there:?}");
        }
        assert_eq!(
            (Plan::Each.config_vector(), Plan::Each.vector(Some(0)), Plan::Each.vector(Some(2))),
            (0, 1, 3)
        );
        assert_eq!((Plan::OneMessage.config_vector(), Plan::OneMessage.vector(Some(2))), (0, 0));
        assert_eq!((Plan::Line.config_vector(), Plan::Line.vector(Some(2))), (NO_VECTOR, NO_VECTOR));
        assert_eq!(Plan::Each.vector(None), NO_VECTOR, "a ring without a call");
        assert_eq!(Plan::Each.vector(Some(0xffff)), NO_VECTOR);
    }
}
