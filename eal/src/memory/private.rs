//! Memory that is never shared with a peer.

use std::io;
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::available::available;
use super::map::mapped;
use super::page::{GIB, GRANULE, size};
use crate::error::{Error, Result};

/// Anonymous private memory: zeroed, with transparent hugepages if large enough, excluded from core dumps and
/// forked children. Packet metadata and pool caches are here, where a peer cannot overwrite them. Not counted
/// in [`Memory::usage`](super::Memory::usage).
///
/// ```
/// use linecard_eal::PrivateZone;
///
/// let zone = PrivateZone::new(1000, 4096).unwrap();
/// assert_eq!((zone.len(), zone.ptr().as_ptr().addr() % 4096), (1000, 0));
/// ```
#[derive(Debug)]
pub struct PrivateZone {
    map: MmapRaw,
    padding: usize,
    len: usize,
}

impl PrivateZone {
    /// Allocates `len` bytes at a multiple of `align`, a power of two up to 1 GiB.
    ///
    /// # Errors
    /// [`Error::ZoneLength`], [`Error::Alignment`], [`Error::Unavailable`], [`Error::System`].
    pub fn new(len: usize, align: usize) -> Result<Self> {
        if !align.is_power_of_two() || align > GIB {
            return Err(Error::Alignment { label: "private".into(), asked: align, max: GIB });
        }
        let max = isize::MAX as usize - GIB;
        if !(1..=max).contains(&len) {
            return Err(Error::ZoneLength { label: "private".into(), asked: len, max });
        }
        let available = available();
        if len > available.bytes {
            return Err(available.short_of(len));
        }
        Self::map(len, align)
            .map_err(|e| Error::addresses(format!("map {} of private memory", size(len)), len, e))
    }

    fn map(len: usize, align: usize) -> io::Result<Self> {
        // Only 2 MiB at a multiple of 2 MiB can become a hugepage.
        let align = if len >= GRANULE { align.max(GRANULE) } else { align };
        let map = MmapRaw::from(MmapOptions::new().len(len + align).map_anon()?);
        let padding = map.as_mut_ptr().align_offset(align);
        map.advise(Advice::DontDump)?;
        map.advise(Advice::DontFork)?;
        // This is only advice: a kernel without transparent hugepages refuses it.
        let _ = map.advise_range(Advice::HugePage, padding, len);
        Ok(Self { map, padding, len })
    }

    /// The address of the first byte.
    #[must_use]
    pub fn ptr(&self) -> NonNull<u8> {
        mapped(self.map.as_mut_ptr().wrapping_add(self.padding))
    }

    /// The requested length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }
}
