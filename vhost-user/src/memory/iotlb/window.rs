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
    /// What chains behind it need. What there is no room for is asked for when its turn comes.
    ahead: ArrayQueue<Want>,
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
        Self { next, ahead: ArrayQueue::new(usize::from(AHEAD)), told }
    }
}

impl Misses {
    /// Whether the control thread has to be woken for what was noted.
    fn is_news(&self) -> bool {
        !self.told.swap(true, AcqRel)
    }

    fn note_next(&self, (page, access): Want) {
        let word = page | SAID | if access == Access::Write { WRITE } else { 0 };
        self.next.store(word, Relaxed);
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

    /// What some chain behind it needs, once.
    pub(crate) fn take_ahead(&self) -> Option<Want> {
        self.ahead.pop()
    }
}

/// One ring's view of its port's translations.
pub(crate) struct Window {
    table: Arc<Table>,
    misses: Arc<Misses>,
    peer: Arc<Peer>,
    /// What was missing at the last look, and the generation of the table then.
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

    /// Whether the ring can get no further than at the last look: nobody has told anything since.
    pub(crate) fn is_waiting(&self) -> bool {
        self.missed.get().is_some_and(|(_, generation)| generation == self.table.generation())
    }

    /// `generation` is from before the look that missed.
    #[cold]
    fn miss(&self, want: Want, generation: u64) -> Translation {
        let asked = self.missed.replace(Some((want, generation)));
        // A burst that looks again and again asks once.
        if asked.is_none_or(|(before, _)| before != want) {
            self.misses.note_next(want);
            if self.misses.is_news() {
                self.peer.wake_control();
            }
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
}

impl<'a> Prefetch<'a> {
    pub(crate) fn of(window: &'a Window) -> Self {
        Self { window, last: Cell::new(None), missed: Cell::new(false), asked: Cell::new(false) }
    }

    /// Whether the chain that was looked at is there, and misses something. The next look is at another one.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed.replace(false)
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
                let want = (addr & !(PAGE - 1), access);
                // Buffers that are neighbours share pages.
                if self.last.replace(Some(want)) != Some(want) {
                    self.asked.set(self.window.misses.ahead.push(want).is_ok() || self.asked.get());
                }
                self.missed.set(true);
                Translation::NotYet
            }
        }
    }
}
