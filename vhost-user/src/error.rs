//! What can go wrong: sockets that cannot be had, and requests that are refused.

use std::fmt;
use std::io;

use linecard_virtio::Features;
use linecard_wire::ProtocolFeatures;
use linecard_wire::socket::UnusableSocket;

/// Why a backend could not be set up. One sentence each: [what is wrong](Self::problem), and [the remedy](Self::remedy).
///
/// ```
/// use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
/// let control = Control::new();
/// let config = BackendConfig::new("demo", "/no/such/dir/socket", Mode::Listen);
/// let error = Backend::new(&control, config).unwrap_err();
/// assert_eq!(error.remedy(), "create it, or choose another");
/// assert_eq!(error.to_string(), format!("{}; {}", error.problem(), error.remedy()));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The socket cannot be had.
    Socket(UnusableSocket),
    /// Queue pairs out of range.
    QueuePairs {
        /// Asked.
        asked: u16,
        /// Allowed.
        max: u16,
    },
    /// The control thread ended.
    ControlEnded,
    /// The control thread has not done what was asked of a queue.
    Busy,
    /// A port cannot be handed over, and goes on.
    HandOver {
        /// Why, as a clause.
        reason: &'static str,
        /// What to do, as a clause.
        remedy: &'static str,
    },
    /// A port that was handed over cannot be served.
    TakeOver {
        /// Why, as a clause.
        reason: String,
    },
    /// The operating system refused.
    System {
        /// What was tried.
        action: String,
        /// What the system answered.
        source: io::Error,
    },
}

impl Error {
    /// What is wrong, in one clause.
    #[must_use]
    pub fn problem(&self) -> String {
        match self {
            Self::Socket(socket) => socket.problem(),
            Self::QueuePairs { asked, max } => {
                format!("{asked} queue pairs asked, 1 to {max} are possible")
            }
            Self::ControlEnded => "the vhost-user control thread has ended".into(),
            Self::Busy => "its frontend makes the port wait, or a burst does not end".into(),
            Self::HandOver { reason, .. } => format!("the port cannot be handed over: {reason}"),
            Self::TakeOver { reason } => format!("the port that was handed over cannot be served: {reason}"),
            Self::System { action, source } => format!("{action} failed: {source}"),
        }
    }

    /// What to do, in one clause.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Socket(socket) => socket.remedy(),
            Self::QueuePairs { .. } => "ask for fewer",
            Self::ControlEnded => "start another one",
            Self::Busy => "try again, or close the port",
            Self::HandOver { remedy, .. } => remedy,
            Self::TakeOver { .. } => "configure it as its predecessor, or let the frontend connect again",
            Self::System { .. } => "check the limits of this process",
        }
    }

    /// This error as one of the port called `port`.
    pub(crate) fn of_port(&self, port: &str) -> linecard_pmd::Error {
        let (problem, remedy) = (self.problem(), self.remedy().into());
        linecard_pmd::Error::Peer { port: port.into(), problem, remedy }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem(), self.remedy())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(socket) => std::error::Error::source(socket),
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Error {
    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Self {
        Self::System { action: action.into(), source }
    }
}

/// Why a frontend's request was not carried out. The state is as it was before.
///
/// ```
/// let refusal = linecard_vhost_user::Refusal::RingIndex { index: 7, rings: 2 };
/// assert_eq!(refusal.to_string(), "ring 7 of a device with 2 rings");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A request this device does not know.
    #[error("request {request} is not supported")]
    Unsupported {
        /// Request code.
        request: u32,
    },
    /// A request that somebody worked on and gave up.
    #[error("nobody is left to answer request {request}")]
    Abandoned {
        /// Request code.
        request: u32,
    },
    /// A translation that cannot be taken in.
    #[error("translation of {size:#x} bytes at I/O virtual address {iova:#x}: {problem}")]
    Translation {
        /// Its first address.
        iova: u64,
        /// Bytes.
        size: u64,
        /// What is wrong with it, as a clause.
        problem: &'static str,
    },
    /// The descriptor of `SET_BACKEND_REQ_FD` is something else than a channel.
    #[error("the descriptor to ask the frontend on is not a connected Unix stream socket")]
    NotAChannel,
    /// A request whose protocol feature was not negotiated.
    #[error("request {request} needs protocol feature {need:?}, which was not negotiated")]
    NotNegotiated {
        /// Request code.
        request: u32,
        /// What it needs.
        need: ProtocolFeatures,
    },
    /// A reply where a request is due, or unknown flags.
    #[error("request {request} has flags {flags:#x}")]
    Flags {
        /// Request code.
        request: u32,
        /// Flags found.
        flags: u32,
    },
    /// The payload cannot be read.
    #[error(transparent)]
    Payload(#[from] linecard_wire::Error),
    /// The wrong number of file descriptors.
    #[error("request {request} came with {got} file descriptors, it must have {want}")]
    Descriptors {
        /// Request code.
        request: u32,
        /// Descriptors found.
        got: usize,
        /// Descriptors due.
        want: usize,
    },
    /// A descriptor that is no eventfd.
    #[error("the descriptor of ring {index} is not an eventfd")]
    NotAnEvent {
        /// Ring index.
        index: usize,
    },
    /// A descriptor that is no eventfd.
    #[error("the descriptor of SET_LOG_FD is not an eventfd")]
    NotALogEvent,
    /// A dirty log without a place for everything that may be written.
    #[error("the dirty log ends at guest address {end:#x}, and has to reach {need:#x}")]
    LogSize {
        /// First guest address without a bit.
        end: u64,
        /// Where it has to end at the earliest.
        need: u64,
    },
    /// An inflight region that is too short.
    #[error("inflight region of {got} bytes, its queues need {need}")]
    InflightSize {
        /// Asked.
        got: u64,
        /// Needed.
        need: u64,
    },
    /// No inflight region could be made.
    #[error("making an inflight region failed: {source}")]
    InflightFile {
        /// What the system answered.
        source: io::Error,
    },
    /// Virtio features that were not offered.
    #[error("features {} were not offered", .not_offered)]
    Features {
        /// The offending bits.
        not_offered: Features,
    },
    /// Protocol features that were not offered.
    #[error("protocol features {not_offered:#x} were not offered")]
    ProtocolFeatures {
        /// The offending bits.
        not_offered: u64,
    },
    /// A change that is not possible while a ring runs.
    #[error("{what} cannot change while ring {index} runs; stop it first")]
    Running {
        /// What was to change.
        what: &'static str,
        /// Ring index.
        index: usize,
    },
    /// No such ring.
    #[error("ring {index} of a device with {rings} rings")]
    RingIndex {
        /// Asked.
        index: u32,
        /// Rings there are.
        rings: usize,
    },
    /// An impossible ring size.
    #[error("ring size {asked}, 1 to {max} are possible")]
    RingSize {
        /// Asked.
        asked: u32,
        /// Largest.
        max: u16,
    },
    /// An impossible position.
    #[error("ring position {asked:#x} does not exist in a ring of {size}")]
    RingBase {
        /// Asked.
        asked: u32,
        /// Ring size.
        size: u16,
    },
    /// A ring that has not been described far enough.
    #[error("ring {index} has no {what} yet")]
    RingIncomplete {
        /// Ring index.
        index: usize,
        /// What is missing.
        what: &'static str,
    },
    /// A part of a ring outside the shared memory.
    #[error(
        "the {area} area of ring {index} at {addr:#x}, {len} bytes, is not in shared memory or not aligned"
    )]
    RingAddress {
        /// Ring index.
        index: usize,
        /// `descriptor`, `driver` or `device`.
        area: &'static str,
        /// Address in the frontend.
        addr: u64,
        /// Bytes needed.
        len: usize,
    },
    /// A value out of range.
    #[error("{what} {got} is not possible, at most {max} is")]
    Value {
        /// What it is.
        what: &'static str,
        /// Found.
        got: u64,
        /// Largest allowed.
        max: u64,
    },
    /// The queue could not be made.
    #[error(transparent)]
    Queue(#[from] linecard_virtio::Error),
    /// A memory region that cannot be used.
    #[error(transparent)]
    Memory(#[from] RegionError),
}

/// Why a memory region was not taken.
///
/// ```
/// let error = linecard_vhost_user::RegionError::FileSize { end: 8192, file: 4096 };
/// assert_eq!(error.to_string(), "memory region ends at 8192 in a file of 4096 bytes");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// No bytes.
    #[error("memory region of 0 bytes")]
    Empty,
    /// A range past the end of the address space.
    #[error("memory region {what} {start:#x} + {size:#x} overflows")]
    Overflow {
        /// `guest address`, `user address` or `file offset`.
        what: &'static str,
        /// Where it starts.
        start: u64,
        /// Its length.
        size: u64,
    },
    /// Two regions share addresses.
    #[error("memory region at guest address {guest:#x} overlaps another one")]
    Overlap {
        /// Guest address of the later one.
        guest: u64,
    },
    /// The file is shorter than the region.
    #[error("memory region ends at {end} in a file of {file} bytes")]
    FileSize {
        /// Where the region ends in the file.
        end: u64,
        /// Bytes of the file.
        file: u64,
    },
    /// Not a file that memory can safely be shared through.
    #[error("memory region's descriptor is not a memfd, hugetlbfs or tmpfs file")]
    FileKind,
    /// Gigantic pages that the file does not have yet.
    #[error(
        "memory region's file has {there} bytes so far and pages of {page} bytes, too large to be made while packets \
         wait; allocate it before it is shared (QEMU: prealloc=on)"
    )]
    Sparse {
        /// Bytes of a page.
        page: u64,
        /// Bytes that the file has.
        there: u64,
    },
    /// Too many regions.
    #[error("{asked} memory regions, at most {max} are possible")]
    Count {
        /// Asked.
        asked: usize,
        /// Allowed.
        max: usize,
    },
    /// Holes in the region would not be noticed.
    #[error("all {max} places to watch memory regions of all peers are taken")]
    Unwatched {
        /// Regions that can be watched.
        max: usize,
    },
    /// More than a port may have.
    #[error(transparent)]
    Limit(#[from] linecard_wire::ledger::LimitError),
    /// Too much memory.
    #[error("memory regions of {asked} bytes together, at most {max} are allowed")]
    Total {
        /// Asked.
        asked: u64,
        /// Allowed.
        max: u64,
    },
    /// The operating system refused.
    #[error("{action} of a memory region failed: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}
