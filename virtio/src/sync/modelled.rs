//! Shared cells for loom: every word is a modelled atomic, found by its offset in an arena. The interface is
//! the part of [`linecard_eal::shared`] that this crate uses.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use loom::sync::atomic::AtomicU64;

/// Integer types of ring words.
pub trait Word: Copy + PartialEq {
    /// Widens to the only width of the model.
    fn wide(self) -> u64;
    /// The reverse of [`Word::wide`].
    fn narrow(wide: u64) -> Self;
}

macro_rules! word {
    ($($int:ty),*) => {$(
        impl Word for $int {
            fn wide(self) -> u64 { self as u64 }
            fn narrow(wide: u64) -> Self { wide as Self }
        }
    )*};
}
word!(u16, u32, u64);

/// The words of one ring. `cell` and `cells` create them before threads start; they are freed with the arena.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    words: Mutex<HashMap<usize, Arc<AtomicU64>>>,
}

impl Arena {
    /// `len` bytes with any alignment. The arena must outlive every handle.
    pub(crate) fn bytes(&self, len: usize) -> SharedBytes {
        SharedBytes { arena: self, at: 0, len }
    }

    fn word(&self, at: usize) -> Arc<AtomicU64> {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.entry(at).or_insert_with(|| Arc::new(AtomicU64::new(0))).clone()
    }
}

/// As `linecard_eal::shared::Shared`.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    arena: *const Arena,
    at: usize,
    word: PhantomData<T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}

// SAFETY: the arena is `Sync` and outlives the handles, as its owner promises.
unsafe impl<T> Send for Shared<T> {}

impl<T: Word> Shared<T> {
    fn atomic(self) -> Arc<AtomicU64> {
        // SAFETY: the arena outlives every handle (see `Arena::bytes`).
        unsafe { &*self.arena }.word(self.at)
    }

    pub(crate) fn load(self, order: Ordering) -> T {
        T::narrow(self.atomic().load(order))
    }

    pub(crate) fn store(self, value: T, order: Ordering) {
        self.atomic().store(value.wide(), order);
    }
}

/// As `linecard_eal::shared::SharedSlice`.
#[derive(Debug)]
pub(crate) struct SharedSlice<T> {
    first: Shared<T>,
    len: usize,
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedSlice<T> {}

impl<T: Word> SharedSlice<T> {
    pub(crate) fn at(self, index: usize) -> Option<Shared<T>> {
        // SAFETY: compared here.
        (index < self.len).then(|| unsafe { self.at_unchecked(index) })
    }

    /// # Safety
    /// `index < len`.
    pub(crate) unsafe fn at_unchecked(self, index: usize) -> Shared<T> {
        assert!(index < self.len);
        Shared { at: self.first.at + index * size_of::<T>(), ..self.first }
    }
}

/// As `linecard_eal::shared::SharedBytes`.
#[derive(Clone, Copy, Debug)]
pub struct SharedBytes {
    arena: *const Arena,
    at: usize,
    len: usize,
}

// SAFETY: the arena is `Sync` and outlives the handles, as its owner promises.
unsafe impl Send for SharedBytes {}

impl SharedBytes {
    /// # Safety
    /// No condition is needed: payload is not modelled, and these bytes cannot be read.
    pub(crate) const unsafe fn new(_: NonNull<u8>, len: usize) -> Self {
        Self { arena: core::ptr::null(), at: 0, len }
    }

    pub(crate) const fn len(self) -> usize {
        self.len
    }

    pub(crate) const fn as_ptr(self) -> *mut u8 {
        core::ptr::without_provenance_mut(self.at)
    }

    pub(crate) fn slice(self, offset: usize, len: usize) -> Option<Self> {
        (offset.checked_add(len)? <= self.len).then_some(Self { at: self.at + offset, len, ..self })
    }

    pub(crate) fn copy_to(self, _: &mut [u8]) -> usize {
        unimplemented!("payload and indirect tables are not modelled")
    }

    pub(crate) fn cell<T: Word>(self, offset: usize) -> Option<Shared<T>> {
        self.slice(offset, size_of::<T>())?;
        let cell = Shared { arena: self.arena, at: self.at + offset, word: PhantomData };
        cell.atomic();
        Some(cell)
    }

    pub(crate) fn cells<T: Word>(self, offset: usize, len: usize) -> Option<SharedSlice<T>> {
        self.slice(offset, len * size_of::<T>())?;
        let first = Shared { arena: self.arena, at: self.at + offset, word: PhantomData };
        let cells = SharedSlice { first, len };
        (0..len).filter_map(|k| cells.at(k)).for_each(|cell| drop(cell.atomic()));
        Some(cells)
    }
}
