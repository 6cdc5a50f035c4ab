//! Limits of what a port may send: so much in the long run, so much at once.

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// What may still pass. Counts in whatever the limit is in: bytes, frames.
///
/// ```
/// use linecard_switch::rate::TokenBucket;
/// let mut tokens = TokenBucket::new(1000, 10);
/// assert!(tokens.take(10, 0) && !tokens.take(1, 0));
/// assert!(tokens.take(1, 1_000_000)); // a millisecond later
/// assert!(!tokens.take(1, 1_000_000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// A second.
    rate: u64,
    /// At once.
    burst: u64,
    left: u64,
    /// When `left` was right, in nanoseconds.
    at: u64,
}

impl TokenBucket {
    /// A full measure: `rate` a second, `burst` at once.
    #[must_use]
    pub const fn new(rate: u64, burst: u64) -> Self {
        Self { rate, burst, left: burst, at: 0 }
    }

    /// Takes `amount` at the time `now`, in nanoseconds of any clock; whether there was as much. A clock that steps back
    /// brings nothing.
    #[inline]
    pub fn take(&mut self, amount: u64, now: u64) -> bool {
        if self.left < amount {
            self.fill(now);
        }
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    #[cold]
    fn fill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at);
        let earned = u128::from(passed) * u128::from(self.rate) / u128::from(SECOND);
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        if earned == 0 {
            return;
        }
        self.left = self.left.saturating_add(earned).min(self.burst);
        // Only the time that was paid for, so that slow rates lose nothing to rounding.
        let paid = (u128::from(earned) * u128::from(SECOND)).div_ceil(u128::from(self.rate.max(1)));
        self.at = if self.left == self.burst {
            now
        } else {
            self.at.saturating_add(u64::try_from(paid).unwrap_or(u64::MAX))
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However it is asked, no more passes than the rate and one measure, and hardly less when asked without end.
        #[test]
        fn what_passes_is_what_may(rate in 1_u64..10_000_000, burst in 1_u64..100_000, step in 1_u64..50_000_000) {
            let mut tokens = TokenBucket::new(rate, burst);
            let (mut now, mut passed, rounds) = (0_u64, 0_u64, 300_u64);
            for _ in 0..rounds {
                now += step;
                while tokens.take(1, now) && passed < 3_000_000 {
                    passed += 1;
                }
            }
            let earned = u128::from(rate) * u128::from(now) / u128::from(SECOND);
            prop_assert!(u128::from(passed) <= earned + u128::from(burst));
            // Each round earns no more than one measure.
            let a_round = (u128::from(rate) * u128::from(step) / u128::from(SECOND)).min(u128::from(burst));
            let least = (a_round * u128::from(rounds - 1)).min(3_000_000);
            prop_assert!(u128::from(passed) + 10 >= least, "{passed} of {least}");
        }

        #[test]
        fn a_clock_that_goes_wrong_does_no_harm(times: Vec<u64>, rate: u64, burst: u64) {
            let mut tokens = TokenBucket::new(rate, burst);
            for now in times {
                tokens.take(burst / 2, now);
                prop_assert!(tokens.left <= burst);
            }
        }
    }
}
