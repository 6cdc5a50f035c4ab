//! The subject of one row.

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

    /// The name of the driver.
    pub(crate) const fn driver(self) -> &'static str {
        match self {
            Self::Tap => "net_tap",
            Self::AfPacket => "net_af_packet",
            Self::AfXdp => "net_af_xdp",
        }
    }

    /// Whether the port creates the interface.
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

/// The measured implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Ours.
    Linecard,
    /// DPDK's.
    Dpdk,
    /// The kernel without either of them.
    Kernel,
}

impl Side {
    pub(crate) const ALL: [Self; 3] = [Self::Linecard, Self::Dpdk, Self::Kernel];

    pub(crate) const fn name(self, question: Question) -> &'static str {
        match self {
            Self::Linecard => "linecard",
            Self::Dpdk => "dpdk",
            Self::Kernel => question.kernel(),
        }
    }
}

/// The question of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// The rate at which a port receives or sends frames.
    Rate,
    /// The time that one frame takes to a port and back.
    Latency,
    /// The rate of frames from one container to another.
    Containers,
    /// The throughput of a TCP connection.
    Tcp,
}

impl Question {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Latency => "latency",
            Self::Containers => "containers",
            Self::Tcp => "tcp",
        }
    }

    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Rate | Self::Containers => "Mpps",
            Self::Latency => "us",
            Self::Tcp => "Gbit/s",
        }
    }

    /// The name of the kernel's side.
    pub(crate) const fn kernel(self) -> &'static str {
        match self {
            Self::Rate | Self::Latency => "kernel loop",
            Self::Containers => "bridge",
            Self::Tcp => "veth",
        }
    }

    /// The second figure of a sample: its heading in a table, and its name in JSON.
    pub(crate) const fn second(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Rate => Some(("ns/packet", "cpu_ns")),
            Self::Latency => Some(("99 %", "p99")),
            Self::Containers | Self::Tcp => None,
        }
    }

    /// The number of testpmds that run at the same time.
    pub(crate) const fn programs(self) -> u32 {
        match self {
            Self::Rate | Self::Latency | Self::Tcp => 2,
            Self::Containers => 3,
        }
    }
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) question: Question,
    /// Present if the question is about a driver.
    pub(crate) kind: Option<Kind>,
    /// Present if the question is about a direction.
    pub(crate) direction: Option<Direction>,
    /// Bytes with frame check sequence; present if the length can be chosen.
    pub(crate) size: Option<u16>,
}

impl Cell {
    /// Bytes without frame check sequence, as software sees the frame.
    pub(crate) fn bytes(self) -> usize {
        usize::from(self.size.unwrap_or(64)) - 4
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.map_or(self.question.name(), Kind::name))?;
        if let Some(direction) = self.direction {
            write!(f, " {}", direction.name())?;
        }
        self.size.map_or(Ok(()), |size| write!(f, " {size} B"))
    }
}
