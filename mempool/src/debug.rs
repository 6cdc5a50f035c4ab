//! Debug mode: records where each packet was last taken and returned, guards around buffers, fills free ones
//! with a pattern.
//!
//! ```text
//! … guard │ headroom │ data room │ guard (32 B: written past the end) │ guard (32 B: written before the start of the next) │ …
//! ```
//! A pool in debug mode has no caches, so every get and put takes the slow path and is recorded here. Other
//! pools pay one branch there and nothing in the fast path.

#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::meta::Meta;
use crate::pool::{PoolShared, Site};

const GUARD: usize = 32;
const GUARD_BYTE: u8 = 0xfd;
const POISON: u8 = 0x6b;

/// A kind of misuse of a packet.
///
/// ```
/// use linecard_mempool::ViolationKind;
/// assert_eq!(ViolationKind::DoubleFree.to_string(), "returned twice");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViolationKind {
    /// The packet was returned although it is free already. It is not returned again.
    DoubleFree,
    /// The packet was returned to a pool that it does not belong to. It stays out.
    ForeignFree,
    /// The packet was returned raw although it is chained, cloned or has external memory. It stays out.
    NotPlain,
    /// At least this many bytes were written past the end of the buffer.
    Overrun(usize),
    /// Bytes were written up to this far before the start of the buffer.
    Underrun(usize),
    /// The packet was written after its return, at this offset in the buffer.
    UseAfterFree(usize),
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoubleFree => f.write_str("returned twice"),
            Self::ForeignFree => f.write_str("returned to a pool it does not belong to"),
            Self::NotPlain => f.write_str("returned raw while chained, cloned or with foreign memory"),
            Self::Overrun(n) => write!(f, "written {n} bytes past the end of its buffer"),
            Self::Underrun(n) => write!(f, "written {n} bytes before the start of its buffer"),
            Self::UseAfterFree(n) => write!(f, "written after its return, at byte {n} of its buffer"),
        }
    }
}

/// A violation found by debug mode, with source locations.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
/// use linecard_mempool::{Pool, PoolConfig, Violation};
///
/// fn report(violation: &Violation) {
///     eprintln!("{violation}");
/// }
/// let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// let config = PoolConfig::default().packets(16).debug(true).report(report);
/// let pool = Pool::new(&domain, config)?;
/// let packet = pool.get().ok_or("empty")?.into_raw();
/// // SAFETY: the second return is wrong, and debug mode says so.
/// unsafe { pool.put_raw(&[packet]) };
/// unsafe { pool.put_raw(&[packet]) };
/// assert_eq!(pool.stats().violations, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The kind of misuse.
    pub kind: ViolationKind,
    /// The name of the pool that found it.
    pub pool: String,
    /// The number of the packet in its pool; `None` for a foreign one.
    pub packet: Option<usize>,
    /// Where it was detected; `None` in a destructor.
    pub site: Option<&'static Location<'static>>,
    /// Where the packet was last taken.
    pub last_get: Option<&'static Location<'static>>,
    /// Where the packet was last returned; `None` if by a destructor, or never.
    pub last_put: Option<&'static Location<'static>>,
}

struct At(Site);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(site) => site.fmt(f),
            None => f.write_str("a drop"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet {
            Some(packet) => write!(f, "packet {packet} of pool \"{}\" {}", self.pool, self.kind)?,
            None => write!(f, "a packet that is not of pool \"{}\" {}", self.pool, self.kind)?,
        }
        write!(f, ": found at {}", At(self.site))?;
        if self.packet.is_some() {
            write!(f, ", last got at {}, last returned at {}", At(self.last_get), At(self.last_put))?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Entry {
    out: AtomicBool,
    last_get: AtomicPtr<Location<'static>>,
    last_put: AtomicPtr<Location<'static>>,
}

fn store(place: &AtomicPtr<Location<'static>>, site: Site) {
    let site = site.map_or(std::ptr::null_mut(), |site| std::ptr::from_ref(site).cast_mut());
    place.store(site, Ordering::Relaxed);
}

fn load(place: &AtomicPtr<Location<'static>>) -> Site {
    // SAFETY: null, or a reference to a static that `store` converted to a pointer; never written through.
    unsafe { place.load(Ordering::Relaxed).as_ref() }
}

/// The records of a pool in debug mode.
pub(crate) struct Ledger {
    entries: Box<[Entry]>,
    violations: AtomicU64,
}

impl Ledger {
    pub(crate) fn new(packets: usize) -> Self {
        Self { entries: (0..packets).map(|_| Entry::default()).collect(), violations: AtomicU64::new(0) }
    }

    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// Writes the guards of a buffer and fills it with the pattern.
    ///
    /// # Safety
    /// The packet is free and owned by the caller.
    pub(crate) unsafe fn prepare(&self, pool: &PoolShared, index: usize) {
        let (home, len) = (pool.home(index).as_ptr(), pool.buf_len());
        // SAFETY: buffers of a pool in debug mode have a line before and one behind them.
        unsafe { home.wrapping_sub(GUARD).write_bytes(GUARD_BYTE, GUARD) };
        // SAFETY: buffers of a pool in debug mode have a line behind them, which nothing uses while the
        // packet is free.
        unsafe { home.wrapping_add(len).write_bytes(GUARD_BYTE, GUARD) };
        // SAFETY: `len` bytes from `home` on are the packet's buffer, which nothing uses while the packet is
        // free.
        unsafe { home.write_bytes(POISON, len) };
    }

    /// Records that a packet leaves the pool.
    ///
    /// # Safety
    /// The packet belongs to `pool`, was just taken off the free list, and is owned by the caller.
    pub(crate) unsafe fn got(&self, pool: &PoolShared, item: NonNull<Meta>, site: Site) {
        let index = pool.index(item);
        let Some(entry) = self.entries.get(index) else { return };
        let home = pool.home(index).as_ptr();
        // SAFETY: the buffer of a free packet, readable. A write by a peer is what this check looks for.
        if let Some(at) = unsafe { differs(home, pool.buf_len(), POISON) } {
            self.report(pool, ViolationKind::UseAfterFree(at), Some((index, entry)), site);
        }
        entry.out.store(true, Ordering::Relaxed);
        store(&entry.last_get, site);
    }

    /// Records that a packet returns. Returns whether it may go to the free list.
    ///
    /// # Safety
    /// `pool` is the ledger's. There is no condition on `item`, which is checked here.
    pub(crate) unsafe fn returned(&self, pool: &PoolShared, item: NonNull<Meta>, site: Site) -> bool {
        if !pool.owns(item) {
            self.report(pool, ViolationKind::ForeignFree, None, site);
            return false;
        }
        let index = pool.index(item);
        let Some(entry) = self.entries.get(index) else { return false };
        if !entry.out.swap(false, Ordering::AcqRel) {
            self.report(pool, ViolationKind::DoubleFree, Some((index, entry)), site);
            return false;
        }
        // SAFETY: a packet of this pool that was out, so only the caller has it.
        let meta = unsafe { item.as_ref() };
        if meta.state != 0 || meta.next.is_some() || meta.buf != pool.home(index) {
            entry.out.store(true, Ordering::Relaxed);
            self.report(pool, ViolationKind::NotPlain, Some((index, entry)), site);
            return false;
        }
        self.check_guards(pool, index, entry, site);
        store(&entry.last_put, site);
        // SAFETY: the caller returns the packet and owns it until it is stored; nothing else uses its buffer.
        unsafe { self.prepare(pool, index) };
        true
    }

    fn check_guards(&self, pool: &PoolShared, index: usize, entry: &Entry, site: Site) {
        let (home, len) = (pool.home(index).as_ptr(), pool.buf_len());
        // SAFETY: in debug mode `GUARD` bytes follow each buffer, mapped as long as the pool is.
        if let Some(at) = unsafe { differs(home.wrapping_add(len), GUARD, GUARD_BYTE) } {
            self.report(pool, ViolationKind::Overrun(at + 1), Some((index, entry)), site);
        }
        // SAFETY: in debug mode `GUARD` bytes precede each buffer, mapped as long as the pool is.
        if let Some(at) = unsafe { differs(home.wrapping_sub(GUARD), GUARD, GUARD_BYTE) } {
            self.report(pool, ViolationKind::Underrun(GUARD - at), Some((index, entry)), site);
        }
    }

    fn report(&self, pool: &PoolShared, kind: ViolationKind, of: Option<(usize, &Entry)>, site: Site) {
        self.violations.fetch_add(1, Ordering::Relaxed);
        let violation = Violation {
            kind,
            pool: pool.config.name.clone(),
            packet: of.map(|(index, _)| index),
            site,
            last_get: of.and_then(|(_, entry)| load(&entry.last_get)),
            last_put: of.and_then(|(_, entry)| load(&entry.last_put)),
        };
        match pool.config.report {
            Some(report) => report(&violation),
            None if std::thread::panicking() => eprintln!("{violation}"),
            None => panic!("{violation}"),
        }
    }
}

/// The offset of the first of `len` bytes that is not `byte`.
///
/// # Safety
/// `at` is readable for `len` bytes. Reads are volatile: a peer may write there.
unsafe fn differs(at: *const u8, len: usize, byte: u8) -> Option<usize> {
    // SAFETY: `i < len`, and `at` is readable for `len` bytes (this function's condition).
    (0..len).find(|&i| unsafe { at.wrapping_add(i).read_volatile() } != byte)
}
