//! Configuration of a ring: capacity, watermark, memory.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::end::End;
use crate::layout::{Half, Modes, PREFIX};
use crate::mode::Mode;
use crate::storage::Storage;
use crate::{Consumer, Error, Producer};

/// The maximum number of elements: indices are 32 bits wide, and a full ring must differ from an empty one.
pub const MAX_CAPACITY: usize = 1 << 31;

/// The configuration of a ring.
///
/// ```
/// use linecard_ring::{Config, Hts, Single};
/// // Holds exactly 1000 elements, says when 750 are in use; many producers, one consumer.
/// let (producer, consumer) = Config::exact(1000).watermark(750).heap::<u32, Hts, Single>()?;
/// assert!(!producer.enqueue_bulk(&[7; 749]).high);
/// assert!(producer.enqueue_bulk(&[7; 1]).high);
/// assert_eq!(consumer.count(), 750);
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Config {
    capacity: usize,
    exact: bool,
    watermark: Option<usize>,
    start: u32,
}

/// A validated [`Config`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// The number of elements that the ring holds.
    pub(crate) capacity: u32,
    /// The number of slots: a power of two, at least the capacity.
    pub(crate) slots: u32,
    /// The number of elements from which on the ring is above its watermark; 0 for never.
    pub(crate) watermark: u32,
    /// The first index of both sides.
    pub(crate) start: u32,
}

impl Geometry {
    /// The length in bytes of a ring whose elements have `element` bytes.
    pub(crate) fn bytes(&self, element: usize) -> Result<usize, Error> {
        (self.slots as usize)
            .checked_mul(element)
            .and_then(|slots| slots.checked_add(PREFIX))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or(Error::OutOfMemory { bytes: usize::MAX })
    }
}

impl Config {
    /// A ring of `capacity` elements, which must be a power of two. All of them can be used (a default
    /// `rte_ring` holds one less).
    pub const fn power_of_two(capacity: usize) -> Self {
        Self { capacity, exact: false, watermark: None, start: 0 }
    }

    /// A ring of exactly `capacity` elements (`RING_F_EXACT_SZ`); it uses the memory of the next power of
    /// two.
    pub const fn exact(capacity: usize) -> Self {
        Self { capacity, exact: true, watermark: None, start: 0 }
    }

    /// Sets the watermark: with `used` or more elements in the ring, an enqueue sets
    /// [`Moved::high`](crate::Moved::high).
    pub const fn watermark(self, used: usize) -> Self {
        Self { watermark: Some(used), ..self }
    }

    /// Sets the first index of both sides; tests use it to reach the wrap at 32 bits quickly.
    pub const fn start_index(self, start: u32) -> Self {
        Self { start, ..self }
    }

    /// The number of bytes that the ring needs in memory given by the caller.
    ///
    /// # Errors
    /// As for [`heap`](Self::heap).
    pub fn bytes<T>(&self) -> Result<usize, Error> {
        self.check()?.bytes(size_of::<T>())
    }

    /// Creates the ring on the heap.
    ///
    /// # Errors
    /// The capacity is 0, above [`MAX_CAPACITY`], or not a power of two although required; the watermark is
    /// outside of `1..=capacity`; or memory is short.
    pub fn heap<T, P, C>(&self) -> Result<Ends<T, P, C>, Error>
    where
        T: Copy + Send,
        P: Mode,
        C: Mode,
    {
        let geometry = self.check()?;
        let storage = Storage::heap::<T>(&geometry, Modes { producer: P::KIND, consumer: C::KIND })?;
        Ok(ends(&Arc::new(storage), &geometry))
    }

    /// Creates the ring in `memory`, overwriting its content. Another process attaches to either side; then
    /// drop the handle of that side here.
    ///
    /// # Errors
    /// As for [`heap`](Self::heap), and if the memory is too short or not aligned to 128 bytes.
    ///
    /// # Safety
    /// Nothing else uses the memory now, and a [`Single`](crate::Single) side never has more than one live
    /// handle among all processes.
    pub unsafe fn in_memory<T, P, C>(&self, memory: SharedMemory) -> Result<Ends<T, P, C>, Error>
    where
        T: Plain,
        P: Mode,
        C: Mode,
    {
        let geometry = self.check()?;
        let modes = Modes { producer: P::KIND, consumer: C::KIND };
        // SAFETY: `memory` is valid (`SharedMemory::new`) and unused (this function's condition).
        let storage = unsafe { Storage::format::<T>(memory, &geometry, modes) }?;
        Ok(ends(&Arc::new(storage), &geometry))
    }

    fn check(&self) -> Result<Geometry, Error> {
        let asked = self.capacity;
        if asked == 0 {
            return Err(Error::ZeroCapacity);
        }
        let too_big = Error::TooBig { asked, max: MAX_CAPACITY };
        if asked > MAX_CAPACITY {
            return Err(too_big);
        }
        let slots = asked.next_power_of_two();
        if !self.exact && slots != asked {
            return Err(Error::NotPowerOfTwo { asked, next: slots });
        }
        let watermark = self.watermark.unwrap_or(0);
        if self.watermark == Some(0) || watermark > asked {
            return Err(Error::Watermark { asked: watermark, capacity: asked });
        }
        let fit = |n: usize| u32::try_from(n).map_err(|_| too_big);
        Ok(Geometry {
            capacity: fit(asked)?,
            slots: fit(slots)?,
            watermark: fit(watermark)?,
            start: self.start,
        })
    }
}

/// Both handles of a new ring of `T`, with mode `P` for producers and `C` for consumers.
pub type Ends<T, P, C> = (Producer<T, P>, Consumer<T, C>);

fn ends<T, P: Mode, C: Mode>(storage: &Arc<Storage>, geometry: &Geometry) -> Ends<T, P, C> {
    let producer = End::new(Arc::clone(storage), geometry, Half::Producer);
    let consumer = End::new(Arc::clone(storage), geometry, Half::Consumer);
    (Producer::new(producer), Consumer::new(consumer))
}

/// Types of elements that may be in memory written by another process: any bytes are a valid value.
///
/// # Safety
/// Every bit pattern of the type's size is a valid value, and there is no padding whose content matters.
pub unsafe trait Plain: Copy + Send {}

macro_rules! plain {
    ($($number:ty),*) => {$(
        // SAFETY: every bit pattern of a number is a value.
        unsafe impl Plain for $number {}
    )*};
}
plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);

// SAFETY: an array consists of its elements only.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Memory for a ring, given by the caller and possibly shared with other processes.
///
/// Two processes map the same memory; one creates the ring, the other attaches:
/// ```
/// use linecard_ring::{Config, Consumer, SharedMemory, Multi, Single};
/// # use std::{ptr::NonNull, sync::Arc};
/// # #[repr(align(128))] struct Page(std::cell::UnsafeCell<[u8; 4096]>);
/// # unsafe impl Sync for Page {} unsafe impl Send for Page {}
/// # let page = Arc::new(Page(std::cell::UnsafeCell::new([0; 4096])));
/// # let (start, len) = (NonNull::new(page.0.get().cast::<u8>()).unwrap(), 4096);
/// // SAFETY: `start` points to `len` bytes that `page` keeps mapped.
/// let memory = unsafe { SharedMemory::new(start, len) }.keeping(page);
///
/// // SAFETY: nobody else uses the memory yet; the consumer is taken over below.
/// let (producer, here) =
///     unsafe { Config::power_of_two(64).in_memory::<u64, Multi, Single>(memory.clone()) }?;
/// drop(here);
/// // SAFETY: the only consumer from now on.
/// let there = unsafe { Consumer::<u64, Single>::attach(memory) }?;
///
/// assert_eq!(producer.enqueue_bulk(&[1, 2, 3]).count, 3);
/// assert_eq!(there.dequeue(), Some(1));
/// # Ok::<(), linecard_ring::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedMemory {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: usize,
    _owner: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: only an address and an owner that is `Send + Sync`; `new` requires that every thread may use the
// memory.
unsafe impl Send for SharedMemory {}
// SAFETY: only an address and an owner that is `Sync`; `new` requires that every thread may use the memory.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// `len` bytes at `start`.
    ///
    /// # Safety
    /// The bytes are valid for reads and writes, from any thread, until the last handle of a ring in them is
    /// dropped (or while the owner given to [`keeping`](Self::keeping) exists), and are accessed only through
    /// rings. Writes by other processes are allowed; they can only corrupt elements.
    #[must_use]
    pub const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, _owner: None }
    }

    /// Keeps `owner`, and thereby the mapping, alive while a handle of the ring exists.
    #[must_use]
    pub fn keeping(self, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { _owner: Some(owner), ..self }
    }
}

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedMemory")
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
