//! Searches the highest rate with acceptable loss: by bisection, as in RFC 2544 (26.1), with longer trials at
//! the end.

/// The parameters of a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    /// The highest rate to try, which is the tester's limit.
    pub(crate) most: f64,
    /// Acceptable share of lost packets.
    pub(crate) allowed: f64,
    /// The precision at which the search ends, as a share of the rate.
    pub(crate) precision: f64,
}

/// The parameters of one trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Trial {
    /// Million packets per second.
    pub(crate) rate: f64,
    /// A final, longer trial.
    pub(crate) last: bool,
}

/// The share of the highest rate below which the search ends.
const FLOOR: f64 = 1.0 / 1024.0;
/// The most final trials until one passes; each rate is a growing number of precision steps lower.
const LAST_TRIALS: i32 = 6;

impl Search {
    /// Returns the rate; 0 when even the lowest loses too much. `lost` runs a trial and returns the share of
    /// lost packets.
    ///
    /// # Errors
    /// The first error of `lost`.
    pub(crate) fn run<E>(&self, mut lost: impl FnMut(Trial) -> Result<f64, E>) -> Result<f64, E> {
        let (mut low, mut high) = (0.0, self.most);
        if lost(Trial { rate: high, last: false })? <= self.allowed {
            low = high;
        }
        while high - low > self.precision * high && high > self.most * FLOOR {
            let rate = f64::midpoint(low, high);
            let passed = lost(Trial { rate, last: false })? <= self.allowed;
            *(if passed { &mut low } else { &mut high }) = rate;
        }
        let mut rate = low;
        for step in 0..LAST_TRIALS {
            if rate <= 0.0 || lost(Trial { rate, last: true })? <= self.allowed {
                return Ok(rate);
            }
            rate *= 1.0 - self.precision * f64::from(1 << step);
        }
        Ok(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search { most: 20.0, allowed: 0.0, precision: 0.01 };

    fn find(search: Search, mut lost: impl FnMut(Trial) -> f64) -> (f64, Vec<Trial>) {
        let mut trials = Vec::new();
        let found = search.run(|trial| {
            trials.push(trial);
            Ok::<_, ()>(lost(trial))
        });
        (found.expect("no trial fails"), trials)
    }

    /// Everything above `capacity` is lost.
    fn over(capacity: f64) -> impl Fn(Trial) -> f64 {
        move |trial| (1.0 - capacity / trial.rate).max(0.0)
    }

    #[test]
    fn the_capacity_is_found_within_the_precision() {
        for capacity in [0.1, 1.0, 7.77, 15.0, 19.99] {
            let (rate, trials) = find(SEARCH, over(capacity));
            assert!(rate <= capacity && rate >= capacity * 0.98, "{capacity}: {rate}");
            assert!(trials.len() < 20, "{trials:?}");
            assert_eq!(trials.last(), Some(&Trial { rate, last: true }));
        }
    }

    #[test]
    fn what_never_loses_takes_one_trial_and_a_last_one() {
        let (rate, trials) = find(SEARCH, |_| 0.0);
        assert_eq!((rate, trials.len()), (20.0, 2));
    }

    #[test]
    fn what_always_loses_has_no_rate() {
        let (rate, trials) = find(SEARCH, |_| 0.5);
        assert_eq!(rate, 0.0);
        assert!(trials.iter().all(|trial| !trial.last), "{trials:?}");
    }

    #[test]
    fn an_allowance_finds_a_higher_rate() {
        let (rate, _) = find(Search { allowed: 0.005, ..SEARCH }, over(10.0));
        assert!(rate > 9.9 && rate <= 10.0 / 0.995, "{rate}");
    }

    #[test]
    fn a_last_trial_that_loses_goes_lower() {
        let (rate, trials) =
            find(SEARCH, |trial| if trial.last { over(8.0)(trial) } else { over(9.0)(trial) });
        assert!(rate <= 8.0 && rate > 6.0, "{rate}");
        assert!(trials.iter().filter(|trial| trial.last).count() > 2);
        let (rate, _) = find(SEARCH, |trial| f64::from(u8::from(trial.last)));
        assert_eq!(rate, 0.0, "a rate that no longer trial confirms is none");
    }

    #[test]
    fn a_trial_that_fails_ends_the_search() {
        assert_eq!(SEARCH.run(|_| Err("gone")), Err("gone"));
    }
}
