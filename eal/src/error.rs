//! What can go wrong in this crate, each in one sentence with the remedy.

use std::io;

use crate::memory::size;

/// Every way the machine can say no. Variants carry what was asked and what is allowed.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let memory = Memory::new(MemoryConfig { limit: Some(2 << 20), ..MemoryConfig::default() }).unwrap();
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
    /// The machine, or this process's cgroup, does not have that much memory left.
    #[error(
        "{} asked, {} available ({scope}): use fewer or smaller packets, or free memory",
        size(*.asked), size(*.available)
    )]
    Unavailable {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that can be had without starving the rest of the machine.
        available: usize,
        /// Who says so: the machine or a cgroup.
        scope: String,
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
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried, with the amount.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Self {
        Self::System { action: action.into(), source }
    }
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
