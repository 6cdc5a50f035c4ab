//! One ring's view of the translations, and what it misses.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam::queue::ArrayQueue;
use linecard_virtio::{Access, DeviceMemory, Translation};

use super::{Found, PAGE, Table};
use crate::peer::Peer;

/// A page that is needed, and what for.
pub(crate) type Want = (u64, Access);

/// What the poller of one ring misses, until the control thread takes it.
#[derive(Debug)]
pub(crate) struct Misses {
    /// What the next chain needs; only the last counts.
    next: AtomicU64,
    /// What chains behind it need. Where there is no room the poller looks again later.
    prefetches: ArrayQueue<Want>,
    /// The control thread was woken and has not looked since.
    told: AtomicBool,
}

/// Chains that a ring is looked ahead: what a driver may get in a burst. Others wait for their translation when it is their turn,
/// and a packet for a buffer without one is the application's to keep or to drop.
pub(crate) const AHEAD: u16 = 128;

/// Set in a word that says something. Pages leave the bits below [`PAGE`] free.
const SAID: u64 = 1;
const WRITE: u64 = 2;

impl Default for Misses {
    fn default() -> Self {
        let (next, told) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { next, prefetches: ArrayQueue::new(usize::from(AHEAD)), told }
    }
}

impl Misses {
    /// Whether the control thread has to be woken for what was noted.
    fn is_news(&self) -> bool {
        !self.told.swap(true, AcqRel)
    }

    /// Notes what the next chain needs; whether the control thread has to be woken for it.
    pub(crate) fn note(&self, (page, access): Want) -> bool {
        let word = page | SAID | if access == Access::Write { WRITE } else { 0 };
        self.next.store(word, Relaxed);
        self.is_news()
    }

    /// Begins a look; what is noted from here on wakes the control thread again.
    pub(crate) fn look(&self) -> bool {
        self.told.swap(false, AcqRel)
    }

    /// What the next chain needs, once.
    pub(crate) fn take_next(&self) -> Option<Want> {
        match self.next.swap(0, Relaxed) {
            0 => None,
            word => Some((word & !(PAGE - 1), Access::of(word & WRITE != 0))),
        }
    }

    /// Whether some chain behind it needs something.
    pub(crate) fn has_ahead(&self) -> bool {
        !self.prefetches.is_empty()
    }

    /// What some chain behind it needs, once.
    pub(crate) fn take_prefetch(&self) -> Option<Want> {
        self.prefetches.pop()
    }
}

/// One ring's view of its port's translations.
pub(crate) struct Window {
    table: Arc<Table>,
    misses: Arc<Misses>,
    peer: Arc<Peer>,
    /// What was missing at the last look, and the generation of the table before it.
    missed: Cell<Option<(Want, u64)>>,
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

    /// Changes whenever translations were taken away that rings may have counted on.
    pub(crate) fn losses(&self) -> u64 {
        self.table.losses()
    }

    /// Changes whenever translations were told or taken away.
    pub(crate) fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// Whether the ring can get no further than at the last look: nobody has told anything since.
    pub(crate) fn is_waiting(&self) -> bool {
        self.missed.get().is_some_and(|(_, generation)| generation == self.table.generation())
    }

    /// `generation` is from before the look that missed.
    #[cold]
    fn miss(&self, want: Want, generation: u64) -> Translation {
        // A burst that looks again and again asks once. After a change it asks again: the page may have been told and taken back
        // between two looks, and whoever told it takes the question as answered.
        let missed = Some((want, generation));
        if self.missed.replace(missed) != missed && self.misses.note(want) {
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
            Found::Missing => self.miss((addr & !(PAGE - 1), access), generation),
        }
    }
}

/// The same view of whoever looks at chains before their turn: what it misses is asked for, and nobody waits for it.
pub(crate) struct Prefetch<'a> {
    window: &'a Window,
    last: Cell<Option<Want>>,
    /// The chain that was looked at misses something.
    missed: Cell<bool>,
    asked: Cell<bool>,
    /// There was no room for what it misses.
    full: Cell<bool>,
}

/// Pages of one buffer that are asked for at once: as many as the longest packet has, wherever it begins.
const PAGES: usize = 17;

impl<'a> Prefetch<'a> {
    pub(crate) fn of(window: &'a Window) -> Self {
        let no = || Cell::new(false);
        Self { window, last: Cell::new(None), missed: no(), asked: no(), full: no() }
    }

    /// Whether the chain that was looked at is there, and misses something. The next look is at another one.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed.replace(false)
    }

    /// Whether the chain that was looked at has to be looked at again: the control thread has yet to take what was noted before.
    pub(crate) fn is_full(&self) -> bool {
        self.full.get()
    }

    fn note(&self, want: Want) {
        // Buffers that are neighbours share pages.
        if self.last.get() == Some(want) {
            return;
        }
        if self.window.misses.prefetches.push(want).is_err() {
            self.full.set(true);
            return;
        }
        self.asked.set(true);
        self.last.set(Some(want));
    }

    /// Notes the pages that `len` bytes at `addr` lack, of which the first is missing. All of them: a buffer that lacks its second
    /// page when its turn comes is as good as none.
    fn note_all(&self, addr: u64, len: u32, access: Access) {
        let first = addr & !(PAGE - 1);
        let last = addr.saturating_add(u64::from(len).saturating_sub(1));
        let pages = (first..=last).step_by(PAGE as usize).take(PAGES);
        self.note((first, access));
        for page in pages.skip(1) {
            if self.window.table.find(page, 1, access) == Found::Missing {
                self.note((page, access));
            }
        }
    }
}

impl Drop for Prefetch<'_> {
    fn drop(&mut self) {
        if self.asked.get() && self.window.misses.is_news() {
            self.window.peer.wake_control();
        }
    }
}

// SAFETY: as the window, from whose table all pointers come.
unsafe impl DeviceMemory for Prefetch<'_> {
    fn translate(&self, addr: u64, len: u32, access: Access) -> Option<NonNull<u8>> {
        self.window.translate(addr, len, access)
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        match self.window.table.find(addr, len.into(), access) {
            Found::Here(place, part) => Translation::Present(place, part as u32),
            Found::Missing => {
                self.note_all(addr, len, access);
                self.missed.set(true);
                Translation::NotYet
            }
        }
    }
}
