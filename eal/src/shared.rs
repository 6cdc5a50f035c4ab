//! The only access to memory that a peer may write.
//!
//! A virtqueue or a packet buffer is in a segment that another process maps too. Rust references must not
//! point there, because a reference guarantees that the value does not change unexpectedly. These handles
//! have raw pointers whose range and alignment were checked once, when the handle was created. Every access
//! is one atomic load or store, or a copy of bytes to private memory.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

mod sealed {
    use super::Ordering;

    pub trait Access: Copy {
        /// # Safety
        /// As [`super::Shared::new`].
        unsafe fn load(ptr: *mut Self, order: Ordering) -> Self;
        /// # Safety
        /// As [`super::Shared::new`].
        unsafe fn store(ptr: *mut Self, value: Self, order: Ordering);
    }
}

/// Integers that are read and written atomically: `u8`, `u16`, `u32`, `u64`.
///
/// ```
/// fn bytes_of<T: linecard_eal::shared::Word>() -> usize { size_of::<T>() }
/// assert_eq!(bytes_of::<u16>(), 2);
/// ```
pub trait Word: sealed::Access {}

macro_rules! word {
    ($($int:ty => $atomic:ident),*) => {$(
        impl sealed::Access for $int {
            #[inline(always)]
            unsafe fn load(ptr: *mut Self, order: Ordering) -> Self {
                // SAFETY: the caller of `Shared::new` guarantees that the pointer is aligned and valid while
                // the handle is used, and that this process only uses atomic accesses. The borrow ends with
                // this call.
                unsafe { std::sync::atomic::$atomic::from_ptr(ptr) }.load(order)
            }
            #[inline(always)]
            unsafe fn store(ptr: *mut Self, value: Self, order: Ordering) {
                // SAFETY: the caller of `Shared::new` guarantees that the pointer is aligned and valid while
                // the handle is used, and that this process only uses atomic accesses. The borrow ends with
                // this call.
                unsafe { std::sync::atomic::$atomic::from_ptr(ptr) }.store(value, order);
            }
        }
        impl Word for $int {}
    )*};
}
word!(u8 => AtomicU8, u16 => AtomicU16, u32 => AtomicU32, u64 => AtomicU64);

/// One value that a peer may change concurrently; a copyable handle.
///
/// ```
/// use std::{ptr::NonNull, sync::atomic::Ordering};
/// use linecard_eal::shared::Shared;
///
/// let mut index = 7_u16;
/// // SAFETY: `index` outlives `cell` and is touched through it alone.
/// let cell = unsafe { Shared::new(NonNull::from(&mut index)) };
/// cell.store(cell.load(Ordering::Acquire) + 1, Ordering::Release);
/// assert_eq!(cell.load(Ordering::Relaxed), 8);
/// ```
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Shared<T>(NonNull<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}

// SAFETY: the handle only allows atomic access, which any thread may do; the condition of `new` on the
// memory's lifetime covers all copies.
unsafe impl<T: Word> Send for Shared<T> {}
// SAFETY: a shared reference allows the same as a copy: atomic access, from any thread.
unsafe impl<T: Word> Sync for Shared<T> {}

impl<T: Word> Shared<T> {
    /// A handle to the value at `ptr`.
    ///
    /// # Safety
    /// `ptr` is aligned for `T` and stays mapped, readable and writable while any copy of the handle is used;
    /// this process accesses the value only through such handles or other atomics.
    pub const unsafe fn new(ptr: NonNull<T>) -> Self {
        Self(ptr)
    }

    /// Reads the value once. Panics for the orderings an atomic load does not have (`Release`, `AcqRel`).
    #[inline(always)]
    #[must_use]
    pub fn load(self, order: Ordering) -> T {
        // SAFETY: valid and aligned (the condition of `new`).
        unsafe { T::load(self.0.as_ptr(), order) }
    }

    /// Writes the value once. Panics for the orderings an atomic store does not have (`Acquire`, `AcqRel`).
    #[inline(always)]
    pub fn store(self, value: T, order: Ordering) {
        // SAFETY: valid and aligned (the condition of `new`).
        unsafe { T::store(self.0.as_ptr(), value, order) }
    }

    /// The address of the value.
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}

/// `len` consecutive values that a peer may change; a copyable handle.
///
/// ```
/// use std::{ptr::NonNull, sync::atomic::Ordering};
/// use linecard_eal::shared::SharedSlice;
///
/// let mut ring = [0_u16; 4];
/// // SAFETY: `ring` outlives the handle and is touched through it alone until then.
/// let slots = unsafe { SharedSlice::new(NonNull::from(&mut ring).cast::<u16>(), 4) };
/// slots.at(3).unwrap().store(9, Ordering::Relaxed);
/// assert!(slots.at(4).is_none());
/// assert_eq!(ring, [0, 0, 0, 9]);
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct SharedSlice<T> {
    ptr: NonNull<T>,
    len: usize,
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedSlice<T> {}

// SAFETY: gives access only to `Shared<T>`, which is `Send`.
unsafe impl<T: Word> Send for SharedSlice<T> {}
// SAFETY: a shared reference gives access only to `Shared<T>`, which is `Send` and `Sync`.
unsafe impl<T: Word> Sync for SharedSlice<T> {}

impl<T: Word> SharedSlice<T> {
    /// A handle to the `len` values from `ptr` on.
    ///
    /// # Safety
    /// The condition of [`Shared::new`] holds for each of the `len` values.
    pub const unsafe fn new(ptr: NonNull<T>, len: usize) -> Self {
        Self { ptr, len }
    }

    /// The number of values.
    #[inline(always)]
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there are no values.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The value at `index`; `None` past the end.
    #[inline(always)]
    #[must_use]
    pub fn at(self, index: usize) -> Option<Shared<T>> {
        if index >= self.len {
            return None;
        }
        // SAFETY: `index < self.len`, compared above.
        Some(unsafe { self.at_unchecked(index) })
    }

    /// The value at `index`, unchecked.
    ///
    /// # Safety
    /// `index < self.len()`.
    // MEASURED: cargo xtask budget; checked here, 9 to 29 instructions more per packet of a virtqueue and direction.
    #[inline(always)]
    #[must_use]
    pub unsafe fn at_unchecked(self, index: usize) -> Shared<T> {
        debug_assert!(index < self.len);
        // SAFETY: within the range of `new` (this function's condition).
        let ptr = unsafe { self.ptr.add(index) };
        // SAFETY: `new` requires valid, aligned values for `len` elements, and this is one of them.
        unsafe { Shared::new(ptr) }
    }

    /// The address of the first value.
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(self) -> *mut T {
        self.ptr.as_ptr()
    }
}

/// Bytes that a peer may change. They are copied in or out, never borrowed.
///
/// A copy that races with the peer yields a mix of old and new bytes: base decisions on the copy only.
///
/// ```
/// use std::{ptr::NonNull, sync::atomic::Ordering};
/// use linecard_eal::shared::SharedBytes;
///
/// let mut page = [0_u64; 2];
/// // SAFETY: `page` outlives the handle and is touched through it alone until then.
/// let bytes = unsafe { SharedBytes::new(NonNull::from(&mut page).cast(), 16) };
/// assert_eq!(bytes.slice(4, 12).unwrap().copy_from(&[1; 99]), 12);
/// let mut start = [0; 5];
/// assert_eq!(bytes.copy_to(&mut start), 5);
/// assert_eq!(start, [0, 0, 0, 0, 1]);
/// assert_eq!(bytes.cell::<u16>(6).unwrap().load(Ordering::Relaxed), 0x0101);
/// assert!(bytes.cell::<u32>(6).is_none(), "misaligned");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedBytes {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: allows only atomic access and whole copies, from any thread; the condition of `new` excludes that
// two threads of this process copy over each other's bytes.
unsafe impl Send for SharedBytes {}
// SAFETY: a shared reference allows the same atomic access and whole copies as the handle itself.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// A handle to the `len` bytes from `ptr` on.
    ///
    /// # Safety
    /// They stay mapped, readable and writable while any copy of the handle or of a handle derived from it is
    /// used; no reference to them exists meanwhile; threads of this process order their conflicting copies
    /// among themselves.
    pub const unsafe fn new(ptr: NonNull<u8>, len: usize) -> Self {
        Self { ptr, len }
    }

    /// The number of bytes.
    #[inline(always)]
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The address of the first byte.
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// The `len` bytes from `offset` on; `None` if they are not all within.
    #[inline]
    #[must_use]
    pub fn slice(self, offset: usize, len: usize) -> Option<Self> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `offset <= self.len`, so it is within or one past the end of the range of `new`.
        let ptr = unsafe { self.ptr.add(offset) };
        Some(Self { ptr, len })
    }

    /// Copies from the start to `dst`, up to the shorter length; returns the number of bytes copied.
    #[inline]
    pub fn copy_to(self, dst: &mut [u8]) -> usize {
        let n = self.len.min(dst.len());
        // SAFETY: `n` bytes are readable at `ptr` (the condition of `new`) and writable at `dst`. `copy`
        // allows them to overlap; any byte values are valid `u8`s, whatever the peer does meanwhile.
        unsafe { std::ptr::copy(self.ptr.as_ptr(), dst.as_mut_ptr(), n) };
        n
    }

    /// Copies `src` to the start, up to the shorter length; returns the number of bytes copied.
    #[inline]
    pub fn copy_from(self, src: &[u8]) -> usize {
        let n = self.len.min(src.len());
        // SAFETY: `n` bytes are readable at `src` and writable at `ptr` (the condition of `new`); they may
        // overlap.
        unsafe { std::ptr::copy(src.as_ptr(), self.ptr.as_ptr(), n) };
        n
    }

    /// Sets every byte to `value`.
    #[inline]
    pub fn fill(self, value: u8) {
        // SAFETY: `len` bytes from `ptr` on are writable while the handle is used (the condition of `new`).
        unsafe { std::ptr::write_bytes(self.ptr.as_ptr(), value, self.len) };
    }

    /// The word at `offset`; `None` if it is not completely within or not aligned.
    #[inline]
    #[must_use]
    pub fn cell<T: Word>(self, offset: usize) -> Option<Shared<T>> {
        let ptr = self.slice(offset, size_of::<T>())?.ptr.cast::<T>();
        if !ptr.is_aligned() {
            return None;
        }
        // SAFETY: within the range of `new`; the alignment was just checked.
        Some(unsafe { Shared::new(ptr) })
    }

    /// The `len` words from `offset` on; `None` if they are not all within or not aligned.
    #[inline]
    #[must_use]
    pub fn cells<T: Word>(self, offset: usize, len: usize) -> Option<SharedSlice<T>> {
        let ptr = self.slice(offset, len.checked_mul(size_of::<T>())?)?.ptr.cast::<T>();
        if !ptr.is_aligned() {
            return None;
        }
        // SAFETY: within the range of `new`; the alignment was just checked.
        Some(unsafe { SharedSlice::new(ptr, len) })
    }
}

#[cfg(test)]
mod tests;
