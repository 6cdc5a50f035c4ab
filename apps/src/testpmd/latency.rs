//! The time that packets stay in this process, as in DPDK's latency statistics: `--latencystats`.

use std::sync::{Mutex, PoisonError};

use linecard::eal::Clock;

/// The weight of a packet in the average, and in the jitter (RFC 1889, 6.3.1), as in DPDK.
const AVERAGE: f64 = 0.2;
const JITTER: f64 = 1.0 / 16.0;

/// The figures of all streams. Created only with `--latencystats`, because each burst takes a lock.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) clock: Clock,
    all: Mutex<Option<Figures>>,
}

/// In cycles.
#[derive(Clone, Copy, Debug)]
struct Figures {
    min: f64,
    average: f64,
    max: f64,
    jitter: f64,
    /// Latency of the previous packet, the reference for the jitter of the next.
    last: f64,
}

impl Latency {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, all: Mutex::default() }
    }

    /// Counts packets that are about to be sent, by their times of arrival.
    pub(crate) fn add(&self, came: impl Iterator<Item = u64>) {
        let now = self.clock.cycles();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for came in came {
            let latency = now.saturating_sub(came) as f64;
            *all = Some(all.map_or_else(|| Figures::first(latency), |figures| figures.with(latency)));
        }
    }

    /// Discards all figures.
    pub(crate) fn clear(&self) {
        *self.all.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns the figures with DPDK's names, in nanoseconds; zeros before the first packet.
    pub(crate) fn named(&self) -> [(&'static str, u64); 4] {
        let all = *self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let ns = |of: fn(Figures) -> f64| all.map_or(0, |figures| self.clock.ns(of(figures) as u64));
        [
            ("min_latency_ns", ns(|figures| figures.min)),
            ("avg_latency_ns", ns(|figures| figures.average)),
            ("max_latency_ns", ns(|figures| figures.max)),
            ("jitter_ns", ns(|figures| figures.jitter)),
        ]
    }

    /// Returns the text that `dpdk-proc-info --metrics` prints.
    pub(crate) fn text(&self) -> String {
        let lines = self.named().map(|(name, value)| format!("{name}: {value}\n"));
        format!("\n  ++++++++++++++ Latency statistics for all ports +++++++++++++++\n{}", lines.concat())
    }
}

impl Figures {
    fn first(latency: f64) -> Self {
        Self { min: latency, average: latency, max: latency, jitter: 0.0, last: latency }
    }

    fn with(self, latency: f64) -> Self {
        Self {
            min: self.min.min(latency),
            average: self.average + AVERAGE * (latency - self.average),
            max: self.max.max(latency),
            jitter: self.jitter + JITTER * ((latency - self.last).abs() - self.jitter),
            last: latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_definitions() {
        let figures = [100.0, 50.0, 150.0].into_iter().fold(None, |figures: Option<Figures>, latency| {
            Some(figures.map_or_else(|| Figures::first(latency), |figures| figures.with(latency)))
        });
        let Figures { min, average, max, jitter, last } = figures.expect("three packets");
        assert_eq!((min, max, last), (50.0, 150.0, 150.0));
        assert!((average - 102.0).abs() < 1e-9, "{average}");
        assert!((jitter - (3.125 + (100.0 - 3.125) / 16.0)).abs() < 1e-9, "{jitter}");
    }

    #[test]
    fn packets_are_counted_by_when_they_came() {
        let latency = Latency::new(Clock::calibrated());
        assert_eq!(latency.named().map(|(_, value)| value), [0; 4]);
        let second = latency.clock.hz();
        let now = latency.clock.cycles();
        latency.add([now - second, now - 2 * second].into_iter());
        let [min, average, max, jitter] = latency.named().map(|(_, value)| value);
        assert!(min >= 1_000_000_000 && max >= min + 999_999_000, "{min} {max}");
        assert!((min..=max).contains(&average) && jitter > 62_000_000, "{average} {jitter}");
        assert!(latency.text().contains("\nmin_latency_ns: 1"), "{}", latency.text());
        latency.clear();
        assert_eq!(latency.named()[2].1, 0);
    }
}
