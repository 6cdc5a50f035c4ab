//! Memory that packets and rings live in: domains, segments, zones.
//!
//! ```text
//! Memory ── limit, page policy
//!   └─ Domain ── one reserved address range, shared with a peer as a whole
//!        └─ Segment ── a sealed memfd mapped there
//!             └─ Zone ── what a pool or a ring asked for, zeroed, freed on drop
//! PrivateZone ── memory of our own, never shared
//! ```
//!
//! Pages are chosen by a ladder, without root and without configuration: 1G hugetlb pages (for requests of at least
//! 1 GiB), 2M hugetlb pages, shared memory with transparent hugepages, 4K pages. Every page is present when a
//! segment is made, so that lack of memory is an error then and never a signal later.

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

/// Bytes that this process can still take without waking the out-of-memory killer: what the machine and its memory cgroups
/// have left, less a reserve. Memory that the kernel takes on our behalf counts too.
///
/// ```
/// assert!(linecard_eal::memory::available_bytes() > 0);
/// ```
#[must_use]
pub fn available_bytes() -> usize {
    available::available().bytes
}

/// Least bytes that a segment with packets has.
pub(crate) const LEAST: usize = page::GRANULE;

/// Bytes of memory that the machine has.
pub(crate) fn total_bytes() -> usize {
    available::total()
}

/// How a [`Memory`] gets its memory.
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
    /// Most bytes all segments may have together (`-m`); `None` for no limit but the machine's.
    pub limit: Option<usize>,
    /// Which pages may be used.
    pub pages: PagePolicy,
    /// First part of the segments' names in `/proc/*/maps` (`--file-prefix`).
    pub name: String,
    /// Bytes of addresses to reserve for each domain. They cost nothing; a domain cannot grow past them.
    pub range: usize,
    /// The NUMA node to prefer; `None` for the kernel's choice.
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

/// The memory of one EAL: domains under one limit. A cheap handle to clone; several may live in one process.
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
    /// Takes no memory yet.
    ///
    /// # Errors
    /// [`Error::Node`] when the preferred node does not exist.
    pub fn new(config: MemoryConfig) -> Result<Self> {
        let nodes = available::nodes();
        if let Some(asked) = config.node.filter(|node| !nodes.contains(node)) {
            let online: Vec<_> = nodes.iter().map(u32::to_string).collect();
            return Err(Error::Node { asked, online: online.join(", ") });
        }
        let account = Arc::new(Account::new(config.limit));
        Ok(Self { shared: Arc::new(MemoryShared { config, account, domains: Mutex::default() }) })
    }

    /// The domain of that name: made when first asked for, and again after its last handle and zone are gone.
    ///
    /// # Errors
    /// [`Error::System`] when no addresses can be reserved.
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

    /// A domain apart from all others, for what the peer of one port shall have and no other peer. Nobody finds it by its
    /// name. It has addresses for about `len` bytes, and where there are no hugepages its segments are no larger than
    /// what is asked of them.
    ///
    /// # Errors
    /// [`Error::System`] when no addresses can be reserved.
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

    /// What all its domains hold now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.account.usage()
    }

    /// How it was configured.
    #[must_use]
    pub fn config(&self) -> &MemoryConfig {
        &self.shared.config
    }
}

/// Bytes in use, by kind of page.
///
/// ```
/// let usage = linecard_eal::Usage { small: 2 << 20, zones: 4096, ..Default::default() };
/// assert_eq!(usage.total(), 2 << 20);
/// assert_eq!(usage.to_string(), "2 MiB of 4K pages, 4 KiB in use");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The limit all segments share.
    pub limit: Option<usize>,
    /// Bytes of segments in 1G hugepages.
    pub huge_1g: usize,
    /// Bytes of segments in 2M hugepages.
    pub huge_2m: usize,
    /// Bytes of segments in pages that may become hugepages.
    pub transparent: usize,
    /// Bytes of segments in 4K pages.
    pub small: usize,
    /// Bytes of all zones, rounded to cache lines.
    pub zones: usize,
}

impl Usage {
    /// Bytes of all segments.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.huge_1g + self.huge_2m + self.transparent + self.small
    }

    /// Bytes of segments in pages of that kind.
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
