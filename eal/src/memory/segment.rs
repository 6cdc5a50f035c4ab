//! Segments: sealed memfds, mapped into the range of their domain.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::account::{Account, Charge};
use super::available::{available, free_hugetlb, transparent_shared};
use super::map::Reservation;
use super::page::{GRANULE, PageKind};
use super::{MemoryConfig, PagePolicy};
use crate::error::{Error, Result};
use crate::sys;

/// Memory that can be shared with a peer by passing its descriptor. Its pages are present (no later access
/// can fail), its size cannot change, and neither core dumps nor forked children contain it.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let domain = Memory::new(MemoryConfig::default()).unwrap().domain("ports").unwrap();
/// let zone = domain.zone("ring", 4096, 64).unwrap();
/// let segment = &domain.segments()[0];
/// assert_eq!(segment.len(), 2 << 20);
/// assert!(zone.ptr().as_ptr() >= segment.addr());
/// ```
#[derive(Debug)]
pub struct Segment {
    range: Arc<Reservation>,
    start: usize,
    len: usize,
    file: File,
    page: PageKind,
    /// The last field, so that the bytes count as used until they are unmapped and the file is closed.
    charge: Charge,
}

impl Segment {
    /// The address of the mapping in this process; a multiple of its page size and of 2 MiB.
    #[must_use]
    pub fn addr(&self) -> *mut u8 {
        self.range.base().wrapping_add(self.start)
    }

    /// The mapped length in bytes; a multiple of its page size, and of 2 MiB except in
    /// [separate](super::Memory::separate) domains.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The memfd, to be passed to a peer, which cannot change its size.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The offset of the mapping in the file: 0.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        0
    }

    /// The kind of its pages.
    #[must_use]
    pub const fn page(&self) -> PageKind {
        self.page
    }

    /// The offset of the segment in the domain's range.
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    /// Creates a segment of at least `len` bytes in the best pages available.
    pub(super) fn new(
        place: Placement<'_>,
        config: &MemoryConfig,
        len: usize,
        account: &Arc<Account>,
    ) -> Result<Self> {
        let mut refusal = None;
        for page in config.pages.ladder(len) {
            let len = len.next_multiple_of(page.filled().max(place.granule));
            if !page_usable(page, len) {
                continue;
            }
            let attempt = Request { place, config, len, page };
            match account.charge(len, page).and_then(|charge| attempt.create(charge)) {
                Ok(segment) => return Ok(segment),
                Err(error) if page == PageKind::Small => return Err(error),
                Err(error) => {
                    tracing::debug!(domain = place.domain, pages = %page, %error, "trying smaller pages");
                    // Returned if no smaller kind of page is allowed.
                    refusal = Some(error);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| no_hugepages(len, config.pages)))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.range.unmap(self.start, self.len);
    }
}

fn page_usable(page: PageKind, len: usize) -> bool {
    match page {
        PageKind::Huge1G | PageKind::Huge2M => free_hugetlb(page.bytes()) >= len,
        PageKind::Transparent => transparent_shared(),
        PageKind::Small => true,
    }
}

fn no_hugepages(len: usize, policy: PagePolicy) -> Error {
    debug_assert_eq!(policy, PagePolicy::RequireHuge, "every other policy ends with small pages");
    let page = PageKind::Huge2M.bytes();
    Error::Hugepages { asked: len, free: free_hugetlb(page), need: len.div_ceil(page) }
}

/// The destination of a segment.
#[derive(Clone, Copy)]
pub(super) struct Placement<'a> {
    pub(super) range: &'a Arc<Reservation>,
    pub(super) domain: &'a str,
    /// The segment's length is a multiple of this.
    pub(super) granule: usize,
}

/// An attempt with one kind of page.
struct Request<'a> {
    place: Placement<'a>,
    config: &'a MemoryConfig,
    len: usize,
    page: PageKind,
}

impl Request<'_> {
    fn create(&self, charge: Charge) -> Result<Segment> {
        let Self { place: Placement { range, domain, .. }, len, page, .. } = *self;
        if !page.is_hugetlb() {
            self.check_available()?;
        }
        let name = format!("{}.{domain}", self.config.name);
        let power = page.is_hugetlb().then(|| page.bytes().trailing_zeros());
        let file = sys::memfd(&name, power).map_err(|e| self.failed("create", e))?;
        if len > sys::limit(sys::Resource::FileSize) {
            return Err(self.failed("size", io::Error::from_raw_os_error(libc::EFBIG)));
        }
        file.set_len(len as u64).map_err(|e| self.failed("size", e))?;
        let start = range.place(len, page.bytes().max(GRANULE)).ok_or_else(|| Error::Range {
            domain: domain.into(),
            asked: len,
            range: range.len(),
        })?;
        range.map(start, len, &file).map_err(|e| self.failed("map", e))?;
        // From here on, dropping `segment` undoes everything.
        let segment = Segment { range: Arc::clone(range), start, len, file, page, charge };
        self.populate(&segment).map_err(|e| self.failed("allocate", e))?;
        sys::seal(&segment.file).map_err(|e| self.failed("seal", e))?;
        if segment.charge.first_of_kind() {
            tracing::info!(domain, "memory is in {page}");
        }
        tracing::debug!(domain, size = %super::size(len), pages = %page, "memory segment");
        Ok(segment)
    }

    fn populate(&self, segment: &Segment) -> io::Result<()> {
        let range = self.place.range;
        if let Some(node) = self.config.node {
            range.bind(segment.start, self.len, node)?;
        }
        // Through the mapping, because only there hugepages can be requested, and the pages are mapped at the
        // same time. Through the file for hugetlb, which has its own pool, and if the kernel is too old
        // (before 5.14).
        let huge = self.page == PageKind::Transparent;
        if !self.page.is_hugetlb() && range.populate(segment.start, self.len, huge)? {
            return Ok(());
        }
        sys::allocate(&segment.file, self.len)
    }

    fn check_available(&self) -> Result<()> {
        let available = available();
        if self.len <= available.bytes {
            return Ok(());
        }
        Err(available.short_of(self.len))
    }

    fn failed(&self, verb: &str, source: io::Error) -> Error {
        Error::system(format!("{verb} a segment of {} in {}", super::size(self.len), self.page), source)
    }
}
