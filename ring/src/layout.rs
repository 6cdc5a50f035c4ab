//! The layout of a ring in memory, the same on the heap and in shared memory:
//!
//! ```text
//!   0  header          magic, layout version, element size, geometry, modes
//! 128  producer head   shared by the producers
//! 256  producer tail   published: elements below are readable
//! 384  consumer head   shared by the consumers
//! 512  consumer tail   published: slots below are writable again
//! 640  slots           a power of two of elements
//! ```
//!
//! Every cell has 128 bytes, because processors fetch adjacent lines in pairs. Head and tail are separate so
//! that the other side, which polls the tail, never takes the head's line. Indices run through all 32-bit
//! values; a slot is `index mod slots`.

use crossbeam::utils::CachePadded;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64 as PlainU64, Ordering};

use crate::config::Geometry;
use crate::sync::AtomicU64;
use crate::{Error, MAX_CAPACITY};

/// "lcring" between two bytes that do not occur in text.
const MAGIC: u64 = 0x0067_6e69_7263_6cff;
const VERSION: u32 = 1;
/// The number of bytes before the first slot.
pub(crate) const PREFIX: usize = size_of::<Control>();
/// The alignment of the whole ring in bytes.
pub(crate) const ALIGN: usize = align_of::<Control>();

#[cfg(all(target_arch = "x86_64", not(loom)))]
const _: () = assert!(PREFIX == 640 && ALIGN == 128);

/// The indices of one side.
#[repr(C)]
pub(crate) struct Side {
    /// Claimed by threads of this side; the mode defines its format.
    pub(crate) head: CachePadded<Head>,
    /// Published to the other side: the index in the low half, mode-specific data in the high half.
    pub(crate) tail: CachePadded<AtomicU64>,
}

/// The state shared by the threads of one side.
#[repr(C)]
pub(crate) struct Head {
    pub(crate) word: AtomicU64,
    /// A limit for this side that was seen earlier (HTS only).
    pub(crate) limit: AtomicU64,
    /// The number of handles of this side (adaptive only).
    pub(crate) handles: AtomicU64,
}

#[repr(C)]
pub(crate) struct Control {
    header: CachePadded<Header>,
    producer: Side,
    consumer: Side,
}

#[repr(C)]
struct Header {
    magic: PlainU64,
    version: AtomicU32,
    element: AtomicU32,
    capacity: AtomicU32,
    slots: AtomicU32,
    watermark: AtomicU32,
    producer_mode: AtomicU32,
    consumer_mode: AtomicU32,
}

/// A side of the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Producer,
    Consumer,
}

/// Who may create handles of a ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Only the owner of an existing handle.
    Handles,
    /// Any process that maps the memory.
    Anyone,
}

/// The mode numbers of both sides.
#[derive(Clone, Copy)]
pub(crate) struct Modes {
    pub(crate) producer: u32,
    pub(crate) consumer: u32,
}

impl Side {
    fn new(head: u64, tail: u64, limit: u32, handles: u64) -> Self {
        let head = Head {
            word: AtomicU64::new(head),
            limit: AtomicU64::new(u64::from(limit)),
            handles: AtomicU64::new(handles),
        };
        Self { head: CachePadded::new(head), tail: CachePadded::new(AtomicU64::new(tail)) }
    }
}

impl Header {
    fn new(geometry: &Geometry, element: u32, modes: Modes) -> Self {
        Self {
            magic: PlainU64::new(0),
            version: AtomicU32::new(VERSION),
            element: AtomicU32::new(element),
            capacity: AtomicU32::new(geometry.capacity),
            slots: AtomicU32::new(geometry.slots),
            watermark: AtomicU32::new(geometry.watermark),
            producer_mode: AtomicU32::new(modes.producer),
            consumer_mode: AtomicU32::new(modes.consumer),
        }
    }
}

/// The control cells of a ring in memory.
#[derive(Clone, Copy)]
pub(crate) struct Cells(NonNull<Control>);

impl Cells {
    /// Initialises an empty ring.
    ///
    /// # Safety
    /// `at` is valid for writes of [`PREFIX`] bytes, aligned to [`ALIGN`], and not used by anything else yet.
    pub(crate) unsafe fn format(
        at: NonNull<u8>,
        geometry: &Geometry,
        element: u32,
        modes: Modes,
        place: Sharing,
    ) -> Self {
        // Other processes can create handles at any time, so no handle may ever consider itself the only one.
        let handles = u64::from(place == Sharing::Anyone);
        let start = geometry.start;
        let full = start.wrapping_add(geometry.capacity);
        let control = Control {
            header: CachePadded::new(Header::new(geometry, element, modes)),
            producer: Side::new(
                crate::mode::first_word(modes.producer, start, full),
                u64::from(start),
                full,
                handles,
            ),
            consumer: Side::new(
                crate::mode::first_word(modes.consumer, start, start),
                u64::from(start),
                start,
                handles,
            ),
        };
        let at = at.cast::<Control>();
        // SAFETY: valid, aligned and unshared (this function's condition).
        unsafe { at.write(control) };
        let cells = Self(at);
        // H1, pairs with H2 in `attach`: a process that sees the magic sees the whole header.
        cells.header().magic.store(MAGIC, Ordering::Release);
        cells
    }

    /// Attaches to a ring that another process created, and reads its header once.
    ///
    /// # Safety
    /// `at` is valid for reads and writes of `len` bytes while the cells are used, and others write there
    /// only through rings.
    pub(crate) unsafe fn attach(
        at: NonNull<u8>,
        len: usize,
        element: u32,
        half: Half,
        mode: (u32, &'static str),
    ) -> Result<(Self, Geometry), Error> {
        check_region(at, len, PREFIX)?;
        let cells = Self(at.cast());
        let header = cells.header();
        // H2, pairs with H1 in `format`.
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(Error::NotARing);
        }
        let read = |cell: &AtomicU32| cell.load(Ordering::Relaxed);
        let version = read(&header.version);
        if version != VERSION {
            return Err(Error::Version { found: version, want: VERSION });
        }
        let found = read(&header.element);
        if found != element {
            return Err(Error::Element { found, want: element });
        }
        let found = read(if half == Half::Producer { &header.producer_mode } else { &header.consumer_mode });
        if found != mode.0 {
            return Err(Error::Mode { found: crate::mode::name(found), want: mode.1 });
        }
        let (capacity, slots) = (read(&header.capacity), read(&header.slots));
        let geometry = Geometry { capacity, slots, watermark: read(&header.watermark), start: 0 };
        let sound = slots.is_power_of_two()
            && slots as usize <= MAX_CAPACITY
            && (1..=slots).contains(&capacity)
            && geometry.watermark <= capacity;
        if !sound {
            return Err(Error::BadHeader);
        }
        check_region(at, len, geometry.bytes(element as usize)?)?;
        Ok((cells, geometry))
    }

    fn header(&self) -> &Header {
        // SAFETY: the cells are valid while their storage exists, which every holder keeps; they are atomics.
        unsafe { &(*self.0.as_ptr()).header }
    }

    /// The side `half` and the opposite side.
    pub(crate) fn sides(self, half: Half) -> (NonNull<Side>, NonNull<Side>) {
        // SAFETY: `self.0` points to a whole `Control`, so its fields are within the same object.
        let producer = unsafe { &raw mut (*self.0.as_ptr()).producer };
        // SAFETY: `self.0` points to a whole `Control`, so its fields are within the same object.
        let consumer = unsafe { &raw mut (*self.0.as_ptr()).consumer };
        // SAFETY: the address of a field is not null.
        let producer = unsafe { NonNull::new_unchecked(producer) };
        // SAFETY: the address of a field is not null.
        let consumer = unsafe { NonNull::new_unchecked(consumer) };
        match half {
            Half::Producer => (producer, consumer),
            Half::Consumer => (consumer, producer),
        }
    }

    /// The start of the ring.
    pub(crate) fn start(self) -> NonNull<u8> {
        self.0.cast()
    }

    /// The start of the first slot.
    pub(crate) fn slots(self) -> NonNull<u8> {
        // SAFETY: slots begin directly behind the control cells, in the same storage.
        unsafe { self.0.cast::<u8>().add(PREFIX) }
    }

    /// Drops the cells in heap storage.
    ///
    /// # Safety
    /// Nothing uses them any more.
    pub(crate) unsafe fn destroy(self) {
        // SAFETY: valid until now, unused afterwards (this function's condition).
        unsafe { self.0.drop_in_place() };
    }
}

/// Checks that a ring of `need` bytes fits into `len` bytes at `at`, with the required alignment.
pub(crate) fn check_region(at: NonNull<u8>, len: usize, need: usize) -> Result<(), Error> {
    let address = at.addr().get();
    if !address.is_multiple_of(ALIGN) {
        return Err(Error::Misaligned { address, align: ALIGN });
    }
    if len < need {
        return Err(Error::RegionTooSmall { have: len, need });
    }
    Ok(())
}
