//! Shared cells that count their reads, to detect double fetches in unit tests.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::cell::RefCell;
use std::collections::HashMap;

use linecard_eal::shared::{self, Word};

thread_local! {
    static READS: RefCell<Option<HashMap<usize, u32>>> = const { RefCell::new(None) };
}

/// Runs `f`. Returns its result, and how often this thread read each byte of shared memory meanwhile.
pub(crate) fn reads<R>(f: impl FnOnce() -> R) -> (R, HashMap<usize, u32>) {
    READS.set(Some(HashMap::new()));
    let result = f();
    (result, READS.take().unwrap_or_default())
}

fn count(start: usize, len: usize) {
    READS.with_borrow_mut(|reads| {
        if let Some(reads) = reads {
            for at in start..start + len {
                *reads.entry(at).or_default() += 1;
            }
        }
    });
}

/// As [`shared::Shared`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<T>(shared::Shared<T>);

impl<T: Word> Shared<T> {
    #[inline(always)]
    pub(crate) fn load(self, order: Ordering) -> T {
        count(self.0.as_ptr() as usize, size_of::<T>());
        self.0.load(order)
    }

    #[inline(always)]
    pub(crate) fn store(self, value: T, order: Ordering) {
        self.0.store(value, order);
    }
}

/// As [`shared::SharedSlice`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedSlice<T>(shared::SharedSlice<T>);

impl<T: Word> SharedSlice<T> {
    pub(crate) fn at(self, index: usize) -> Option<Shared<T>> {
        self.0.at(index).map(Shared)
    }

    /// # Safety
    /// As [`shared::SharedSlice::at_unchecked`].
    #[inline(always)]
    pub(crate) unsafe fn at_unchecked(self, index: usize) -> Shared<T> {
        // SAFETY: `index` is below the slice's length (this function's condition).
        Shared(unsafe { self.0.at_unchecked(index) })
    }
}

/// As [`shared::SharedBytes`].
#[derive(Clone, Copy, Debug)]
pub struct SharedBytes(shared::SharedBytes);

impl SharedBytes {
    /// # Safety
    /// As [`shared::SharedBytes::new`].
    pub(crate) const unsafe fn new(ptr: NonNull<u8>, len: usize) -> Self {
        // SAFETY: `ptr` and `len` are as `shared::SharedBytes::new` asks (this function's condition).
        Self(unsafe { shared::SharedBytes::new(ptr, len) })
    }

    pub(crate) const fn len(self) -> usize {
        self.0.len()
    }

    pub(crate) const fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr()
    }

    pub(crate) fn slice(self, offset: usize, len: usize) -> Option<Self> {
        self.0.slice(offset, len).map(Self)
    }

    pub(crate) fn copy_to(self, dst: &mut [u8]) -> usize {
        count(self.0.as_ptr() as usize, self.len().min(dst.len()));
        self.0.copy_to(dst)
    }

    pub(crate) fn copy_from(self, src: &[u8]) -> usize {
        self.0.copy_from(src)
    }

    pub(crate) fn cell<T: Word>(self, offset: usize) -> Option<Shared<T>> {
        self.0.cell(offset).map(Shared)
    }

    pub(crate) fn cells<T: Word>(self, offset: usize, len: usize) -> Option<SharedSlice<T>> {
        self.0.cells(offset, len).map(SharedSlice)
    }
}
