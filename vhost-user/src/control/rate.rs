//! Limits on the rate or the time of a peer's operations.

use std::mem::replace;
use std::time::{Duration, Instant};

/// A token bucket. It may become negative: overspent tokens are a debt.
pub(super) struct Rate {
    /// Tokens of a full bucket.
    most: u32,
    /// Tokens left; negative for a debt.
    left: i64,
    /// The time up to which tokens were added.
    counted: Instant,
    /// It has been logged that the bucket is empty, and the bucket has not been full since.
    told: bool,
}

impl Rate {
    pub(super) fn full(most: u32, now: Instant) -> Self {
        Self { most, left: i64::from(most), counted: now, told: false }
    }

    /// Sets how many tokens a full bucket has. Spent tokens remain spent.
    pub(super) fn resize(&mut self, most: u32) {
        self.left += i64::from(most) - i64::from(self.most);
        self.most = most;
    }

    /// Whether tokens are left at `now`, if `per_second` are added each second.
    pub(super) fn allows(&mut self, now: Instant, per_second: u32) -> bool {
        let interval = interval(per_second);
        let passed = now.saturating_duration_since(self.counted).as_nanos() / interval.as_nanos();
        let earned = u32::try_from(passed).unwrap_or(u32::MAX);
        let lacking = i64::from(self.most) - self.left;
        if i64::from(earned) >= lacking {
            *self = Self::full(self.most, now);
        } else {
            self.left += i64::from(earned);
            self.counted += interval.saturating_mul(earned);
        }
        self.left > 0
    }

    pub(super) fn spend(&mut self, amount: u32) {
        self.left -= i64::from(amount);
    }

    /// Whether an empty bucket should be logged: for the first time since it was full.
    pub(super) fn is_news(&mut self) -> bool {
        self.left <= 0 && !replace(&mut self.told, true)
    }

    /// The time until a token is available.
    pub(super) fn wait(&self, per_second: u32) -> Duration {
        let lacking = u32::try_from(1 - self.left.min(1)).unwrap_or(u32::MAX);
        interval(per_second).saturating_mul(lacking)
    }
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 4096;
    const PER_SECOND: u32 = 4000;

    #[test]
    fn a_flood_is_slowed_to_the_rate_and_a_pause_makes_up() {
        let start = Instant::now();
        let step = interval(PER_SECOND);
        let mut rate = Rate::full(MOST, start);
        let spent = |rate: &mut Rate, now| {
            let mut spent = 0;
            while spent < 10 * MOST && rate.allows(now, PER_SECOND) {
                rate.spend(1);
                spent += 1;
            }
            spent
        };
        assert!(!rate.is_news());
        assert_eq!(spent(&mut rate, start), MOST);
        assert_eq!(spent(&mut rate, start), 0);
        assert!(rate.is_news());
        assert!(!rate.is_news(), "told");
        assert_eq!(rate.wait(PER_SECOND), step);
        assert_eq!(spent(&mut rate, start + step * 5 / 2), 2);
        assert_eq!(spent(&mut rate, start + step * 3), 1, "the half is not lost");
        assert_eq!(spent(&mut rate, start + step * 10 * MOST), MOST);
        assert!(rate.is_news(), "it was full again");
    }

    #[test]
    fn what_was_spent_stays_spent_in_a_smaller_bucket() {
        let start = Instant::now();
        let mut rate = Rate::full(100, start);
        rate.spend(30);
        rate.resize(40);
        assert!(rate.allows(start, 1));
        rate.spend(10);
        assert!(!rate.allows(start, 1));
        rate.resize(100);
        rate.spend(59);
        assert!(rate.allows(start, 1));
        rate.spend(1);
        assert!(!rate.allows(start, 1));
    }

    #[test]
    fn a_debt_is_paid_first() {
        let start = Instant::now();
        let mut rate = Rate::full(10, start);
        rate.spend(30);
        assert_eq!(rate.wait(10), Duration::from_millis(2100));
        assert!(!rate.allows(start + Duration::from_secs(2), 10));
        assert!(rate.allows(start + Duration::from_millis(2100), 10));
        rate.spend(1);
        assert_eq!(rate.wait(0), Duration::from_secs(1), "nothing a second is one a second");
    }
}
