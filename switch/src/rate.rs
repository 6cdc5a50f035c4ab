//! Rate limits of a port: a long-term rate and a burst, whichever workers receive its frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A limit that several threads share. Each takes from it through its own [`TokenBucket`], in slices, so that
/// the shared state is touched once per slice and not for each packet. The unit is that of the limit: bytes
/// or frames.
///
/// The total that passes never exceeds the rate plus one burst. Tokens that a bucket has taken and not used,
/// at most a slice each, are not available to the others; the whole rate is available to any one of them.
///
/// ```
/// use std::sync::Arc;
/// use linecard_switch::rate::{Limit, TokenBucket};
/// let limit = Arc::new(Limit::new(1000, 100).in_slices_of(10));
/// let (mut one, mut other) = (TokenBucket::of(&limit), TokenBucket::of(&limit));
/// assert!(one.take(10, 0) && other.take(50, 0));
/// let rest = (0..100).filter(|_| one.take(1, 0)).count();
/// assert_eq!(rest, 40); // one of them has the rest, if the other does not want it
/// assert!(!other.take(1, 0));
/// ```
#[derive(Debug)]
pub struct Limit {
    /// Per second.
    rate: u64,
    /// The most that may pass at once.
    burst: u64,
    slice: u64,
    /// The time in which a burst is earned, in nanoseconds.
    full: u64,
    /// The time at which the limit is full again, in nanoseconds: by then all that was taken is earned back.
    spent: AtomicU64,
}

impl Limit {
    /// A limit of `rate` per second and `burst` at once, for one thread, which takes all there is. Nothing
    /// passes if `rate` is 0.
    #[must_use]
    pub fn new(rate: u64, burst: u64) -> Self {
        let mut limit = Self { rate, burst, slice: burst, full: 0, spent: AtomicU64::new(0) };
        limit.full = limit.time_of(burst).min(u64::MAX / 2);
        limit
    }

    /// For several threads, which take `slice` at a time.
    #[must_use]
    pub fn in_slices_of(self, slice: u64) -> Self {
        Self { slice: slice.clamp(1, self.burst.max(1)), ..self }
    }

    /// The time in which `amount` is earned, in nanoseconds, rounded up.
    fn time_of(&self, amount: u64) -> u64 {
        let time = (u128::from(amount) * u128::from(SECOND)).div_ceil(u128::from(self.rate.max(1)));
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    /// Takes at least `least` and at most `most`, or nothing; returns the amount.
    fn draw(&self, least: u64, most: u64, now: u64) -> u64 {
        // Relaxed: no other data depends on this value.
        let mut spent = self.spent.load(Ordering::Relaxed);
        loop {
            // A full bucket earns nothing more.
            let from = spent.max(now);
            let time = now.saturating_add(self.full).saturating_sub(from);
            let there = u128::from(time) * u128::from(self.rate) / u128::from(SECOND);
            let there = u64::try_from(there).unwrap_or(u64::MAX).min(self.burst);
            if there < least {
                return 0;
            }
            let taken = there.min(most);
            // Advances only by the time of the taken amount, so that rounding loses nothing at low rates.
            let then = from.saturating_add(self.time_of(taken));
            match self.spent.compare_exchange_weak(spent, then, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return taken,
                Err(other) => spent = other,
            }
        }
    }

    /// Returns tokens that were taken and not used.
    fn give_back(&self, amount: u64) {
        let time = u128::from(amount) * u128::from(SECOND) / u128::from(self.rate.max(1));
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        // The closure always returns `Some`, so this cannot fail.
        let _ = self
            .spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| Some(spent.saturating_sub(time)));
    }
}

/// A thread's share of a [`Limit`].
///
/// ```
/// use linecard_switch::rate::TokenBucket;
/// let mut tokens = TokenBucket::new(1000, 10);
/// assert!(tokens.take(10, 0) && !tokens.take(1, 0));
/// assert!(tokens.take(1, 1_000_000)); // a millisecond later
/// assert!(!tokens.take(1, 1_000_000));
/// ```
#[derive(Debug)]
pub struct TokenBucket {
    limit: Arc<Limit>,
    left: u64,
}

impl TokenBucket {
    /// A bucket with a limit of its own: `rate` per second, `burst` at once.
    #[must_use]
    pub fn new(rate: u64, burst: u64) -> Self {
        Self::of(&Arc::new(Limit::new(rate, burst)))
    }

    /// One of the buckets that share a limit. It takes nothing before its first [`take`](Self::take).
    #[must_use]
    pub fn of(limit: &Arc<Limit>) -> Self {
        Self { limit: Arc::clone(limit), left: 0 }
    }

    /// Takes `amount` at the time `now`; returns whether that much was available. `now` is in nanoseconds of
    /// a clock that all users of the limit share. A clock that steps back adds nothing.
    #[inline]
    pub fn take(&mut self, amount: u64, now: u64) -> bool {
        if self.left < amount {
            self.fill(amount, now);
        }
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    #[cold]
    fn fill(&mut self, amount: u64, now: u64) {
        let Limit { burst, slice, .. } = *self.limit;
        if amount <= burst {
            let most = slice.max(amount) - self.left;
            self.left += self.limit.draw(amount - self.left, most, now);
        }
    }

    /// Returns unused tokens to the others.
    pub fn give_back(&mut self) {
        self.limit.give_back(std::mem::take(&mut self.left));
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
            // One more by rounding.
            prop_assert!(u128::from(passed) <= earned + u128::from(burst) + 1);
            // Each round earns no more than one measure.
            let a_round = (u128::from(rate) * u128::from(step) / u128::from(SECOND)).min(u128::from(burst));
            let least = (a_round * u128::from(rounds - 1)).min(3_000_000);
            prop_assert!(u128::from(passed) + 10 >= least, "{passed} of {least}");
        }

        /// However several ask, they have no more together than one, and one alone has nearly all of it.
        #[test]
        fn those_who_share_have_what_one_has(
            rate in 1_u64..1_000_000,
            burst in 1_u64..10_000,
            slice in 1_u64..20_000,
            asked in prop::collection::vec((0_usize..4, 1_u64..100, 0_u64..2_000_000), 1..400),
        ) {
            let limit = Arc::new(Limit::new(rate, burst).in_slices_of(slice));
            let mut shares: Vec<_> = (0..4).map(|_| TokenBucket::of(&limit)).collect();
            let (mut now, mut passed) = (0_u64, 0_u64);
            for (who, amount, step) in asked {
                now += step;
                if step % 7 == 0 {
                    shares[who].give_back();
                } else if shares[who].take(amount, now) {
                    passed += amount;
                }
            }
            let earned = rate * now / SECOND;
            prop_assert!(passed <= earned + burst + 1, "{passed} of {earned} and {burst}");
            shares.iter_mut().for_each(TokenBucket::give_back);
            // Full again, and all of it is one's.
            let later = now + limit.full + 400;
            let alone = (0..=burst).filter(|_| shares[0].take(1, later)).count() as u64;
            // Each slice may lose a nanosecond's worth.
            prop_assert!(alone <= burst && alone + 2 + burst / 500 >= burst, "{alone} of {burst}");
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
