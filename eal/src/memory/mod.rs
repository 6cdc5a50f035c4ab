//! Memory for packets and rings: domains, segments, zones.
//!
//! ```text
//! Memory ── limit, page policy
//!   └─ Domain ── one reserved address range, shared with a peer as a whole
//!        └─ Segment ── a sealed memfd mapped there
//!             └─ Zone ── memory of a pool or a ring, zeroed, freed on drop
//! PrivateZone ── private memory, never shared
//! ```
//!
//! The page size is chosen without root and without configuration, in this order: 1G hugetlb pages (for
//! requests of at least 1 GiB), 2M hugetlb pages, shared memory with transparent hugepages, 4K pages. Every
//! page is present once a segment is created, so that a lack of memory is an error then and never a signal
//! later.

mod account;
mod available;
mod domain;
mod event;
mod map;
mod page;
mod private;
mod segment;
mod space;
mod zone;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use domain::Domain;
pub use event::{SegmentEvent, Subscription};
pub(crate) use page::size;
pub use page::{PageKind, PagePolicy};
pub use private::PrivateZone;
pub use segment::Segment;
pub use zone::Zone;

use crate::error::{Error, Result};
use account::Account;

/// The number of bytes that this process can still allocate without triggering the out-of-memory killer: what
/// the machine and its memory cgroups have left, less a reserve. It includes memory that the kernel allocates
/// for this process.
///
/// ```
/// assert!(linecard_eal::memory::available_bytes() > 0);
/// ```
#[must_use]
pub fn available_bytes() -> usize {
    available::available().bytes
}

/// The minimum length of a segment for packets, in bytes.
pub(crate) const LEAST: usize = page::GRANULE;

/// The memory of the machine in bytes.
pub(crate) fn total_bytes() -> usize {
    available::total()
}

/// The configuration of a [`Memory`].
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let memory = Memory::new(MemoryConfig::default().limit(64 << 20)).unwrap();
/// assert_eq!(memory.usage().limit, Some(64 << 20));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The maximum number of bytes of all segments (`-m`); `None` for no limit but the machine's.
    pub limit: Option<usize>,
    /// The kinds of pages that may be used.
    pub pages: PagePolicy,
    /// The first part of the segments' names in `/proc/*/maps` (`--file-prefix`).
    pub name: String,
    /// The number of bytes of addresses to reserve for each domain. They use no memory; a domain cannot grow
    /// beyond them.
    pub range: usize,
    /// The preferred NUMA node; `None` for the kernel's choice.
    pub node: Option<u32>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { limit: None, pages: PagePolicy::Auto, name: "linecard".into(), range: 64 << 30, node: None }
    }
}

crate::setters!(MemoryConfig {
    limit: impl Into<Option<usize>> as into,
    pages: PagePolicy,
    name: impl Into<String> as into,
    range: usize,
    node: impl Into<Option<u32>> as into,
});

/// The memory of one EAL: domains under one limit. A handle that is cheap to clone; several may exist in one
/// process.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let memory = Memory::new(MemoryConfig::default()).unwrap();
/// let zone = memory.domain("port 0").unwrap().zone("ring", 4096, 4096).unwrap();
/// assert_eq!(memory.usage().zones, zone.len());
/// ```
#[derive(Debug, Clone)]
pub struct Memory {
    shared: Arc<MemoryShared>,
}

#[derive(Debug)]
struct MemoryShared {
    config: MemoryConfig,
    account: Arc<Account>,
    domains: Mutex<HashMap<String, Weak<Domain>>>,
}

impl Memory {
    /// Creates an instance. Allocates no memory yet.
    ///
    /// # Errors
    /// [`Error::Node`] if the preferred node does not exist.
    pub fn new(config: MemoryConfig) -> Result<Self> {
        let nodes = available::nodes();
        if let Some(asked) = config.node.filter(|node| !nodes.contains(node)) {
            let online: Vec<_> = nodes.iter().map(u32::to_string).collect();
            return Err(Error::Node { asked, online: online.join(", ") });
        }
        let account = Arc::new(Account::new(config.limit));
        Ok(Self { shared: Arc::new(MemoryShared { config, account, domains: Mutex::default() }) })
    }

    /// The domain with this name. It is created by the first call, and again after its last handle and zone
    /// were dropped.
    ///
    /// # Errors
    /// [`Error::System`] if no addresses can be reserved.
    pub fn domain(&self, name: &str) -> Result<Arc<Domain>> {
        let shared = &*self.shared;
        let mut domains = shared.domains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(domain) = domains.get(name).and_then(Weak::upgrade) {
            return Ok(domain);
        }
        let domain = Domain::new(name, &shared.config, &shared.account)?;
        domains.retain(|_, domain| domain.strong_count() > 0);
        domains.insert(name.into(), Arc::downgrade(&domain));
        Ok(domain)
    }

    /// Creates a domain separate from all others, for memory that only the peer of one port may access. It
    /// cannot be found by its name. It has addresses for about `len` bytes; without hugepages its segments
    /// are no larger than the requests.
    ///
    /// # Errors
    /// [`Error::System`] if no addresses can be reserved.
    ///
    /// ```
    /// use linecard_eal::{Memory, MemoryConfig, PagePolicy};
    ///
    /// let memory = Memory::new(MemoryConfig::default().pages(PagePolicy::NoHuge)).unwrap();
    /// let rings = memory.separate("rings of port 0", 64 << 10).unwrap();
    /// let ring = rings.zone("ring", 10_000, 128).unwrap();
    /// assert_eq!((rings.segments().len(), memory.usage().total()), (1, 12 << 10));
    /// assert!(!std::sync::Arc::ptr_eq(&rings, &memory.separate("rings of port 0", 64 << 10).unwrap()));
    /// ```
    pub fn separate(&self, name: &str, len: usize) -> Result<Arc<Domain>> {
        let config = MemoryConfig { range: len, ..self.shared.config.clone() };
        Domain::small(name, &config, &self.shared.account)
    }

    /// The memory that all domains use now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.account.usage()
    }

    /// The configuration of this instance.
    #[must_use]
    pub fn config(&self) -> &MemoryConfig {
        &self.shared.config
    }
}

/// The number of bytes in use, by kind of page.
///
/// ```
/// let usage = linecard_eal::Usage { small: 2 << 20, zones: 4096, ..Default::default() };
/// assert_eq!(usage.total(), 2 << 20);
/// assert_eq!(usage.to_string(), "2 MiB of 4K pages, 4 KiB in use");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The limit for all segments together.
    pub limit: Option<usize>,
    /// The number of bytes of segments in 1G hugepages.
    pub huge_1g: usize,
    /// The number of bytes of segments in 2M hugepages.
    pub huge_2m: usize,
    /// The number of bytes of segments in pages that may become hugepages.
    pub transparent: usize,
    /// The number of bytes of segments in 4K pages.
    pub small: usize,
    /// The number of bytes of all zones, rounded up to cache lines.
    pub zones: usize,
}

impl Usage {
    /// The number of bytes of all segments.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.huge_1g + self.huge_2m + self.transparent + self.small
    }

    /// The number of bytes of segments in pages of this kind.
    #[must_use]
    pub const fn of(&self, kind: PageKind) -> usize {
        match kind {
            PageKind::Huge1G => self.huge_1g,
            PageKind::Huge2M => self.huge_2m,
            PageKind::Transparent => self.transparent,
            PageKind::Small => self.small,
        }
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = PageKind::LADDER.into_iter().filter(|kind| self.of(*kind) > 0);
        let parts: Vec<_> = parts.map(|kind| format!("{} of {kind}", size(self.of(kind)))).collect();
        let held = if parts.is_empty() { "no memory".into() } else { parts.join(" + ") };
        write!(f, "{held}, {} in use", size(self.zones))
    }
}

#[cfg(test)]
mod tests;
