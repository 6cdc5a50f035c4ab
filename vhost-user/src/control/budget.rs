//! How often one peer may have the pollers' gates closed.

use std::time::{Duration, Instant};

/// Closings that may come at once: more than the setup of all queues of a port takes.
const MOST: u32 = 4096;
/// How long until one more is allowed.
const INTERVAL: Duration = Duration::from_micros(250);

/// Closing a gate interrupts every running thread of the process (`membarrier`), those of other ports too. A peer that
/// sends nothing but requests about rings must not slow them all down, so each port has so many closings and
/// gets further ones as time goes by; they outlast a connection.
pub(super) struct Budget {
    left: u32,
    /// Up to when time was turned into closings.
    at: Instant,
}

impl Budget {
    pub(super) fn full(now: Instant) -> Self {
        Self { left: MOST, at: now }
    }

    /// Whether a gate may be closed now.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_nanos() / INTERVAL.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned >= MOST.saturating_sub(self.left) {
            *self = Self::full(now);
        } else {
            self.left = self.left.saturating_add(earned);
            self.at += INTERVAL.saturating_mul(earned);
        }
        self.left > 0
    }

    /// A gate was closed.
    pub(super) fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_slowed_to_the_rate_and_a_pause_makes_up() {
        let start = Instant::now();
        let mut budget = Budget::full(start);
        let closings = |budget: &mut Budget, now| {
            let mut closed = 0;
            while closed < 10 * MOST && budget.allows(now) {
                budget.spend();
                closed += 1;
            }
            closed
        };
        assert_eq!(closings(&mut budget, start), MOST);
        assert_eq!(closings(&mut budget, start), 0);
        assert_eq!(closings(&mut budget, start + INTERVAL * 5 / 2), 2);
        assert_eq!(closings(&mut budget, start + INTERVAL * 3), 1, "the half is not lost");
        assert_eq!(closings(&mut budget, start + INTERVAL * 10 * MOST), MOST);
    }
}
