//! The kinds of samples, and the figures of each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A ring full of packets circulates between two testpmds.
    Closed,
    /// The tester offers checked packets at a rate.
    Open(Offer),
    /// The highest rate without loss, and with half a percent of it.
    ZeroLoss,
    /// One packet goes to a testpmd and back.
    Latency,
    /// The spare capacity of our end of a mixed pair.
    Spare,
    /// Time to the first packet, and memory.
    Startup,
}

/// The rate that the tester offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Packets per second.
    PerSecond(u64),
    /// As many packets as the ring accepts.
    Max,
}

const MILLION: f64 = 1e6;
/// One packet per second: the lower bound of the search for a rate without loss.
const LEAST_MPPS: f64 = 0.000_001;
/// More than any ring can carry; the count of packets still fits every figure.
const MOST_MPPS: f64 = 1000.0;

impl Offer {
    /// Parses million packets per second, or `max`, for clap.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        let mpps: Option<f64> = text.parse().ok().filter(|mpps| (LEAST_MPPS..=MOST_MPPS).contains(mpps));
        mpps.map(|mpps| Self::PerSecond(Self::count(mpps)))
            .ok_or_else(|| format!("give {LEAST_MPPS} to {MOST_MPPS} million packets per second, or max"))
    }

    /// Returns an offer of that many million packets per second, or of the nearest possible rate.
    pub(crate) fn mpps(mpps: f64) -> Self {
        Self::PerSecond(Self::count(mpps))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just here")]
    fn count(mpps: f64) -> u64 {
        (mpps.clamp(LEAST_MPPS, MOST_MPPS) * MILLION).round() as u64
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::PerSecond(count) => {
                let (whole, rest) = (count / 1_000_000, count % 1_000_000);
                let text = format!("{whole}.{rest:06}");
                f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Open(offer) => write!(f, "open-{offer}"),
            Self::ZeroLoss => f.write_str("zero-loss"),
            Self::Latency => f.write_str("latency"),
            Self::Spare => f.write_str("spare"),
            Self::Startup => f.write_str("startup"),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let simple = [Self::Closed, Self::ZeroLoss, Self::Latency, Self::Spare, Self::Startup];
        if let Some(kind) = simple.into_iter().find(|kind| kind.to_string() == text) {
            return Ok(kind);
        }
        let offer = text.strip_prefix("open-").ok_or_else(|| format!("\"{text}\" is no kind of sample"))?;
        Offer::parse(offer).map(Self::Open)
    }
}

impl Kind {
    /// The title of rows of this kind.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Closed => "closed loop".into(),
            Self::Open(Offer::Max) => "open loop, as much as the ring takes".into(),
            Self::Open(offer) => format!("open loop, {offer} Mpps offered"),
            Self::ZeroLoss => "zero-loss rate".into(),
            Self::Latency => "round trip of one packet".into(),
            Self::Spare => "spare cycles".into(),
            Self::Startup => "start-up and memory".into(),
        }
    }

    /// The sort key among kinds.
    pub(crate) const fn rank(self) -> (u8, u64) {
        match self {
            Self::Closed => (0, 0),
            Self::Open(Offer::PerSecond(count)) => (1, count),
            Self::Open(Offer::Max) => (1, u64::MAX),
            Self::ZeroLoss => (2, 0),
            Self::Latency => (3, 0),
            Self::Spare => (4, 0),
            Self::Startup => (5, 0),
        }
    }

    /// The figure of which `ratio` is calculated.
    pub(crate) const fn main(self) -> Metric {
        match self {
            Self::Closed | Self::Open(_) | Self::ZeroLoss => Metric::Mpps,
            Self::Latency => Metric::P50,
            Self::Spare => Metric::Work,
            Self::Startup => Metric::ExecMs,
        }
    }

    /// Further figures that are compared.
    pub(crate) const fn also(self) -> &'static [Metric] {
        match self {
            Self::Latency => &[Metric::P99, Metric::LowP50, Metric::LowP99],
            Self::ZeroLoss => &[Metric::Pdr],
            Self::Open(_) => &[Metric::P50, Metric::P99],
            Self::Startup => &[Metric::ConnectMs, Metric::MemoryMb],
            Self::Closed | Self::Spare => &[],
        }
    }
}

/// A figure of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Million packets per second and direction.
    Mpps,
    /// Million packets per second that the tester offered.
    OfferedMpps,
    /// Numbers of packets.
    Sent,
    Lost,
    Duplicated,
    Reordered,
    Corrupted,
    /// Round trips in microseconds, of an open loop or of one packet in flight.
    P50,
    P90,
    P99,
    P999,
    Max,
    /// Million packets per second of which half a percent is lost.
    Pdr,
    /// Round trips in microseconds at low load.
    LowP50,
    LowP99,
    /// Time-stamp cycles per packet that our end had to spare.
    Work,
    /// Share of its time in which an end moved packets.
    BusyBackend,
    BusyFrontend,
    /// From exec to the first packet, in milliseconds.
    ExecMs,
    /// From the connection to the first packet, in milliseconds.
    ConnectMs,
    /// Resident memory, hugepages and pages shared with the other end included, in megabytes.
    MemoryMb,
    /// Of that, hugepages.
    HugeMb,
    /// Of that, shared memory of ordinary pages.
    ShmemMb,
}

impl Metric {
    /// The unit.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Mpps | Self::OfferedMpps | Self::Pdr => "Mpps",
            Self::Sent | Self::Lost | Self::Duplicated | Self::Reordered | Self::Corrupted => "packets",
            Self::P50 | Self::P90 | Self::P99 | Self::P999 | Self::Max | Self::LowP50 | Self::LowP99 => "µs",
            Self::Work => "cycles",
            Self::BusyBackend | Self::BusyFrontend => "of the time",
            Self::ExecMs | Self::ConnectMs => "ms",
            Self::MemoryMb | Self::HugeMb | Self::ShmemMb => "MB",
        }
    }

    /// The round trips in `latency_us`.
    pub(crate) const ROUND_TRIP: [Self; 5] = [Self::P50, Self::P90, Self::P99, Self::P999, Self::Max];

    pub(crate) const fn less_is_better(self) -> bool {
        !matches!(self, Self::Mpps | Self::OfferedMpps | Self::Pdr | Self::Work)
    }

    /// Whether the figures of several samples are added instead of summarised.
    pub(crate) const fn counts(self) -> bool {
        matches!(self, Self::Sent | Self::Lost | Self::Duplicated | Self::Reordered | Self::Corrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_and_read() {
        for kind in [
            Kind::Closed,
            Kind::Open(Offer::Max),
            Kind::Open(Offer::PerSecond(1_500_000)),
            Kind::Open(Offer::PerSecond(20_000_000)),
            Kind::ZeroLoss,
            Kind::Latency,
            Kind::Spare,
            Kind::Startup,
        ] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(Kind::Open(Offer::mpps(1.5)).to_string(), "open-1.5");
        assert!("open-0".parse::<Kind>().is_err() && "other".parse::<Kind>().is_err());
    }

    #[test]
    fn offers_are_read() {
        assert_eq!(Offer::parse("MAX"), Ok(Offer::Max));
        assert_eq!(Offer::parse("0.1"), Ok(Offer::PerSecond(100_000)));
        for bad in ["0", "-1", "1001", "", "nan", "inf"] {
            assert!(Offer::parse(bad).is_err_and(|text| text.contains("or max")), "{bad}");
        }
        // On an overloaded machine a search tries hundreds of packets per second, or none.
        for rate in [0.000_677, 0.0, MOST_MPPS] {
            let offer = Offer::mpps(rate);
            assert_eq!(Offer::parse(&offer.to_string()), Ok(offer), "{rate}");
        }
    }
}
