//! Sources of a pool's memory.

use std::ptr::NonNull;
use std::sync::Arc;

use linecard_eal::{Domain, PrivateZone, Result, Segment, Zone};

/// The source of a pool's memory.
pub(super) enum Source<'a> {
    Domain(&'a Arc<Domain>),
    /// The heap, for tests without memfds. Every allocation holds a count of the probe.
    #[cfg(test)]
    Heap(&'a Arc<()>),
}

impl Source<'_> {
    /// Allocates memory that peers may map.
    pub(super) fn shared(&self, label: &str, len: usize) -> Result<Region> {
        match self {
            Self::Domain(domain) => domain.zone(label, len, 64).map(Region::Shared),
            #[cfg(test)]
            Self::Heap(probe) => Ok(Region::Heap(heap::Heap::new(len, probe))),
        }
    }

    /// Allocates zeroed memory that is never shared.
    pub(super) fn private(&self, len: usize) -> Result<Region> {
        match self {
            Self::Domain(_) => PrivateZone::new(len, 64).map(Region::Private),
            #[cfg(test)]
            Self::Heap(probe) => Ok(Region::Heap(heap::Heap::new(len, probe))),
        }
    }
}

/// Memory of a pool, aligned to cache lines and released on drop.
pub(crate) enum Region {
    Shared(Zone),
    Private(PrivateZone),
    #[cfg(test)]
    Heap(heap::Heap),
}

impl Region {
    pub(super) fn ptr(&self) -> NonNull<u8> {
        match self {
            Self::Shared(zone) => zone.ptr(),
            Self::Private(zone) => zone.ptr(),
            #[cfg(test)]
            Self::Heap(heap) => heap.ptr(),
        }
    }

    pub(super) fn domain(&self) -> &Arc<Domain> {
        match self {
            Self::Shared(zone) => zone.domain(),
            _ => unreachable!("buffers lie in a zone"),
        }
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        match self {
            Self::Shared(zone) => zone.segment(),
            _ => unreachable!("buffers lie in a zone"),
        }
    }
}

#[cfg(test)]
mod heap {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;
    use std::sync::Arc;

    pub(crate) struct Heap {
        _probe: Arc<()>,
        ptr: NonNull<u8>,
        layout: Layout,
    }

    impl Heap {
        pub(super) fn new(len: usize, probe: &Arc<()>) -> Self {
            let layout = Layout::from_size_align(len.max(1), 64).expect("a test's pool is small");
            // SAFETY: the size is not zero.
            let ptr = unsafe { alloc_zeroed(layout) };
            let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
            Self { ptr, layout, _probe: Arc::clone(probe) }
        }

        pub(super) fn ptr(&self) -> NonNull<u8> {
            self.ptr
        }
    }

    impl Drop for Heap {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout in `new`; the pool that used it no longer exists.
            unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
        }
    }
}
