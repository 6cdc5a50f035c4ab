//! Bootstrap confidence intervals of ratios.

use linecard::eal::random::SplitMix64;
use serde::Serialize;

use crate::stats::Summary;

/// A ratio and its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Interval {
    /// Ratio of the medians.
    pub(crate) median: f64,
    /// 2.5th percentile.
    pub(crate) low: f64,
    /// 97.5th percentile.
    pub(crate) high: f64,
}

/// Resamplings per interval; with this many, the ends vary only in the third digit.
const DRAWS: usize = 4000;
/// An arbitrary seed; fixed, so that the same samples always give the same interval.
const SEED: u64 = 0x6c69_6e65_6361_7264;

/// Returns the ratio of two medians with its bootstrap interval. Both sides are resampled with replacement,
/// independently, because rejected samples leave no pairs. `None` without samples on either side.
pub(crate) fn ratio(over: &[f64], under: &[f64]) -> Option<Interval> {
    let median = Summary::of(over)?.median / Summary::of(under)?.median;
    Some(interval(median, |random| median_of(random, over) / median_of(random, under)))
}

/// Returns the median of ratios that were each taken within a pair, with its bootstrap interval: pairs are
/// resampled with replacement. `None` without any.
pub(crate) fn paired(ratios: &[f64]) -> Option<Interval> {
    Some(interval(Summary::of(ratios)?.median, |random| median_of(random, ratios)))
}

fn interval(median: f64, draw: impl Fn(&mut SplitMix64) -> f64) -> Interval {
    let mut random = SplitMix64::new(SEED);
    let mut draws: Vec<f64> = (0..DRAWS).map(|_| draw(&mut random)).collect();
    draws.sort_by(f64::total_cmp);
    Interval { median, low: draws[DRAWS / 40], high: draws[DRAWS - 1 - DRAWS / 40] }
}

/// Resamples `samples` with replacement, to the same number, and returns the median.
fn median_of(random: &mut SplitMix64, samples: &[f64]) -> f64 {
    let mut pick = || samples[random.below(samples.len() as u64) as usize];
    let picks: Vec<f64> = (0..samples.len()).map(|_| pick()).collect();
    Summary::of(&picks).map_or(f64::NAN, |summary| summary.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_samples_have_a_ratio_without_width() {
        let interval = ratio(&[3.0; 10], &[2.0; 10]);
        assert_eq!(interval, Some(Interval { median: 1.5, low: 1.5, high: 1.5 }));
        assert_eq!(ratio(&[], &[1.0]), None);
        assert_eq!(ratio(&[1.0], &[]), None);
        assert_eq!(paired(&[1.5; 10]), interval);
        assert_eq!(paired(&[]), None);
    }

    #[test]
    fn what_pairs_share_falls_out() {
        let machine = [1.0, 3.0, 0.5, 2.0, 1.5, 4.0, 0.7, 1.1, 2.5, 0.9];
        let (over, under) = (machine.map(|speed| speed * 2.0), machine);
        let ratios: Vec<f64> = over.iter().zip(under).map(|(a, b)| a / b).collect();
        assert_eq!(paired(&ratios), Some(Interval { median: 2.0, low: 2.0, high: 2.0 }));
        assert!(ratio(&over, &under).is_some_and(|interval| interval.high > 2.0 * interval.low));
    }

    #[test]
    fn the_interval_holds_the_ratio_and_is_repeatable() {
        let over = [20.0, 22.0, 18.0, 25.0, 21.0, 19.5, 20.5, 23.0, 17.0, 21.5];
        let under = [10.0, 11.0, 9.0, 12.0, 10.5, 9.5, 10.2, 11.5, 8.5, 10.8];
        let interval = ratio(&over, &under).expect("samples");
        assert!(interval.low < interval.median && interval.median < interval.high, "{interval:?}");
        assert!(interval.low > 1.5 && interval.high < 2.6, "{interval:?}");
        assert_eq!(ratio(&over, &under), Some(interval));
    }

    #[test]
    fn ends_are_reached_as_often_as_chance_says() {
        // One sample of two differs: a quarter of the resamplings consists of only one of them, so both ends
        // are in the interval.
        let interval = ratio(&[1.0, 3.0], &[1.0]).expect("samples");
        assert_eq!((interval.low, interval.median, interval.high), (1.0, 2.0, 3.0));
    }
}
