//! Which pages a segment is made of.

use std::fmt;

/// Smallest segment and granularity of segment sizes: 2 MiB, whatever the pages are (separate domains aside).
pub(super) const GRANULE: usize = 2 << 20;
pub(super) const GIB: usize = 1 << 30;

/// What a segment's pages are, best first.
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
    /// 4 KiB pages the kernel may join to 2 MiB ones (it was asked to; it need not).
    Transparent,
    /// 4 KiB pages.
    Small,
}

impl PageKind {
    /// All kinds, best first: the order in which they are tried.
    pub const LADDER: [Self; 4] = [Self::Huge1G, Self::Huge2M, Self::Transparent, Self::Small];

    /// Bytes of the page that is certain.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Huge1G => GIB,
            Self::Huge2M => GRANULE,
            Self::Transparent | Self::Small => 4096,
        }
    }

    /// Bytes that a segment has to fill for its pages to be what they are called.
    pub(super) const fn filled(self) -> usize {
        match self {
            Self::Transparent => GRANULE,
            kind => kind.bytes(),
        }
    }

    /// Whether the pages come from the hugetlb pool the administrator reserved.
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

/// Which kinds of page may be used.
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
    /// The best there is: 1G (for requests of at least 1 GiB), 2M, transparent, 4K. Never fails for lack of hugepages.
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

/// Whether `len` fills pages of that kind well: a 1G page is not taken for a smaller request, nor when rounding up
/// would waste more than a quarter of the request.
fn worth(kind: PageKind, len: usize) -> bool {
    kind != PageKind::Huge1G || (len >= GIB && len.next_multiple_of(GIB) - len <= len / 4)
}

/// `bytes` for people: "18 MiB", "2.5 GiB".
pub(crate) fn size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 3] = [(GIB, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = bytes % unit * 10 / unit;
    if tenths == 0 { format!("{} {name}", bytes / unit) } else { format!("{}.{tenths} {name}", bytes / unit) }
}
