//! The subjects of measurements: the programs at the two ends, the path and the load.

use std::fmt;

use clap::ValueEnum;

use super::kind::Kind;
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
    /// Our testpmd as backend, the tester as frontend
    #[value(name = "ours/tester")]
    OursTester,
    /// DPDK's testpmd as backend, the tester as frontend
    #[value(name = "dpdk/tester")]
    DpdkTester,
    /// The tester as backend, our testpmd as frontend
    #[value(name = "tester/ours")]
    TesterOurs,
    /// The tester as backend, DPDK's testpmd as frontend
    #[value(name = "tester/dpdk")]
    TesterDpdk,
}

/// One of the compared programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Our testpmd.
    Ours,
    /// DPDK's testpmd.
    Dpdk,
    /// The harness's own end, which numbers, stamps and checks packets.
    Tester,
}

/// One of the two ends of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Backend,
    Frontend,
}

impl Position {
    /// The positions with two testpmds.
    pub(crate) const PAIRS: [Self; 4] = [Self::OursOurs, Self::DpdkDpdk, Self::OursDpdk, Self::DpdkOurs];
    /// The positions with one testpmd under test, and the tester.
    pub(crate) const TESTED: [Self; 4] =
        [Self::OursTester, Self::DpdkTester, Self::TesterOurs, Self::TesterDpdk];
    /// The positions with two different testpmds.
    pub(crate) const MIXED: [Self; 2] = [Self::OursDpdk, Self::DpdkOurs];

    /// Returns the programs of backend and frontend.
    pub(crate) const fn tools(self) -> (Tool, Tool) {
        match self {
            Self::OursOurs => (Tool::Ours, Tool::Ours),
            Self::DpdkDpdk => (Tool::Dpdk, Tool::Dpdk),
            Self::OursDpdk => (Tool::Ours, Tool::Dpdk),
            Self::DpdkOurs => (Tool::Dpdk, Tool::Ours),
            Self::OursTester => (Tool::Ours, Tool::Tester),
            Self::DpdkTester => (Tool::Dpdk, Tool::Tester),
            Self::TesterOurs => (Tool::Tester, Tool::Ours),
            Self::TesterDpdk => (Tool::Tester, Tool::Dpdk),
        }
    }

    /// Returns `backend/frontend`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OursOurs => "ours/ours",
            Self::DpdkDpdk => "dpdk/dpdk",
            Self::OursDpdk => "ours/dpdk",
            Self::DpdkOurs => "dpdk/ours",
            Self::OursTester => "ours/tester",
            Self::DpdkTester => "dpdk/tester",
            Self::TesterOurs => "tester/ours",
            Self::TesterDpdk => "tester/dpdk",
        }
    }

    /// Whether DPDK is one of the ends.
    pub(crate) fn needs_dpdk(self) -> bool {
        let (back, front) = self.tools();
        back == Tool::Dpdk || front == Tool::Dpdk
    }

    /// Returns the position to compare with: DPDK in the place of each measured program of ours.
    pub(crate) const fn baseline(self) -> Self {
        match self {
            Self::OursTester | Self::DpdkTester => Self::DpdkTester,
            Self::TesterOurs | Self::TesterDpdk => Self::TesterDpdk,
            Self::OursOurs | Self::DpdkDpdk | Self::OursDpdk | Self::DpdkOurs => Self::DpdkDpdk,
        }
    }

    /// Returns the side and the program under test, if the other side is the tester.
    pub(crate) const fn tested(self) -> Option<(Side, Tool)> {
        match self.tools() {
            (tool, Tool::Tester) => Some((Side::Backend, tool)),
            (Tool::Tester, tool) => Some((Side::Frontend, tool)),
            _ => None,
        }
    }
}

/// Packet lengths without frame check sequence: one for all packets, or a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Bytes(u16),
    /// 64, 594 and 1518 bytes, 7 : 4 : 1.
    Imix,
}

/// The smallest frame that testpmd generates, and the largest that its length fields can hold.
const BYTES: std::ops::RangeInclusive<u16> = 60..=u16::MAX;
/// The longest frame in one buffer; longer ones are chains of buffers of the usual size.
const ONE_BUFFER: u16 = 9600;
/// Bytes of packet data in a buffer of the usual size.
const SEGMENT: u16 = 2048;

impl Size {
    /// Returns pairs of a length and the number of packets in twelve that have it.
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

    /// The shortest packet.
    pub(crate) fn shortest(self) -> u16 {
        self.parts().iter().map(|part| part.0).min().unwrap_or(0)
    }

    /// Whether packets are chains of buffers.
    pub(crate) fn chained(self) -> bool {
        self.longest() > ONE_BUFFER
    }

    /// Parses a size, for clap.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::Imix);
        }
        if text.eq_ignore_ascii_case("64k") {
            return Ok(Self::Bytes(u16::MAX));
        }
        let bytes = text.parse().ok().filter(|bytes| BYTES.contains(bytes));
        bytes
            .map(Self::Bytes)
            .ok_or_else(|| format!("give {} to {} bytes, 64K, or imix", BYTES.start(), BYTES.end()))
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

/// The parameters that the ceiling loop shares with every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) size: Size,
    /// Descriptors per ring.
    pub(crate) ring: u16,
    /// Packets per burst.
    pub(crate) burst: u16,
}

impl Load {
    /// The number of packets that fill a ring: each buffer of a chain takes one descriptor, and its header
    /// another.
    pub(crate) fn packets(self) -> u16 {
        if !self.size.chained() {
            return self.ring;
        }
        let each = u16::try_from(segments(self.size.longest()).len() + 1).unwrap_or(u16::MAX);
        (self.ring / each).max(1)
    }

    /// Returns pairs of a length and a number of bursts that together nearly fill a ring; at least one burst
    /// of each length.
    pub(crate) fn first(self) -> Vec<(u16, u16)> {
        let bursts = self.packets() / self.burst.max(1);
        let share = |of_twelve: u16| u32::from(bursts) * u32::from(of_twelve) / 12;
        let parts = self.size.parts().into_iter();
        parts
            .map(|(bytes, of_twelve)| (bytes, u16::try_from(share(of_twelve)).unwrap_or(u16::MAX).max(1)))
            .collect()
    }
}

/// Returns the buffer lengths of a packet, as `set txpkts` takes them.
pub(crate) fn segments(bytes: u16) -> Vec<u16> {
    if bytes <= ONE_BUFFER {
        return vec![bytes];
    }
    let mut lengths = vec![SEGMENT; usize::from(bytes / SEGMENT)];
    lengths.extend(Some(bytes % SEGMENT).filter(|rest| *rest > 0));
    lengths
}

/// The transfer modes of DPDK's `net_memif`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memif {
    Copy,
    ZeroCopy,
}

impl Memif {
    pub(crate) const BOTH: [Self; 2] = [Self::Copy, Self::ZeroCopy];
}

/// The measured programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Two testpmds.
    Pair(Position, Path),
    /// Two of DPDK's testpmds over its `net_memif` instead of vhost-user.
    Memif(Memif),
    /// The loop without checks and features.
    Ceiling,
}

impl Subject {
    /// Returns the position and the path in tables and files.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Pair(position, path) => (position.name(), path.name()),
            Self::Memif(Memif::Copy) => ("memif", "copy"),
            Self::Memif(Memif::ZeroCopy) => ("memif", "zero-copy"),
            Self::Ceiling => ("ceiling", "ceiling"),
        }
    }

    /// Returns the subject with these names.
    pub(crate) fn named(position: &str, path: &str) -> Result<Self, String> {
        let others = [Self::Ceiling].into_iter().chain(Memif::BOTH.map(Self::Memif));
        match others.into_iter().find(|other| other.names() == (position, path)) {
            Some(other) => Ok(other),
            None => Ok(Self::Pair(Position::from_str(position, false)?, Path::from_str(path, false)?)),
        }
    }
}

/// One row of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) subject: Subject,
    pub(crate) load: Load,
}

/// Returns all cells; those that are compared with each other are adjacent.
pub(crate) fn all(
    kind: Kind,
    positions: &[Position],
    paths: &[Path],
    loads: &[Load],
    memif: &[Memif],
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &load in loads {
        for &path in paths {
            let pairs = positions.iter().map(|&position| Subject::Pair(position, path));
            cells.extend(pairs.map(|subject| Cell { kind, subject, load }));
        }
        // The ceiling does the least work that a closed loop of two ends requires.
        if kind == Kind::Closed {
            cells.extend(memif.iter().map(|&memif| Cell { kind, subject: Subject::Memif(memif), load }));
            cells.push(Cell { kind, subject: Subject::Ceiling, load });
        }
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
        assert_eq!(Size::parse("64K"), Ok(Size::Bytes(65_535)));
        for bad in ["59", "65536", "", "-1", "64 "] {
            assert!(Size::parse(bad).is_err_and(|text| text.contains("60 to 65535")), "{bad}");
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
    fn long_packets_are_chains() {
        assert_eq!(segments(9000), [9000]);
        let chain = segments(65_535);
        assert_eq!((chain.len(), chain.iter().map(|&len| u32::from(len)).sum::<u32>()), (32, 65_535));
        assert_eq!(segments(10_240), [2048; 5]);
        assert_eq!(load(Size::Bytes(65_535), 1024, 1).first(), [(65_535, 31)]);
        assert!(!Size::Imix.chained() && Size::Bytes(65_535).chained());
    }

    #[test]
    fn each_load_has_one_ceiling_and_every_pair() {
        let loads = [load(Size::Bytes(64), 256, 32), load(Size::Bytes(64), 1024, 32)];
        let cells = all(
            Kind::Closed,
            &[Position::OursOurs, Position::DpdkDpdk],
            &[Path::Split, Path::Packed],
            &loads,
            &Memif::BOTH,
        );
        assert_eq!(cells.len(), 2 * (1 + 2 + 4));
        assert_eq!(cells.iter().filter(|cell| cell.subject == Subject::Ceiling).count(), 2);
        assert_eq!(all(Kind::ZeroLoss, &Position::TESTED, &[Path::Split], &loads, &Memif::BOTH).len(), 2 * 4);
    }

    #[test]
    fn a_subject_is_found_by_its_names() {
        let pair = Subject::Pair(Position::OursDpdk, Path::Packed);
        for subject in [Subject::Ceiling, Subject::Memif(Memif::Copy), Subject::Memif(Memif::ZeroCopy), pair]
        {
            let (position, path) = subject.names();
            assert_eq!(Subject::named(position, path), Ok(subject));
        }
        assert!(Subject::named("memif", "split").is_err() && Subject::named("ours/ours", "copy").is_err());
    }

    #[test]
    fn names_match_the_command_line() {
        for position in Position::value_variants() {
            assert_eq!(position.to_possible_value().expect("none is hidden").get_name(), position.name());
            assert!(
                position.baseline().needs_dpdk() && position.baseline().baseline() == position.baseline()
            );
        }
    }
}
