//! Burst size statistics: bursts are counted by size and printed in the format of DPDK's testpmd.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::settings::MAX_BURST;

/// The number of counted sizes: from 0 to the largest burst.
const SIZES: usize = MAX_BURST as usize + 1;

/// Burst sizes of one stream, received and sent.
#[derive(Debug, Default)]
pub(crate) struct Bursts {
    pub(crate) rx: Sizes,
    pub(crate) tx: Sizes,
}

/// Counts bursts by their number of packets. One thread adds, any thread reads.
#[derive(Debug)]
pub(crate) struct Sizes {
    counts: Box<[AtomicU64]>,
    base: Mutex<Spread>,
}

impl Default for Sizes {
    fn default() -> Self {
        let counts = (0..SIZES).map(|_| AtomicU64::new(0)).collect();
        Self { counts, base: Mutex::default() }
    }
}

impl Sizes {
    /// Counts a burst. A mode can split packets into more segments than a burst holds; such a burst counts as
    /// full.
    pub(crate) fn add(&self, packets: u32) {
        let count = &self.counts[(packets as usize).min(SIZES - 1)];
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn all(&self) -> Spread {
        Spread(self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }

    /// Restarts all counts at zero.
    pub(crate) fn mark(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = self.all();
    }

    pub(crate) fn spread(&self) -> Spread {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spread = self.all();
        spread.0.iter_mut().zip(&base.0).for_each(|(now, before)| *now -= before);
        spread
    }
}

/// The number of bursts with 0 packets, with 1, and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spread(Vec<u64>);

impl Spread {
    /// Returns the line that DPDK's testpmd prints: the number of bursts, then the share of empty bursts, of
    /// the two most frequent other sizes and of the rest. Empty if there was no burst.
    pub(crate) fn line(&self, side: &str) -> String {
        let total: u64 = self.0.iter().sum();
        if total == 0 {
            return String::new();
        }
        let mut named = vec![(0, self.0[0])];
        named.extend(self.most_frequent());
        let mut parts = Vec::new();
        let mut percent_told = 0;
        let mut told = 0;
        for (packets, bursts) in named {
            let percent = (bursts as f64 / total as f64 * 100.0) as u64;
            parts.push(format!("{percent}% of {packets} pkts"));
            percent_told += percent;
            told += bursts;
            if told == total {
                break;
            }
        }
        if told < total {
            parts.push(format!("{}% of other", 100 - percent_told));
        }
        format!("  {side}-bursts : {total} [{}]\n", parts.join(" + "))
    }

    /// Returns up to two sizes other than 0, the most frequent first.
    fn most_frequent(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut sizes: Vec<_> =
            self.0.iter().copied().enumerate().skip(1).filter(|(_, bursts)| *bursts > 0).collect();
        sizes.sort_by_key(|(_, bursts)| std::cmp::Reverse(*bursts));
        sizes.into_iter().take(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bursts: &[(u32, usize)]) -> String {
        let sizes = Sizes::default();
        for (packets, times) in bursts {
            (0..*times).for_each(|_| sizes.add(*packets));
        }
        sizes.spread().line("RX")
    }

    #[test]
    fn the_line_is_dpdks() {
        assert_eq!(line(&[]), "");
        assert_eq!(line(&[(0, 4)]), "  RX-bursts : 4 [100% of 0 pkts]\n");
        assert_eq!(line(&[(32, 4)]), "  RX-bursts : 4 [0% of 0 pkts + 100% of 32 pkts]\n");
        assert_eq!(
            line(&[(0, 1), (1, 2), (2, 3), (512, 4)]),
            "  RX-bursts : 10 [10% of 0 pkts + 40% of 512 pkts + 30% of 2 pkts + 20% of other]\n"
        );
    }

    #[test]
    fn marks_and_bursts_beyond_the_largest() {
        let sizes = Sizes::default();
        sizes.add(9000);
        assert_eq!(sizes.spread().line("TX"), "  TX-bursts : 1 [0% of 0 pkts + 100% of 512 pkts]\n");
        sizes.mark();
        assert_eq!(sizes.spread().line("TX"), "");
        sizes.add(7);
        assert_eq!(sizes.spread().line("TX"), "  TX-bursts : 1 [0% of 0 pkts + 100% of 7 pkts]\n");
    }
}
