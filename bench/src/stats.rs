//! Medians and ranges of samples.

use serde::Serialize;

/// Median, minimum and maximum of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The median; of an even number, the mean of the middle two.
    pub(crate) median: f64,
    /// The smallest sample.
    pub(crate) min: f64,
    /// The largest sample.
    pub(crate) max: f64,
}

impl Summary {
    /// Returns the summary of `samples`; `None` if there are none.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// Samples of both sides, taken in turn.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) linecard: Vec<f64>,
    pub(crate) dpdk: Vec<f64>,
}

impl Samples {
    /// Returns the ratio of our median to DPDK's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(Summary::of(&self.linecard)?.median / Summary::of(&self.dpdk)?.median)
    }

    /// Returns the ratios within pairs: changes of the machine between pairs cancel out.
    pub(crate) fn pairs(&self) -> Vec<f64> {
        self.linecard.iter().zip(&self.dpdk).map(|(ours, theirs)| ours / theirs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summarises_odd_even_and_no_samples() {
        let of = |samples: &[f64]| Summary::of(samples).map(|s| (s.median, s.min, s.max));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_pair_shares_its_machine_state() {
        let samples = Samples { linecard: vec![1.0, 10.0, 1.0], dpdk: vec![2.0, 20.0, 20.0] };
        assert_eq!(samples.pairs(), [0.5, 0.5, 0.05]);
        assert_eq!(samples.ratio(), Some(0.05));
    }
}
