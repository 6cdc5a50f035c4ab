//! What is measured: who is at the two ends, over which path, with which packets.

use std::fmt;

use clap::ValueEnum;

use super::path::Path;

/// Who is at the ends: backend (vhost-user), then frontend (virtio-user).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Position {
    /// Our backend, our frontend
    #[value(name = "ours/ours")]
    OursOurs,
    /// DPDK's backend, DPDK's frontend
    #[value(name = "dpdk/dpdk")]
    DpdkDpdk,
    /// Our backend, DPDK's frontend
    #[value(name = "ours/dpdk")]
    OursDpdk,
    /// DPDK's backend, our frontend
    #[value(name = "dpdk/ours")]
    DpdkOurs,
}

/// One of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Ours,
    Dpdk,
}

impl Position {
    /// Backend, frontend.
    pub(crate) const fn tools(self) -> (Tool, Tool) {
        match self {
            Self::OursOurs => (Tool::Ours, Tool::Ours),
            Self::DpdkDpdk => (Tool::Dpdk, Tool::Dpdk),
            Self::OursDpdk => (Tool::Ours, Tool::Dpdk),
            Self::DpdkOurs => (Tool::Dpdk, Tool::Ours),
        }
    }

    /// `backend/frontend`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OursOurs => "ours/ours",
            Self::DpdkDpdk => "dpdk/dpdk",
            Self::OursDpdk => "ours/dpdk",
            Self::DpdkOurs => "dpdk/ours",
        }
    }

    /// Whether DPDK is at one of the ends.
    pub(crate) fn needs_dpdk(self) -> bool {
        self != Self::OursOurs
    }
}

/// Packet lengths without frame check sequence: one for all packets, or a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Bytes(u16),
    /// 64, 594 and 1518 bytes, 7 : 4 : 1.
    Imix,
}

/// The smallest frame testpmd makes, and the largest that fits one buffer of both programs.
const BYTES: std::ops::RangeInclusive<u16> = 60..=9600;

impl Size {
    /// Lengths and how many of twelve packets have them.
    pub(crate) fn parts(self) -> Vec<(u16, u16)> {
        match self {
            Self::Bytes(bytes) => vec![(bytes, 12)],
            Self::Imix => vec![(64, 7), (594, 4), (1518, 1)],
        }
    }

    /// The longest packet.
    pub(crate) fn longest(self) -> u16 {
        self.parts().iter().map(|part| part.0).max().unwrap_or(0)
    }

    /// For clap.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::Imix);
        }
        let bytes = text.parse().ok().filter(|bytes| BYTES.contains(bytes));
        bytes.map(Self::Bytes).ok_or_else(|| {
            format!(
                "give {} to {} bytes, or imix; longer packets do not fit one buffer",
                BYTES.start(),
                BYTES.end()
            )
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Imix => f.write_str("imix"),
        }
    }
}

/// The load: what the ceiling loop has in common with every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) size: Size,
    /// Descriptors per ring.
    pub(crate) ring: u16,
    /// Packets per burst.
    pub(crate) burst: u16,
}

impl Load {
    /// Bursts per packet length that make about one ring full of packets; at least one of each.
    pub(crate) fn first(self) -> Vec<(u16, u16)> {
        let bursts = self.ring / self.burst.max(1);
        let share = |of_twelve: u16| u32::from(bursts) * u32::from(of_twelve) / 12;
        let parts = self.size.parts().into_iter();
        parts
            .map(|(bytes, of_twelve)| (bytes, u16::try_from(share(of_twelve)).unwrap_or(u16::MAX).max(1)))
            .collect()
    }
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Two testpmds.
    Pair(Position, Path),
    /// The loop without checks and features.
    Ceiling,
}

/// One row of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) subject: Subject,
    pub(crate) load: Load,
}

/// Every cell; those to be compared with each other are neighbours.
pub(crate) fn all(positions: &[Position], paths: &[Path], loads: &[Load]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &load in loads {
        for &path in paths {
            let pairs = positions.iter().map(|&position| Subject::Pair(position, path));
            cells.extend(pairs.map(|subject| Cell { subject, load }));
        }
        cells.push(Cell { subject: Subject::Ceiling, load });
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(size: Size, ring: u16, burst: u16) -> Load {
        Load { size, ring, burst }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(Size::parse("64"), Ok(Size::Bytes(64)));
        assert_eq!(Size::parse("IMIX"), Ok(Size::Imix));
        for bad in ["59", "9601", "", "-1", "64 "] {
            assert!(Size::parse(bad).is_err_and(|text| text.contains("60 to 9600")), "{bad}");
        }
    }

    #[test]
    fn the_first_packets_fill_a_ring() {
        assert_eq!(load(Size::Bytes(64), 1024, 32).first(), [(64, 32)]);
        assert_eq!(load(Size::Bytes(64), 256, 32).first(), [(64, 8)]);
        assert_eq!(load(Size::Bytes(64), 256, 1).first(), [(64, 256)]);
        assert_eq!(load(Size::Bytes(64), 32, 64).first(), [(64, 1)]);
        assert_eq!(load(Size::Imix, 1024, 32).first(), [(64, 18), (594, 10), (1518, 2)]);
        assert_eq!(load(Size::Imix, 256, 32).first(), [(64, 4), (594, 2), (1518, 1)]);
    }

    #[test]
    fn each_load_has_one_ceiling_and_every_pair() {
        let loads = [load(Size::Bytes(64), 256, 32), load(Size::Bytes(64), 1024, 32)];
        let cells = all(&[Position::OursOurs, Position::DpdkDpdk], &[Path::Split, Path::Packed], &loads);
        assert_eq!(cells.len(), 2 * (1 + 4));
        assert_eq!(cells.iter().filter(|cell| cell.subject == Subject::Ceiling).count(), 2);
    }

    #[test]
    fn names_match_the_command_line() {
        for position in Position::value_variants() {
            assert_eq!(position.to_possible_value().expect("none is hidden").get_name(), position.name());
        }
    }
}
