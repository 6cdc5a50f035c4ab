//! Errors of this crate, each one sentence with the remedy.

use std::io;

use crate::cores::{CoreId, LcoreId};
use crate::memory::size;

/// The errors of this crate. Variants contain what was requested and what is allowed.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let memory = Memory::new(MemoryConfig::default().limit(2 << 20)).unwrap();
/// let error = memory.domain("small").unwrap().zone("large", 64 << 20, 64).unwrap_err();
/// assert!(error.to_string().contains("64 MiB"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The length of a zone is 0 or exceeds the domain's address range.
    #[error("zone \"{label}\" asks for {asked} bytes: ask for at least 1 and at most {max}")]
    ZoneLength {
        /// The name of the zone.
        label: String,
        /// The requested length in bytes.
        asked: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// The alignment is not a power of two, or exceeds the largest page.
    #[error("zone \"{label}\" asks for alignment {asked}: use a power of two up to {max}")]
    Alignment {
        /// The name of the zone.
        label: String,
        /// The requested alignment in bytes.
        asked: usize,
        /// The maximum alignment in bytes.
        max: usize,
    },
    /// The request exceeds the limit given with `-m`.
    #[error(
        "memory limit: {} asked, {} of {} left: raise the limit (-m) or use fewer or smaller pools",
        size(*.asked), size(*.left), size(*.limit)
    )]
    Limit {
        /// The requested number of bytes, rounded up to pages.
        asked: usize,
        /// The number of bytes left below the limit.
        left: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The limit exceeds the memory of the machine, so it would have no effect.
    #[error("memory limit (-m): {} asked, this machine has {}: ask for less", size(*.asked), size(*.there))]
    BeyondMachine {
        /// The requested number of bytes.
        asked: usize,
        /// The memory of the machine in bytes.
        there: usize,
    },
    /// The machine, or this process's cgroup, does not have enough memory left.
    #[error(
        "{} asked, {} available ({scope}; {} are kept back): {}",
        size(*.asked), size(*.available), size(*.reserve), relief(*.available)
    )]
    Unavailable {
        /// The requested number of bytes.
        asked: usize,
        /// The number of bytes that can be used without starving the rest of the machine.
        available: usize,
        /// The number of free bytes that are kept for the rest of the machine.
        reserve: usize,
        /// The source of the limit: the machine or a cgroup.
        scope: String,
    },
    /// The limit on this process's address space is reached.
    #[error(
        "cannot {action}: {source}: this process may have {} of addresses in all, raise that limit by {} or more \
         (ulimit -v)",
        size(*.limit), size(*.more)
    )]
    Addresses {
        /// The action that failed, with the amount.
        action: String,
        /// The limit (`RLIMIT_AS`), in bytes.
        limit: usize,
        /// The minimum number of bytes needed in addition.
        more: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// Hugepages are required, but too few are free.
    #[error(
        "{} of hugepages required, {} free: reserve {need} with \
         `sysctl vm.nr_hugepages=...`, or do without --require-hugepages",
        size(*.asked), size(*.free)
    )]
    Hugepages {
        /// The requested number of bytes.
        asked: usize,
        /// The number of bytes in free 2M hugepages.
        free: usize,
        /// The number of 2M hugepages needed.
        need: usize,
    },
    /// The NUMA node does not exist.
    #[error("NUMA node {asked} does not exist: choose one of {online}")]
    Node {
        /// The requested node.
        asked: u32,
        /// The existing nodes.
        online: String,
    },
    /// The domain's reserved address range has no gap for the segment.
    #[error(
        "domain \"{domain}\" has no room for {} in its {} address range: raise MemoryConfig::range",
        size(*.asked), size(*.range)
    )]
    Range {
        /// The name of the domain.
        domain: String,
        /// The requested number of bytes.
        asked: usize,
        /// The number of bytes reserved for the domain.
        range: usize,
    },
    /// The core does not exist, or this process may not use it.
    #[error(
        "core {asked} cannot be used: this process may run on cores {allowed} (-l, or change its cpuset)"
    )]
    Core {
        /// The requested core.
        asked: CoreId,
        /// The allowed cores, as ranges.
        allowed: String,
    },
    /// A core list, map or mask is malformed.
    #[error("core map \"{text}\" is malformed: expected {expected}")]
    Lcores {
        /// The given text.
        text: String,
        /// The expected text.
        expected: String,
    },
    /// The main lcore is not in the map.
    #[error(
        "main lcore {asked} is not among lcores {lcores}: add it (-l) or choose one of them (--main-lcore)"
    )]
    MainLcore {
        /// The requested lcore.
        asked: LcoreId,
        /// The existing lcores, as ranges.
        lcores: String,
    },
    /// A job was launched on an lcore whose previous job was not joined.
    #[error("lcore {lcore} already has a job: stop and join it first")]
    LcoreBusy {
        /// The lcore.
        lcore: LcoreId,
    },
    /// A worker's job panicked.
    #[error("the job on lcore {lcore} panicked: {message}")]
    Panicked {
        /// The lcore.
        lcore: LcoreId,
        /// The panic's message.
        message: String,
    },
    /// The option is unknown.
    #[error("unknown option {option}{}: see --help", near.map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    UnknownOption {
        /// The given option.
        option: String,
        /// The most similar option.
        near: Option<&'static str>,
    },
    /// A shortened option matches several options.
    #[error("option {option} is ambiguous: it could be {candidates}")]
    AmbiguousOption {
        /// The given option.
        option: String,
        /// The options that it matches.
        candidates: String,
    },
    /// The EAL option is not supported here.
    #[error("option {option} is not supported: {instead}")]
    UnsupportedOption {
        /// The option, with its value if that matters.
        option: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// The option requires a value.
    #[error("option {option} needs a value: {expected}")]
    MissingValue {
        /// The option.
        option: &'static str,
        /// A description of the expected value.
        expected: &'static str,
    },
    /// The value of the option is not possible.
    #[error("option {option} cannot be \"{value}\": expected {expected}")]
    OptionValue {
        /// The option.
        option: &'static str,
        /// The given value.
        value: String,
        /// A description of the expected value.
        expected: &'static str,
    },
    /// Two options exclude each other, or one is given twice.
    #[error("option {option} cannot be combined with {with}: give one of them, once")]
    Conflict {
        /// The later option.
        option: &'static str,
        /// The option it conflicts with.
        with: &'static str,
    },
    /// An argument is neither an option nor a value.
    #[error("unexpected argument \"{argument}\": EAL options come first, the application's own after \"--\"")]
    UnexpectedArgument {
        /// The given argument.
        argument: String,
    },
    /// An argument or a value is not valid UTF-8.
    #[error(
        "\"{argument}\" is not UTF-8, which every argument here has to be: write it, or rename what it names, in UTF-8"
    )]
    NotUtf8 {
        /// The given argument with bytes that cannot be printed escaped, preceded by the option if it is a
        /// value.
        argument: String,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// The action that failed, with the amount.
        action: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The remedy for a lack of memory. If hardly any is left, smaller pools do not help.
fn relief(available: usize) -> &'static str {
    if available < crate::memory::LEAST {
        "free memory there, or give it more"
    } else {
        "use fewer or smaller packets, or free memory"
    }
}

impl Error {
    /// The error for a failed mapping of `bytes`: if only the address space is limited, it names that limit.
    pub(crate) fn addresses(action: impl Into<String>, bytes: usize, source: io::Error) -> Self {
        let limit = crate::sys::limit(crate::sys::Resource::AddressSpace);
        if limit == usize::MAX || source.kind() != io::ErrorKind::OutOfMemory {
            return Self::system(action, source);
        }
        Self::Addresses { action: action.into(), limit, more: bytes, source }
    }

    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Self {
        Self::System { action: action.into(), source }
    }
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
