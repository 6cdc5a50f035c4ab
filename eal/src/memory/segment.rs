//! One sealed memfd, mapped into its domain's range.

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

/// Memory that can be shared with a peer by passing its descriptor. Its pages are there (no later touch can fail), it
/// can neither shrink nor grow, and neither core dumps nor forked children contain it.
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
    /// Last, so that the bytes count as used until they are unmapped and the file is closed.
    charge: Charge,
}

impl Segment {
    /// Where it is mapped in this process; a multiple of its page size and of 2 MiB.
    #[must_use]
    pub fn addr(&self) -> *mut u8 {
        self.range.base().wrapping_add(self.start)
    }

    /// Bytes mapped; a multiple of its page size, and of 2 MiB but for
    /// [separate](super::Memory::separate) domains.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The memfd, for passing on. The receiver cannot change its size.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where in the file the mapping starts: 0.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        0
    }

    /// What its pages are.
    #[must_use]
    pub const fn page(&self) -> PageKind {
        self.page
    }

    /// Where it starts in the domain's range.
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    /// A new segment of at least `len` bytes of the best pages there are.
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
                    // Remembered in case no lower rung is allowed.
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

/// Where a segment goes.
#[derive(Clone, Copy)]
pub(super) struct Placement<'a> {
    pub(super) range: &'a Arc<Reservation>,
    pub(super) domain: &'a str,
    /// Its length is a multiple of this.
    pub(super) granule: usize,
}

/// One rung of the ladder, tried.
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
        // From here on dropping `segment` undoes everything.
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
        // Through the mapping, because only there hugepages can be asked for, and pages are mapped at the same time; through
        // the file for hugetlb, which has its own pool, and where the kernel is too old (before 5.14).
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
