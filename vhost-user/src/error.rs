//! Errors: sockets that cannot be used, hand-overs that fail, and requests that are refused.

use std::fmt;
use std::io;

use linecard_virtio::Features;
use linecard_wire::ProtocolFeatures;
use linecard_wire::socket::UnusableSocket;

/// Why a backend could not be set up, in two clauses: [the problem](Self::problem) and [the
/// remedy](Self::remedy).
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
    /// The socket cannot be used.
    Socket(UnusableSocket),
    /// The number of queue pairs is out of range.
    QueuePairs {
        /// The requested number.
        asked: u16,
        /// The largest allowed number.
        max: u16,
    },
    /// The control thread has ended.
    ControlEnded,
    /// The control thread did not process a request about a queue in time.
    Busy,
    /// The port cannot be handed over. It continues to run here.
    HandOver {
        /// The reason, as a clause.
        reason: &'static str,
        /// What to do, as a clause.
        remedy: &'static str,
    },
    /// A port that was handed over cannot be taken over.
    TakeOver {
        /// The reason, as a clause.
        reason: String,
    },
    /// A system call failed.
    System {
        /// The attempted action.
        action: String,
        /// The error of the system call.
        source: io::Error,
    },
}

impl Error {
    /// The problem, as one clause.
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

    /// What to do, as one clause.
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

    /// Converts this error to one of the port named `port`.
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

/// Why a frontend's request was refused. The state of the session is unchanged.
///
/// ```
/// let refusal = linecard_vhost_user::Refusal::RingIndex { index: 7, rings: 2 };
/// assert_eq!(refusal.to_string(), "ring 7 of a device with 2 rings");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is unknown to this device.
    #[error("request {request} is not supported")]
    Unsupported {
        /// Request code.
        request: u32,
    },
    /// The request was being processed, and its processing was abandoned.
    #[error("nobody is left to answer request {request}")]
    Abandoned {
        /// Request code.
        request: u32,
    },
    /// The translation of an IOTLB message cannot be used.
    #[error("translation of {size:#x} bytes at I/O virtual address {iova:#x}: {problem}")]
    Translation {
        /// Its first I/O virtual address.
        iova: u64,
        /// Its length in bytes.
        size: u64,
        /// The problem, as a clause.
        problem: &'static str,
    },
    /// The descriptor of `SET_BACKEND_REQ_FD` is not a connected Unix stream socket.
    #[error("the descriptor to ask the frontend on is not a connected Unix stream socket")]
    NotAChannel,
    /// The request belongs to a protocol feature that was not negotiated.
    #[error("request {request} needs protocol feature {need:?}, which was not negotiated")]
    NotNegotiated {
        /// Request code.
        request: u32,
        /// The required protocol feature.
        need: ProtocolFeatures,
    },
    /// The message is a reply instead of a request, or has unknown flags.
    #[error("request {request} has flags {flags:#x}")]
    Flags {
        /// Request code.
        request: u32,
        /// The flags of the message.
        flags: u32,
    },
    /// The payload is malformed.
    #[error(transparent)]
    Payload(#[from] linecard_wire::Error),
    /// The message has the wrong number of file descriptors.
    #[error("request {request} came with {got} file descriptors, it must have {want}")]
    Descriptors {
        /// Request code.
        request: u32,
        /// The number of descriptors received.
        got: usize,
        /// The required number of descriptors.
        want: usize,
    },
    /// The descriptor of a ring is not an eventfd.
    #[error("the descriptor of ring {index} is not an eventfd")]
    NotAnEvent {
        /// Ring index.
        index: usize,
    },
    /// The descriptor of `SET_LOG_FD` is not an eventfd.
    #[error("the descriptor of SET_LOG_FD is not an eventfd")]
    NotALogEvent,
    /// The dirty log does not cover all memory that may be written.
    #[error("the dirty log ends at guest address {end:#x}, and has to reach {need:#x}")]
    LogSize {
        /// The first guest address that the log does not cover.
        end: u64,
        /// The address at which the log must end at the earliest.
        need: u64,
    },
    /// The inflight region is too short for its queues.
    #[error("inflight region of {got} bytes, its queues need {need}")]
    InflightSize {
        /// The size of the region in bytes.
        got: u64,
        /// The required size in bytes.
        need: u64,
    },
    /// An inflight region could not be created.
    #[error("making an inflight region failed: {source}")]
    InflightFile {
        /// The error of the system call.
        source: io::Error,
    },
    /// The frontend set virtio features that were not offered.
    #[error("features {} were not offered", .not_offered)]
    Features {
        /// The bits that were not offered.
        not_offered: Features,
    },
    /// The frontend set protocol features that were not offered.
    #[error("protocol features {not_offered:#x} were not offered")]
    ProtocolFeatures {
        /// The bits that were not offered.
        not_offered: u64,
    },
    /// The change is not possible while a ring runs.
    #[error("{what} cannot change while ring {index} runs; stop it first")]
    Running {
        /// The setting to be changed.
        what: &'static str,
        /// Ring index.
        index: usize,
    },
    /// The device has no ring of this index.
    #[error("ring {index} of a device with {rings} rings")]
    RingIndex {
        /// The requested index.
        index: u32,
        /// The number of rings of the device.
        rings: usize,
    },
    /// The ring size is not possible.
    #[error("ring size {asked}, 1 to {max} are possible")]
    RingSize {
        /// The requested size.
        asked: u32,
        /// The largest possible size.
        max: u16,
    },
    /// The ring position is not possible.
    #[error("ring position {asked:#x} does not exist in a ring of {size}")]
    RingBase {
        /// The requested position.
        asked: u32,
        /// Ring size.
        size: u16,
    },
    /// The ring lacks a setting that the request needs.
    #[error("ring {index} has no {what} yet")]
    RingIncomplete {
        /// Ring index.
        index: usize,
        /// The missing setting.
        what: &'static str,
    },
    /// An area of a ring is not aligned, or not in shared memory.
    #[error(
        "the {area} area of ring {index} at {addr:#x}, {len} bytes, is not in shared memory or not aligned"
    )]
    RingAddress {
        /// Ring index.
        index: usize,
        /// `descriptor`, `driver` or `device`.
        area: &'static str,
        /// The address in the frontend's address space.
        addr: u64,
        /// The required length in bytes.
        len: usize,
    },
    /// The value is out of range.
    #[error("{what} {got} is not possible, at most {max} is")]
    Value {
        /// The name of the value.
        what: &'static str,
        /// The value received.
        got: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// The value is out of a range that does not begin with zero.
    #[error("{what} {got} is not possible, {min} to {max} is")]
    Range {
        /// The name of the value.
        what: &'static str,
        /// The value received.
        got: u64,
        /// The smallest allowed value.
        min: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// The virtio queue could not be created.
    #[error(transparent)]
    Queue(#[from] linecard_virtio::Error),
    /// The memory region cannot be used.
    #[error(transparent)]
    Memory(#[from] RegionError),
}

/// Why a memory region was refused.
///
/// ```
/// let error = linecard_vhost_user::RegionError::FileSize { end: 8192, file: 4096 };
/// assert_eq!(error.to_string(), "memory region ends at 8192 in a file of 4096 bytes");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The region has no bytes.
    #[error("memory region of 0 bytes")]
    Empty,
    /// The range extends past the end of the address space.
    #[error("memory region {what} {start:#x} + {size:#x} overflows")]
    Overflow {
        /// `guest address`, `user address`, `file offset` or `mapping`.
        what: &'static str,
        /// The start of the range.
        start: u64,
        /// The length of the range in bytes.
        size: u64,
    },
    /// The region overlaps with another one.
    #[error("memory region at guest address {guest:#x} overlaps another one")]
    Overlap {
        /// The guest address of the later region.
        guest: u64,
    },
    /// The file is shorter than the region.
    #[error("memory region ends at {end} in a file of {file} bytes")]
    FileSize {
        /// The end of the region in the file.
        end: u64,
        /// The size of the file in bytes.
        file: u64,
    },
    /// The descriptor is not a file through which memory can be shared safely.
    #[error("memory region's descriptor is not a memfd, hugetlbfs or tmpfs file")]
    FileKind,
    /// The file lacks gigantic pages that it would need.
    #[error(
        "memory region's file has {there} bytes so far and pages of {page} bytes, too large to be made while packets \
         wait; allocate it before it is shared (QEMU: prealloc=on)"
    )]
    Sparse {
        /// The size of a page in bytes.
        page: u64,
        /// The bytes that the file has allocated.
        there: u64,
    },
    /// There are more regions than the port's limit.
    #[error("{asked} memory regions, a frontend may share {max} (the port's limit, regions)")]
    Count {
        /// The requested number.
        asked: usize,
        /// The largest allowed number.
        max: usize,
    },
    /// The table of watched regions is full, so missing pages of this region would not be detected.
    #[error("all {max} places to watch memory regions of all peers are taken")]
    Unwatched {
        /// The number of regions that can be watched.
        max: usize,
    },
    /// The region exceeds a limit of the port or of the process.
    #[error(transparent)]
    Limit(#[from] linecard_wire::ledger::LimitError),
    /// The regions are larger in total than the port's limit.
    #[error(
        "memory regions of {asked} bytes together, a frontend may share {max} (the port's limit, memory)"
    )]
    Total {
        /// The requested number of bytes.
        asked: u64,
        /// The largest allowed number of bytes.
        max: u64,
    },
    /// A system call failed.
    #[error("{action} of a memory region failed: {source}")]
    System {
        /// The attempted action.
        action: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
}
