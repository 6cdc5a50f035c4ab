//! How sure a median, or a ratio of medians, is.

use serde::Serialize;

use crate::bench::stats::Summary;

/// A figure with the interval that holds it with 95 % probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Interval {
    /// The figure itself: a median, or a ratio of two.
    pub(crate) median: f64,
    /// 2.5th percentile.
    pub(crate) low: f64,
    /// 97.5th percentile.
    pub(crate) high: f64,
}

/// Samples drawn anew for each interval; the ends then vary in the third digit.
const DRAWS: usize = 4000;
/// Any; fixed, so that the same samples always give the same interval.
const SEED: u64 = 0x6c69_6e65_6361_7264;

/// The ratio of two medians with its bootstrap interval: both sides are drawn with replacement, independently, because
/// dropped samples leave no pairs. `None` without samples on either side.
pub(crate) fn ratio(over: &[f64], under: &[f64]) -> Option<Interval> {
    let median = Summary::of(over)?.median / Summary::of(under)?.median;
    let mut random = Random(SEED);
    Some(interval(median, || random.median_of(over) / random.median_of(under)))
}

/// The median of `samples` with its bootstrap interval; `None` without samples.
pub(crate) fn median(samples: &[f64]) -> Option<Interval> {
    let median = Summary::of(samples)?.median;
    let mut random = Random(SEED);
    Some(interval(median, || random.median_of(samples)))
}

/// The middle 95 % of what `draw` gives.
fn interval(median: f64, draw: impl FnMut() -> f64) -> Interval {
    let mut draws: Vec<f64> = std::iter::repeat_with(draw).take(DRAWS).collect();
    draws.sort_by(f64::total_cmp);
    Interval { median, low: draws[DRAWS / 40], high: draws[DRAWS - 1 - DRAWS / 40] }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An index below `end`, which is above 0.
    fn below(&mut self, end: usize) -> usize {
        let wide = u128::from(self.next()) * end as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// The median of as many samples, drawn with replacement.
    fn median_of(&mut self, samples: &[f64]) -> f64 {
        let picks: Vec<f64> = (0..samples.len()).map(|_| samples[self.below(samples.len())]).collect();
        Summary::of(&picks).map_or(f64::NAN, |summary| summary.median)
    }
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
    fn the_interval_of_a_median_holds_it_and_narrows_with_samples() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[2.0; 5]), Some(Interval { median: 2.0, low: 2.0, high: 2.0 }));
        let few: Vec<f64> = (0..9).map(f64::from).collect();
        let many: Vec<f64> = (0..900).map(|k| f64::from(k % 9)).collect();
        let (few, many) = (median(&few).expect("samples"), median(&many).expect("samples"));
        assert!(few.low < 4.0 && few.median == 4.0 && few.high > 4.0, "{few:?}");
        assert!(many.high - many.low < few.high - few.low, "{many:?} {few:?}");
    }

    #[test]
    fn ends_are_reached_as_often_as_chance_says() {
        // One sample of two differs: a draw of two has both equal to it a quarter of the time, so both ends show.
        let interval = ratio(&[1.0, 3.0], &[1.0]).expect("samples");
        assert_eq!((interval.low, interval.median, interval.high), (1.0, 2.0, 3.0));
    }

    #[test]
    fn draws_are_even() {
        let mut random = Random(SEED);
        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }
}
