//! One ring's view of the translations, and its misses.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam::queue::ArrayQueue;
use linecard_virtio::{Access, DeviceMemory, Translation};

use super::{Found, PAGE, Table};
use crate::peer::Peer;

/// A page, and the access that it is needed for.
pub(crate) type Want = (u64, Access);

/// The misses of one ring's poller, until the control thread collects them.
#[derive(Debug)]
pub(crate) struct Misses {
    /// The miss of the next chain; a later one replaces it.
    next: AtomicU64,
    /// The misses of later chains. If the queue is full, the poller notes them later.
    prefetches: ArrayQueue<Want>,
    /// The control thread was woken and has not looked since.
    told: AtomicBool,
}

/// Chains for which translations are prefetched: as many as a driver may get in a burst. Later chains wait
/// for their translations when they are next. A packet for a buffer without a translation is kept or dropped
/// by the application.
pub(crate) const AHEAD: u16 = 128;

/// Set in a word that holds a miss. Page addresses have no bits below [`PAGE`].
const SAID: u64 = 1;
const WRITE: u64 = 2;

impl Default for Misses {
    fn default() -> Self {
        let (next, told) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { next, prefetches: ArrayQueue::new(usize::from(AHEAD)), told }
    }
}

impl Misses {
    /// Marks that something was noted. Returns whether the control thread must be woken.
    fn is_news(&self) -> bool {
        !self.told.swap(true, AcqRel)
    }

    /// Notes a miss of the next chain. Returns whether the control thread must be woken.
    pub(crate) fn note(&self, (page, access): Want) -> bool {
        let word = page | SAID | if access == Access::Write { WRITE } else { 0 };
        self.next.store(word, Relaxed);
        self.is_news()
    }

    /// Starts a collection. Later misses wake the control thread again.
    pub(crate) fn look(&self) -> bool {
        self.told.swap(false, AcqRel)
    }

    /// Takes the miss of the next chain.
    pub(crate) fn take_next(&self) -> Option<Want> {
        match self.next.swap(0, Relaxed) {
            0 => None,
            word => Some((word & !(PAGE - 1), Access::of(word & WRITE != 0))),
        }
    }

    /// Whether a later chain has a miss.
    pub(crate) fn has_ahead(&self) -> bool {
        !self.prefetches.is_empty()
    }

    /// Takes a miss of a later chain.
    pub(crate) fn take_prefetch(&self) -> Option<Want> {
        self.prefetches.pop()
    }
}

/// One ring's view of its port's translations.
pub(crate) struct Window {
    table: Arc<Table>,
    misses: Arc<Misses>,
    peer: Arc<Peer>,
    /// The miss of the last lookup, and the table's generation before that lookup.
    missed: Cell<Option<(Want, u64)>>,
}

impl Window {
    pub(crate) fn new(table: &Arc<Table>, misses: &Arc<Misses>, peer: &Arc<Peer>) -> Self {
        let (table, misses, peer) = (Arc::clone(table), Arc::clone(misses), Arc::clone(peer));
        Self { table, misses, peer, missed: Cell::new(None) }
    }

    /// Notes that a chain was found. The next lookup is for another chain, or for this one again.
    pub(crate) fn found(&self) {
        self.missed.set(None);
    }

    /// A number that changes whenever translations are removed that rings may have used.
    pub(crate) fn losses(&self) -> u64 {
        self.table.losses()
    }

    /// A number that changes whenever translations are added or removed.
    pub(crate) fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// Whether the ring cannot continue after the last lookup, because no translation has changed since.
    pub(crate) fn is_waiting(&self) -> bool {
        self.missed.get().is_some_and(|(_, generation)| generation == self.table.generation())
    }

    /// Notes a miss. `generation` was read before the lookup.
    #[cold]
    fn miss(&self, want: Want, generation: u64) -> Translation {
        // Repeated lookups note a miss once. After a change they note it again: the page may have been added
        // and removed between two lookups, and the control thread then regards the request as answered.
        let missed = Some((want, generation));
        if self.missed.replace(missed) != missed && self.misses.note(want) {
            self.peer.wake_control();
        }
        Translation::NotYet
    }
}

// SAFETY: entries are checked against regions of the map when they are added, and the table keeps the map and
// with it the regions mapped. Raw and atomic access to shared file pages is always valid (see `MemoryMap`).
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
            // `part` is at most `len`, so it fits.
            Found::Here(place, part) => Translation::Present(place, part as u32),
            Found::Missing => self.miss((addr & !(PAGE - 1), access), generation),
        }
    }
}

/// The same view for prefetches: misses are requested, and no chain waits for them.
pub(crate) struct Prefetch<'a> {
    window: &'a Window,
    last: Cell<Option<Want>>,
    /// The current chain has a miss.
    missed: Cell<bool>,
    asked: Cell<bool>,
    /// A miss found no room in the queue.
    full: Cell<bool>,
}

/// Pages of one buffer that are requested at once: the maximum of the longest packet, at any alignment.
const PAGES: usize = 17;

impl<'a> Prefetch<'a> {
    pub(crate) fn of(window: &'a Window) -> Self {
        let no = || Cell::new(false);
        Self { window, last: Cell::new(None), missed: no(), asked: no(), full: no() }
    }

    /// Whether the current chain exists and has a miss. Resets that for the next chain.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed.replace(false)
    }

    /// Whether the current chain must be looked at again, because the control thread has not collected
    /// earlier misses.
    pub(crate) fn is_full(&self) -> bool {
        self.full.get()
    }

    fn note(&self, want: Want) {
        // Adjacent buffers share pages.
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

    /// Notes all missing pages of `len` bytes at `addr`, of which the first is missing. A buffer whose second
    /// page is missing when it is needed is unusable, so all pages are requested.
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

// SAFETY: as for the window, whose table returns all pointers.
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
