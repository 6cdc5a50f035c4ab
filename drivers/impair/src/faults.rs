//! The faults of a direction, read from arguments.

use std::time::Duration;

use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

/// A probability, in units of 2^-53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chance(pub(super) u64);

/// The [`Chance`] of a certain event.
pub(super) const ALWAYS: u64 = 1 << 53;

impl Chance {
    /// Parses `0.25` or `25%`; from 0 to 1.
    fn parse(text: &str) -> Option<Self> {
        let (digits, unit) = match text.strip_suffix('%') {
            Some(digits) => (digits, 100.0),
            None => (text, 1.0),
        };
        let part = number(digits)? / unit;
        (0.0..=1.0).contains(&part).then_some(Self((part * ALWAYS as f64) as u64))
    }
}

/// The rate limit of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// Packets per second.
    Packets(u64),
    /// Bits of frame data per second.
    Bits(u64),
}

impl Rate {
    /// Parses `1000`, `1000pps`, `10kpps`, `1mpps`, `64kbit`, `10mbit` or `1gbit`.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let (unit, make): (f64, fn(u64) -> Self) = match &text[digits.len()..] {
            "" | "pps" => (1.0, Self::Packets),
            "kpps" => (1e3, Self::Packets),
            "mpps" => (1e6, Self::Packets),
            "bit" => (1.0, Self::Bits),
            "kbit" => (1e3, Self::Bits),
            "mbit" => (1e6, Self::Bits),
            "gbit" => (1e9, Self::Bits),
            _ => return None,
        };
        let rate = number(digits)? * unit;
        (1.0..=1e12).contains(&rate).then(|| make(rate as u64))
    }

    /// Returns the time that a frame of `len` bytes takes, in nanoseconds.
    pub(super) const fn takes(self, len: usize) -> u64 {
        match self {
            Self::Packets(rate) => 1_000_000_000 / rate,
            Self::Bits(rate) => (len as u128 * 8_000_000_000 / rate as u128) as u64,
        }
    }
}

/// Parses `10ms`, `250us`, `1s` or `100ns`; microseconds without a unit, as in netem. At most a minute.
fn span(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ns" => 1.0,
        "" | "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let ns = number(digits)? * unit;
    (0.0..=60e9).contains(&ns).then(|| Duration::from_nanos(ns as u64))
}

/// Parses digits with or without a point; no sign, no exponent.
fn number(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

/// The faults of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) loss: Chance,
    pub(super) duplicate: Chance,
    pub(super) reorder: Chance,
    pub(super) corrupt: Chance,
    pub(super) delay: Duration,
    /// The maximum addition to the delay, evenly distributed.
    pub(super) jitter: Duration,
    pub(super) rate: Option<Rate>,
    /// The number of packets that may wait.
    pub(super) limit: usize,
}

/// The faults of both directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both {
    pub(super) rx: Faults,
    pub(super) tx: Faults,
}

/// The keys of a fault: for both directions, for receive, for transmit.
type Keys = [&'static str; 3];

const LOSS: Keys = ["loss", "rx_loss", "tx_loss"];
const DUPLICATE: Keys = ["duplicate", "rx_duplicate", "tx_duplicate"];
const REORDER: Keys = ["reorder", "rx_reorder", "tx_reorder"];
const CORRUPT: Keys = ["corrupt", "rx_corrupt", "tx_corrupt"];
const DELAY: Keys = ["delay", "rx_delay", "tx_delay"];
const JITTER: Keys = ["jitter", "rx_jitter", "tx_jitter"];
const RATE: Keys = ["rate", "rx_rate", "tx_rate"];
const LIMIT: Keys = ["limit", "rx_limit", "tx_limit"];

/// The default number of packets that may wait; netem's number.
const DEFAULT_LIMIT: usize = 1000;

impl Both {
    pub(super) fn read(args: &DevArgs) -> Result<Self, Error> {
        let mut both = Self { rx: Faults::default(), tx: Faults::default() };
        let chance = "a part from 0 to 1, or a percentage as in 1%";
        for (keys, place) in [
            (LOSS, (&mut both.rx.loss, &mut both.tx.loss)),
            (DUPLICATE, (&mut both.rx.duplicate, &mut both.tx.duplicate)),
            (REORDER, (&mut both.rx.reorder, &mut both.tx.reorder)),
            (CORRUPT, (&mut both.rx.corrupt, &mut both.tx.corrupt)),
        ] {
            let [rx, tx] = read(args, keys, chance, Chance::parse)?;
            (*place.0, *place.1) = (rx.unwrap_or_default(), tx.unwrap_or_default());
        }
        let time = "a time up to 60s, as in 100us, 10ms";
        for (keys, place) in [
            (DELAY, (&mut both.rx.delay, &mut both.tx.delay)),
            (JITTER, (&mut both.rx.jitter, &mut both.tx.jitter)),
        ] {
            let [rx, tx] = read(args, keys, time, span)?;
            (*place.0, *place.1) = (rx.unwrap_or_default(), tx.unwrap_or_default());
        }
        let rate = "a rate as in 1000pps, 10kpps, 64kbit, 10mbit, 1gbit";
        [both.rx.rate, both.tx.rate] = read(args, RATE, rate, Rate::parse)?;
        let limit = |text: &str| text.parse().ok().filter(|limit| (2..=100_000).contains(limit));
        let [rx, tx] = read(args, LIMIT, "a number of packets from 2 to 100000", limit)?;
        both.rx.limit = rx.unwrap_or(DEFAULT_LIMIT);
        both.tx.limit = tx.unwrap_or(DEFAULT_LIMIT);
        Ok(both)
    }
}

/// Reads a fault's values for receive and for transmit. The key of one direction takes precedence.
fn read<T: Copy>(
    args: &DevArgs,
    [all, rx, tx]: Keys,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<[Option<T>; 2], Error> {
    let one = |key| match args.value(key) {
        None => Ok(None),
        Some(text) => match parse(text) {
            Some(value) => Ok(Some(value)),
            None => {
                Err(args.problem(format!("'{key}={text}' is not possible"), format!("give {key} {what}")))
            }
        },
    };
    let both = one(all)?;
    Ok([one(rx)?.or(both), one(tx)?.or(both)])
}

impl Faults {
    /// Returns whether packets pass unchanged.
    pub(super) fn is_clean(&self) -> bool {
        Self { limit: 0, ..*self } == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_times_and_rates() {
        assert_eq!(Chance::parse("1"), Some(Chance(ALWAYS)));
        assert_eq!(Chance::parse("50%"), Chance::parse("0.5"));
        for bad in ["", "%", "1.1", "101%", "-1", "nan", "inf", "1e3", "+0", "0.1.2"] {
            assert_eq!(Chance::parse(bad), None, "{bad}");
        }
        assert_eq!(span("1.5ms"), Some(Duration::from_micros(1500)));
        assert_eq!(span("20"), Some(Duration::from_micros(20)));
        assert_eq!((span("61s"), span("5m"), span("ms")), (None, None, None));
        assert_eq!(Rate::parse("2kpps"), Some(Rate::Packets(2000)));
        assert_eq!(Rate::parse("10mbit").map(|rate| rate.takes(1250)), Some(1_000_000));
        assert_eq!((Rate::parse("0"), Rate::parse("1GB"), Rate::parse("0.1pps")), (None, None, None));
    }
}
