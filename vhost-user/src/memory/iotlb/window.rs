//! One ring's view of the translations, and what it misses.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;

use linecard_virtio::{Access, DeviceMemory, Translation};

use super::{Found, PAGE, Table};
use crate::peer::Peer;

/// What the poller of one ring has missed last, until the control thread takes it.
#[derive(Debug, Default)]
pub(crate) struct Misses(AtomicU64);

/// Set in a word that says something. Pages leave the bits below [`PAGE`] free.
const SAID: u64 = 1;
const WRITE: u64 = 2;

impl Misses {
    /// Notes a page; whether the control thread has to be woken for it.
    fn note(&self, page: u64, access: Access) -> bool {
        let word = page & !(PAGE - 1) | SAID | if access == Access::Write { WRITE } else { 0 };
        self.0.swap(word, AcqRel) == 0
    }

    /// The page that was noted last, once.
    pub(crate) fn take(&self) -> Option<(u64, Access)> {
        match self.0.swap(0, AcqRel) {
            0 => None,
            word => Some((word & !(PAGE - 1), Access::of(word & WRITE != 0))),
        }
    }
}

/// One ring's view of its port's translations.
pub(crate) struct Window {
    table: Arc<Table>,
    misses: Arc<Misses>,
    peer: Arc<Peer>,
    /// What was missing at the last look, and the generation of the table then.
    missed: Cell<Option<(u64, Access, u64)>>,
}

impl Window {
    pub(crate) fn new(table: &Arc<Table>, misses: &Arc<Misses>, peer: &Arc<Peer>) -> Self {
        let (table, misses, peer) = (Arc::clone(table), Arc::clone(misses), Arc::clone(peer));
        Self { table, misses, peer, missed: Cell::new(None) }
    }

    /// The next look is at another chain, or again at the same.
    pub(crate) fn found(&self) {
        self.missed.set(None);
    }

    /// Whether the ring can get no further than at the last look: nobody has told anything since.
    pub(crate) fn is_waiting(&self) -> bool {
        self.missed.get().is_some_and(|(_, _, generation)| generation == self.table.generation())
    }

    /// `generation` is from before the look that missed.
    #[cold]
    fn miss(&self, addr: u64, access: Access, generation: u64) -> Translation {
        let page = addr & !(PAGE - 1);
        let asked = self.missed.replace(Some((page, access, generation)));
        // A burst that looks again and again asks once.
        if asked.is_none_or(|(before, how, _)| (before, how) != (page, access))
            && self.misses.note(page, access)
        {
            self.peer.wake_control();
        }
        Translation::NotYet
    }
}

// SAFETY: the table's entries were checked against regions of its map when they were told, and the table keeps the map, and so
// the regions mapped; raw and atomic access to shared file pages is always valid (see `MemoryMap`).
unsafe impl DeviceMemory for Window {
    #[inline]
    fn translate(&self, addr: u64, len: u32, access: Access) -> Option<NonNull<u8>> {
        match self.table.find(addr, len.into(), access) {
            Found::Here(place, part) if part == u64::from(len) => Some(place),
            Found::Here(..) | Found::Missing => None,
        }
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        let generation = self.table.generation();
        match self.table.find(addr, len.into(), access) {
            // As much as was asked for at most, and that fits.
            Found::Here(place, part) => Translation::Present(place, part as u32),
            Found::Missing => self.miss(addr, access, generation),
        }
    }
}
