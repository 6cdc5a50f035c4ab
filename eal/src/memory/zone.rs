//! Zones: owned pieces of memory.

use std::ptr::NonNull;
use std::sync::Arc;

use super::domain::Domain;
use super::map::mapped;
use super::segment::Segment;
use crate::shared::SharedBytes;

/// Contiguous bytes of a domain, freed on drop. A zone keeps its segment and its domain alive.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let domain = Memory::new(MemoryConfig::default()).unwrap().domain("ports").unwrap();
/// let zone = domain.zone("ring", 1000, 64).unwrap();
/// assert_eq!(zone.ptr().as_ptr().addr() % 64, 0);
/// // SAFETY: `zone` is kept while the handle is used.
/// let bytes = unsafe { zone.bytes() };
/// assert_eq!(bytes.copy_from(b"hello"), 5);
/// let mut copy = [1; 1000];
/// bytes.copy_to(&mut copy);
/// assert_eq!(&copy[..6], b"hello\0");
/// ```
#[derive(Debug)]
pub struct Zone {
    label: String,
    domain: Arc<Domain>,
    segment: Arc<Segment>,
    start: usize,
    room: usize,
    len: usize,
}

impl Zone {
    /// Takes ownership of `room` bytes at `start`, which were placed in `segment`, and zeroes them: the peer
    /// may have written there before, and page faults should happen here instead of with the first packets.
    pub(super) fn new(
        label: &str,
        domain: Arc<Domain>,
        segment: Arc<Segment>,
        start: usize,
        room: usize,
        len: usize,
    ) -> Self {
        let zone = Self { label: label.into(), domain, segment, start, room, len };
        // SAFETY: the handle is used only in this statement, while the zone keeps the segment.
        unsafe { zone.bytes() }.fill(0);
        zone
    }

    /// The name, for messages.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The address of the first byte.
    #[must_use]
    pub fn ptr(&self) -> NonNull<u8> {
        mapped(self.domain.base().wrapping_add(self.start))
    }

    /// The requested length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// A handle to the bytes of the zone.
    ///
    /// # Safety
    /// The zone exists while the handle, or one derived from it, is used; the other conditions of
    /// [`SharedBytes::new`] hold.
    #[must_use]
    pub unsafe fn bytes(&self) -> SharedBytes {
        // SAFETY: mapped read-write while the segment exists, which the zone keeps; the caller guarantees the
        // other conditions.
        unsafe { SharedBytes::new(self.ptr(), self.len) }
    }

    /// The domain it belongs to.
    #[must_use]
    pub const fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// The segment that contains it.
    #[must_use]
    pub const fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The offset of the zone in its segment's file, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        (self.start - self.segment.start()) as u64
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.domain.release(self.start, self.room);
    }
}
