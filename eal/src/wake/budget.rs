//! A bound on how often a thread arms, which is how often its peers can make it execute `membarrier(2)`.

use std::time::{Duration, Instant};

/// Bounds how often a thread arms its queues: [`PER_SECOND`](Self::PER_SECOND), and up to
/// [`AT_ONCE`](Self::AT_ONCE) in quick succession after a pause.
///
/// A peer that sends a packet whenever the thread has just gone to sleep would otherwise make it execute one
/// `membarrier(2)`, which interrupts the other polling threads of the process, for each of its packets. A
/// thread whose budget is spent polls again after a short sleep of fixed length instead, as a network card
/// with interrupt moderation does. After a quiet time the budget is full, and the first packet wakes the
/// thread at once.
///
/// ```
/// use linecard_eal::wake::ArmBudget;
/// use std::time::{Duration, Instant};
///
/// let (mut budget, now) = (ArmBudget::new(), Instant::now());
/// let armed = (0..1_000_000).filter(|n| budget.take(now + Duration::from_micros(*n))).count();
/// assert_eq!(armed, (ArmBudget::AT_ONCE + ArmBudget::PER_SECOND - 1) as usize); // within one second
/// ```
#[derive(Clone, Debug, Default)]
pub struct ArmBudget {
    /// The time at which the budget is full again, if it is not.
    full: Option<Instant>,
}

/// The time in which one is refilled.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / ArmBudget::PER_SECOND as u64);

impl ArmBudget {
    /// The number of times per second that a thread may arm in the long run.
    pub const PER_SECOND: u32 = 10_000;
    /// The number of times that a thread may arm in quick succession after a pause of 6.4 ms.
    pub const AT_ONCE: u32 = 64;

    /// Creates a full budget.
    #[must_use]
    pub const fn new() -> Self {
        Self { full: None }
    }

    /// Takes one from the budget; false if it is spent at this time.
    #[must_use = "a thread whose budget is spent must not arm"]
    pub fn take(&mut self, now: Instant) -> bool {
        let full = self.full.map_or(now, |full| full.max(now));
        if full.saturating_duration_since(now) > INTERVAL * (Self::AT_ONCE - 1) {
            return false;
        }
        self.full = full.checked_add(INTERVAL);
        true
    }
}
