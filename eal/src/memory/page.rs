//! Kinds of pages for segments.

use std::fmt;

/// The smallest segment and the granularity of segment sizes: 2 MiB for all kinds of pages (except separate
/// domains).
pub(super) const GRANULE: usize = 2 << 20;
pub(super) const GIB: usize = 1 << 30;

/// The kinds of a segment's pages, best first.
///
/// ```
/// assert_eq!(linecard_eal::PageKind::Huge2M.to_string(), "2M hugepages");
/// assert_eq!(linecard_eal::PageKind::Small.bytes(), 4096);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageKind {
    /// 1 GiB hugetlb pages.
    Huge1G,
    /// 2 MiB hugetlb pages.
    Huge2M,
    /// 4 KiB pages that the kernel may join to 2 MiB ones, as requested.
    Transparent,
    /// 4 KiB pages.
    Small,
}

impl PageKind {
    /// All kinds, best first: the order in which they are tried.
    pub const LADDER: [Self; 4] = [Self::Huge1G, Self::Huge2M, Self::Transparent, Self::Small];

    /// The guaranteed page size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Huge1G => GIB,
            Self::Huge2M => GRANULE,
            Self::Transparent | Self::Small => 4096,
        }
    }

    /// The length that a segment must be a multiple of for this kind of page.
    pub(super) const fn filled(self) -> usize {
        match self {
            Self::Transparent => GRANULE,
            kind => kind.bytes(),
        }
    }

    /// Whether the pages come from the hugetlb pool that the administrator reserved.
    #[must_use]
    pub const fn is_hugetlb(self) -> bool {
        matches!(self, Self::Huge1G | Self::Huge2M)
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Huge1G => "1G hugepages",
            Self::Huge2M => "2M hugepages",
            Self::Transparent => "transparent hugepages",
            Self::Small => "4K pages",
        })
    }
}

/// The kinds of pages that may be used.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig, PagePolicy};
///
/// let memory = Memory::new(MemoryConfig::default().pages(PagePolicy::NoHuge)).unwrap();
/// let domain = memory.domain("plain").unwrap();
/// let _zone = domain.zone("z", 100, 64).unwrap();
/// assert_eq!(domain.page_kind(), Some(linecard_eal::PageKind::Small));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PagePolicy {
    /// The best available: 1G (for requests of at least 1 GiB), 2M, transparent, 4K. Never fails for lack of
    /// hugepages.
    #[default]
    Auto,
    /// 1G or 2M hugetlb pages, or an error (`--require-hugepages`).
    RequireHuge,
    /// 4K pages (`--no-huge`).
    NoHuge,
}

impl PagePolicy {
    /// The kinds to try for a segment of `len` bytes, best first.
    pub(super) fn ladder(self, len: usize) -> impl Iterator<Item = PageKind> {
        PageKind::LADDER.into_iter().filter(move |kind| match self {
            Self::NoHuge => *kind == PageKind::Small,
            Self::RequireHuge => kind.is_hugetlb() && worth(*kind, len),
            Self::Auto => worth(*kind, len),
        })
    }
}

/// Whether pages of this kind suit a request of `len` bytes: a 1G page is not used for a smaller request, nor
/// if rounding up would waste more than a quarter of the request.
fn worth(kind: PageKind, len: usize) -> bool {
    kind != PageKind::Huge1G || (len >= GIB && len.next_multiple_of(GIB) - len <= len / 4)
}

/// Formats `bytes` for display: "18 MiB", "2.5 GiB".
pub(crate) fn size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 3] = [(GIB, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = bytes % unit * 10 / unit;
    if tenths == 0 { format!("{} {name}", bytes / unit) } else { format!("{}.{tenths} {name}", bytes / unit) }
}
