//! Time in cycles: from the processor's counter if it is reliable, otherwise from CLOCK_MONOTONIC.

use std::time::Duration;

use crate::sys::{monotonic_ns, tsc};

/// How long the counter is compared with CLOCK_MONOTONIC. Each end is read to about 50 ns: 25 parts in a
/// million. Programs wait for this at start.
const CALIBRATION: Duration = Duration::from_millis(2);

/// The current cycle count, for short intervals: the raw counter, reliable or not. Use [`Clock::cycles`] to
/// convert to time.
///
/// ```
/// let start = linecard_eal::clock::cycles();
/// assert!(linecard_eal::clock::cycles().wrapping_sub(start) < 1 << 40);
/// ```
#[inline(always)]
#[must_use]
pub fn cycles() -> u64 {
    tsc::read()
}

/// A cycle counter and its rate. Small and `Copy`: give every thread its own.
///
/// ```
/// use linecard_eal::Clock;
///
/// let clock = Clock::calibrated();
/// let start = clock.cycles();
/// std::thread::sleep(std::time::Duration::from_millis(2));
/// assert!(clock.ns(clock.cycles() - start) >= 2_000_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    hz: u64,
    /// Nanoseconds per cycle, times 2³².
    ns_per_cycle: u64,
    invariant: bool,
}

impl Clock {
    /// The processor's counter, if it is invariant, at the rate that the processor reports or at one measured
    /// within 10 ms; otherwise CLOCK_MONOTONIC at 1 GHz.
    #[must_use]
    pub fn calibrated() -> Self {
        let invariant = tsc::invariant();
        let hz = if invariant { tsc::stated_hz().unwrap_or_else(measure) } else { 1_000_000_000 };
        Self::new(hz, invariant)
    }

    fn new(hz: u64, invariant: bool) -> Self {
        let hz = hz.max(1);
        let ns_per_cycle = (1_000_000_000_u128 << 32) / u128::from(hz);
        Self { hz, ns_per_cycle: u64::try_from(ns_per_cycle).unwrap_or(u64::MAX), invariant }
    }

    /// The current cycle count. Never decreases on one core.
    #[inline]
    #[must_use]
    pub fn cycles(&self) -> u64 {
        if self.invariant { tsc::read() } else { monotonic_ns() }
    }

    /// The number of cycles per second.
    #[inline]
    #[must_use]
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// The duration of `cycles` in nanoseconds, rounded down; the error is at most 2⁻³² ns per cycle, plus 1
    /// ns.
    #[inline]
    #[must_use]
    pub fn ns(&self, cycles: u64) -> u64 {
        let ns = (u128::from(cycles) * u128::from(self.ns_per_cycle)) >> 32;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// The number of cycles in a time span.
    #[must_use]
    pub fn cycles_in(&self, span: Duration) -> u64 {
        let cycles = span.as_nanos().saturating_mul(u128::from(self.hz)) / 1_000_000_000;
        u64::try_from(cycles).unwrap_or(u64::MAX)
    }

    /// Whether cycles come from the processor's counter, which then has the same rate on all cores. Otherwise
    /// they are nanoseconds of CLOCK_MONOTONIC.
    #[inline]
    #[must_use]
    pub const fn invariant(&self) -> bool {
        self.invariant
    }
}

/// Measures the counter's rate by comparing it with CLOCK_MONOTONIC.
fn measure() -> u64 {
    let (cycles_0, ns_0) = sample();
    std::thread::sleep(CALIBRATION);
    let (cycles_1, ns_1) = sample();
    let cycles = u128::from(cycles_1.wrapping_sub(cycles_0));
    let hz = cycles * 1_000_000_000 / u128::from(ns_1.wrapping_sub(ns_0)).max(1);
    u64::try_from(hz).unwrap_or(u64::MAX)
}

/// Reads both clocks at one moment: the closest of several attempts, so that an interruption between the
/// reads does not count.
fn sample() -> (u64, u64) {
    let attempt = || {
        let before = tsc::read();
        let ns = monotonic_ns();
        let width = tsc::read().wrapping_sub(before);
        (width, before.wrapping_add(width / 2), ns)
    };
    let best = (0..8).map(|_| attempt()).min_by_key(|(width, ..)| *width);
    best.map_or((0, 0), |(_, cycles, ns)| (cycles, ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_system_clock() {
        let clock = Clock::calibrated();
        let (start, ns) = (clock.cycles(), monotonic_ns());
        std::thread::sleep(Duration::from_millis(20));
        let (cycles, ns) = (clock.cycles() - start, monotonic_ns() - ns);
        // A busy machine may interrupt between the two reads; 2 % of 20 ms is far above that.
        assert!(clock.ns(cycles).abs_diff(ns) < ns / 50, "{} and {ns}", clock.ns(cycles));
    }

    #[test]
    fn measured_rate_is_repeatable() {
        let (a, b) = (measure(), measure());
        assert!(a.abs_diff(b) < a / 100, "{a} and {b}");
    }

    #[test]
    fn conversion_is_exact_at_the_edges() {
        for (hz, cycles, ns) in [
            (1_000_000_000, 0, 0),
            (1_000_000_000, u64::MAX, u64::MAX),
            (2_000_000_000, 3, 1),
            (2_500_000_000, 2_500_000_000, 999_999_999),
            (1_000, u64::MAX, u64::MAX),
            (0, 7, 7_000_000_000),
        ] {
            let error = Clock::new(hz, true).ns(cycles).abs_diff(ns);
            assert!(error <= 1, "{cycles} cycles at {hz} Hz");
        }
        let clock = Clock::new(2_400_000_000, true);
        assert_eq!(clock.cycles_in(Duration::from_micros(10)), 24_000);
        assert_eq!(clock.cycles_in(Duration::MAX), u64::MAX);
    }
}
