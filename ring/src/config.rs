//! What a ring is to be: capacity, watermark, where it lives.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::end::End;
use crate::layout::{Half, Modes, PREFIX};
use crate::mode::Mode;
use crate::storage::Storage;
use crate::{Consumer, Error, Producer};

/// Most elements of a ring: indices are 32 bits wide and "full" must differ from "empty".
pub const MAX_CAPACITY: usize = 1 << 31;

/// What a ring is to be.
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

/// The checked form of a [`Config`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// Elements the ring holds.
    pub(crate) capacity: u32,
    /// Slots; a power of two, at least the capacity.
    pub(crate) slots: u32,
    /// Elements in use from which on the ring is "high"; 0 for never.
    pub(crate) watermark: u32,
    /// First index of both sides.
    pub(crate) start: u32,
}

impl Geometry {
    /// Bytes of a ring of `element`-byte elements.
    pub(crate) fn bytes(&self, element: usize) -> Result<usize, Error> {
        (self.slots as usize)
            .checked_mul(element)
            .and_then(|slots| slots.checked_add(PREFIX))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or(Error::OutOfMemory { bytes: usize::MAX })
    }
}

impl Config {
    /// A ring of `capacity` elements, which must be a power of two. All of them can be used (rte_ring's
    /// default holds one less).
    pub const fn power_of_two(capacity: usize) -> Self {
        Self { capacity, exact: false, watermark: None, start: 0 }
    }

    /// A ring of exactly `capacity` elements (`RING_F_EXACT_SZ`); memory is taken for the next power of two.
    pub const fn exact(capacity: usize) -> Self {
        Self { capacity, exact: true, watermark: None, start: 0 }
    }

    /// From `used` elements on, every enqueue reports [`Moved::high`](crate::Moved::high).
    pub const fn watermark(self, used: usize) -> Self {
        Self { watermark: Some(used), ..self }
    }

    /// The index that both sides begin with; lets tests reach the wrap of 32 bits at once.
    pub const fn start_index(self, start: u32) -> Self {
        Self { start, ..self }
    }

    /// Bytes that the ring needs in memory given by the caller.
    ///
    /// # Errors
    /// As for [`heap`](Self::heap).
    pub fn bytes<T>(&self) -> Result<usize, Error> {
        self.check()?.bytes(size_of::<T>())
    }

    /// Makes the ring on the heap.
    ///
    /// # Errors
    /// A capacity of 0, above [`MAX_CAPACITY`], or not a power of two where one was promised; a watermark
    /// outside of `1..=capacity`; no memory.
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

    /// Lays the ring out in `memory`, which is erased. Another process attaches to either side; the handle of
    /// that side here is then dropped.
    ///
    /// # Errors
    /// As for [`heap`](Self::heap); memory that is too short or not aligned to 128 bytes.
    ///
    /// # Safety
    /// Nobody uses the memory now, and a [`Single`](crate::Single) side has at most one live handle among all
    /// processes at any time.
    pub unsafe fn in_memory<T, P, C>(&self, memory: SharedMemory) -> Result<Ends<T, P, C>, Error>
    where
        T: Plain,
        P: Mode,
        C: Mode,
    {
        let geometry = self.check()?;
        let modes = Modes { producer: P::KIND, consumer: C::KIND };
        // SAFETY: `memory` is valid (`SharedMemory::new`) and unused, by this function's contract.
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

/// Both handles of a fresh ring of `T`, with mode `P` among its producers and `C` among its consumers.
pub type Ends<T, P, C> = (Producer<T, P>, Consumer<T, C>);

fn ends<T, P: Mode, C: Mode>(storage: &Arc<Storage>, geometry: &Geometry) -> Ends<T, P, C> {
    let producer = End::new(Arc::clone(storage), geometry, Half::Producer);
    let consumer = End::new(Arc::clone(storage), geometry, Half::Consumer);
    (Producer::new(producer), Consumer::new(consumer))
}

/// Elements that may lie in memory that another process can write: any bytes are a valid value.
///
/// # Safety
/// Every bit pattern of the type's size is a valid value, without padding whose content matters.
pub unsafe trait Plain: Copy + Send {}

macro_rules! plain {
    ($($number:ty),*) => {$(
        // SAFETY: every bit pattern of a number is a value.
        unsafe impl Plain for $number {}
    )*};
}
plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);

// SAFETY: an array is its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Memory given by the caller for a ring, shared with other processes or not.
///
/// Two processes map the same memory; one lays the ring out, the other attaches:
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

// SAFETY: only an address and an owner that is `Send + Sync`; `new` demands that every thread may use it.
unsafe impl Send for SharedMemory {}
// SAFETY: only an address and an owner that is `Sync`; `new` demands that every thread may use the memory.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// `len` bytes at `start`.
    ///
    /// # Safety
    /// The bytes are valid for reads and writes, from any thread, until the last handle of a ring in them is
    /// gone (or for the life of the owner given to [`keeping`](Self::keeping)), and are accessed only through
    /// rings. What other processes write there is their business: it may garble elements, nothing else.
    #[must_use]
    pub const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, _owner: None }
    }

    /// Keeps `owner` alive, which keeps the memory mapped, as long as a handle of the ring lives.
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
