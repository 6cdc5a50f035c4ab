//! What can go wrong in this crate, each in one sentence with the remedy.

use std::io;

use crate::cores::{CoreId, LcoreId};
use crate::memory::size;

/// Every way the machine can say no. Variants carry what was asked and what is allowed.
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
    /// A zone of no bytes, or of more than the address space holds.
    #[error("zone \"{label}\" asks for {asked} bytes: ask for at least 1 and at most {max}")]
    ZoneLength {
        /// Name of the zone.
        label: String,
        /// Bytes asked for.
        asked: usize,
        /// Bytes one domain can hold.
        max: usize,
    },
    /// An alignment that is no power of two, or above the largest page.
    #[error("zone \"{label}\" asks for alignment {asked}: use a power of two up to {max}")]
    Alignment {
        /// Name of the zone.
        label: String,
        /// Alignment asked for, in bytes.
        asked: usize,
        /// Largest alignment, in bytes.
        max: usize,
    },
    /// The limit given with `-m` would be passed.
    #[error(
        "memory limit: {} asked, {} of {} left: raise the limit (-m) or use fewer or smaller pools",
        size(*.asked), size(*.left), size(*.limit)
    )]
    Limit {
        /// Bytes asked for, rounded to pages.
        asked: usize,
        /// Bytes still allowed.
        left: usize,
        /// The limit.
        limit: usize,
    },
    /// A limit above what there is: it would limit nothing.
    #[error("memory limit (-m): {} asked, this machine has {}: ask for less", size(*.asked), size(*.there))]
    BeyondMachine {
        /// Bytes asked for.
        asked: usize,
        /// Bytes of memory that the machine has.
        there: usize,
    },
    /// The machine, or this process's cgroup, does not have that much memory left.
    #[error(
        "{} asked, {} available ({scope}; {} are kept back): {}",
        size(*.asked), size(*.available), size(*.reserve), relief(*.available)
    )]
    Unavailable {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that can be had without starving the rest of the machine.
        available: usize,
        /// Bytes that are free and kept back for that rest.
        reserve: usize,
        /// Who says so: the machine or a cgroup.
        scope: String,
    },
    /// The limit on this process's addresses leaves no room for more.
    #[error(
        "cannot {action}: {source}: this process may have {} of addresses in all, raise that limit by {} or more \
         (ulimit -v)",
        size(*.limit), size(*.more)
    )]
    Addresses {
        /// What was tried, with the amount.
        action: String,
        /// The limit (`RLIMIT_AS`), in bytes.
        limit: usize,
        /// Bytes that this took at least.
        more: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Hugepages were required and there are too few.
    #[error(
        "{} of hugepages required, {} free: reserve {need} with \
         `sysctl vm.nr_hugepages=...`, or do without --require-hugepages",
        size(*.asked), size(*.free)
    )]
    Hugepages {
        /// Bytes asked for.
        asked: usize,
        /// Bytes in free 2M hugepages.
        free: usize,
        /// 2M pages it would take.
        need: usize,
    },
    /// A NUMA node that is not there.
    #[error("NUMA node {asked} does not exist: choose one of {online}")]
    Node {
        /// Node asked for.
        asked: u32,
        /// Nodes there are.
        online: String,
    },
    /// The domain's reserved address range has no gap for the segment.
    #[error(
        "domain \"{domain}\" has no room for {} in its {} address range: raise MemoryConfig::range",
        size(*.asked), size(*.range)
    )]
    Range {
        /// Name of the domain.
        domain: String,
        /// Bytes asked for.
        asked: usize,
        /// Bytes reserved for the domain.
        range: usize,
    },
    /// A core that does not exist, or that this process may not use.
    #[error(
        "core {asked} cannot be used: this process may run on cores {allowed} (-l, or change its cpuset)"
    )]
    Core {
        /// Core asked for.
        asked: CoreId,
        /// Cores allowed, as ranges.
        allowed: String,
    },
    /// A core list, map or mask that cannot be read.
    #[error("core map \"{text}\" is malformed: expected {expected}")]
    Lcores {
        /// What was given.
        text: String,
        /// What should have been there.
        expected: String,
    },
    /// A main lcore that is not in the map.
    #[error(
        "main lcore {asked} is not among lcores {lcores}: add it (-l) or choose one of them (--main-lcore)"
    )]
    MainLcore {
        /// Lcore asked for.
        asked: LcoreId,
        /// Lcores there are, as ranges.
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
    /// An option nobody knows.
    #[error("unknown option {option}{}: see --help", near.map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    UnknownOption {
        /// What was given.
        option: String,
        /// The option most like it.
        near: Option<&'static str>,
    },
    /// A shortened option that fits several.
    #[error("option {option} is ambiguous: it could be {candidates}")]
    AmbiguousOption {
        /// What was given.
        option: String,
        /// What it could mean.
        candidates: String,
    },
    /// An EAL option that has no meaning here.
    #[error("option {option} is not supported: {instead}")]
    UnsupportedOption {
        /// The option, with its value where that matters.
        option: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// An option without the value it needs.
    #[error("option {option} needs a value: {expected}")]
    MissingValue {
        /// The option.
        option: &'static str,
        /// What the value should be.
        expected: &'static str,
    },
    /// A value an option does not take.
    #[error("option {option} cannot be \"{value}\": expected {expected}")]
    OptionValue {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// Two options that exclude each other, or one given twice.
    #[error("option {option} cannot be combined with {with}: give one of them, once")]
    Conflict {
        /// The later option.
        option: &'static str,
        /// What it conflicts with.
        with: &'static str,
    },
    /// A word that is neither an option nor a value.
    #[error("unexpected argument \"{argument}\": EAL options come first, the application's own after \"--\"")]
    UnexpectedArgument {
        /// What was given.
        argument: String,
    },
    /// An argument or a value that is not text.
    #[error(
        "\"{argument}\" is not UTF-8, which every argument here has to be: write it, or rename what it names, in UTF-8"
    )]
    NotUtf8 {
        /// What was given, with escapes for what cannot be printed, behind the option whose value it is.
        argument: String,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried, with the amount.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What helps where memory is short. Where hardly any is left no pool is small enough.
fn relief(available: usize) -> &'static str {
    if available < crate::memory::LEAST {
        "free memory there, or give it more"
    } else {
        "use fewer or smaller packets, or free memory"
    }
}

impl Error {
    /// Why `bytes` could not be mapped: where addresses are limited and memory is not, the limit is what helps.
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

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
