//! What one row measures.

use std::fmt;

use clap::ValueEnum;

/// A driver, by DPDK's name without `net_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A tap interface.
    Tap,
    /// Packet sockets.
    #[value(name = "af_packet")]
    AfPacket,
    /// XDP sockets.
    #[value(name = "af_xdp")]
    AfXdp,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Tap, Self::AfPacket, Self::AfXdp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::AfPacket => "af_packet",
            Self::AfXdp => "af_xdp",
        }
    }

    /// The driver's name.
    pub(crate) const fn driver(self) -> &'static str {
        match self {
            Self::Tap => "net_tap",
            Self::AfPacket => "net_af_packet",
            Self::AfXdp => "net_af_xdp",
        }
    }

    /// Whether its port makes the interface.
    pub(crate) const fn makes_interface(self) -> bool {
        matches!(self, Self::Tap)
    }
}

/// As the port under test sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// The port receives.
    Rx,
    /// The port sends.
    Tx,
}

impl Direction {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

/// Whose driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Ours.
    Linecard,
    /// DPDK's.
    Dpdk,
}

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Linecard => "linecard",
            Self::Dpdk => "dpdk",
        }
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) direction: Direction,
    /// Bytes with frame check sequence.
    pub(crate) size: u16,
}

impl Cell {
    /// Bytes that software sees: without frame check sequence.
    pub(crate) const fn bytes(self) -> usize {
        self.size as usize - 4
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} B", self.kind.name(), self.direction.name(), self.size)
    }
}
