//! Pools, from which packets are taken and to which they return.

mod buffers;
mod cache;
mod config;
mod depot;
mod orphans;
mod region;
mod shared;
mod slow;
#[cfg(test)]
mod tests;

use std::fmt;
use std::mem::MaybeUninit;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use linecard_eal::Domain;

pub use self::buffers::Buffers;
pub use self::config::{DATA_ROOM, HEADROOM, PoolConfig, PoolStats};
pub(crate) use self::shared::{PoolShared, Site, get, put};
use crate::burst::Burst;
use crate::error::{Exhausted, NoRoom, Result};
use crate::meta::Meta;
use crate::packet::Packet;

/// The form in which pointers to packets move in and out of magazines.
pub(crate) type Item = NonNull<Meta>;

/// Preallocated packets with equal buffers. This is a handle: clones refer to the same packets.
///
/// Packets may outlive every handle; the memory is freed when the last packet has returned. `Send` and
/// `Sync`: one handle serves any number of threads, each with its own cache ([`PoolConfig::cache`]).
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
/// use linecard_mempool::{Pool, PoolConfig};
///
/// let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// let pool = Pool::new(&domain, PoolConfig::default().packets(1024))?;
/// let mut packet = pool.get().ok_or("empty")?;
/// packet.append(5).ok_or("full")?.copy_from_slice(b"hello");
/// assert_eq!((packet.data(), pool.stats().in_use), (&b"hello"[..], 1));
/// drop(packet);
/// assert_eq!(pool.stats().in_use, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool {
    pub(crate) shared: NonNull<PoolShared>,
}

// SAFETY: a handle is a counted reference to `PoolShared`, whose shared state consists of atomics, lock-free
// stacks and caches that only the owner of a thread slot changes.
unsafe impl Send for Pool {}
// SAFETY: every method takes a shared reference and only accesses state that is safe to share.
unsafe impl Sync for Pool {}

impl Pool {
    /// Creates `config.packets` packets: data in one zone of `domain`, everything else in private memory.
    ///
    /// # Errors
    /// [`Error::Packets`](crate::Error::Packets), [`Error::BufferLength`](crate::Error::BufferLength),
    /// [`Error::Memory`](crate::Error::Memory). Nothing remains allocated.
    pub fn new(domain: &Arc<Domain>, config: PoolConfig) -> Result<Self> {
        Self::with_memory(region::Source::Domain(domain), config)
    }

    fn with_memory(source: region::Source<'_>, config: PoolConfig) -> Result<Self> {
        orphans::reap();
        Ok(Self { shared: PoolShared::create(source, config)? })
    }

    /// Creates a pool on the heap: for tests under miri, and with a probe that is released with the memory.
    #[cfg(test)]
    pub(crate) fn on_heap(probe: &Arc<()>, config: PoolConfig) -> Result<Self> {
        Self::with_memory(region::Source::Heap(probe), config)
    }

    fn shared(&self) -> &PoolShared {
        // SAFETY: allocated in `create`, freed after the last handle is dropped, and `self` is one.
        unsafe { self.shared.as_ref() }
    }

    /// Takes one packet: no data, full headroom, no flags. `None` if the pool is empty.
    #[inline]
    #[track_caller]
    #[must_use]
    pub fn get(&self) -> Option<Packet> {
        let mut packet = [MaybeUninit::uninit()];
        // SAFETY: on success, `get_into` has filled every place.
        self.get_into(&mut packet).ok().map(|()| unsafe { packet[0].assume_init_read() })
    }

    /// Appends `n` packets to `burst`.
    ///
    /// # Errors
    /// The burst has less room, or the pool fewer packets. None is taken then.
    #[inline]
    #[track_caller]
    pub fn get_bulk(&self, burst: &mut Burst, n: usize) -> Result<(), NoRoom> {
        let (len, room) = (burst.len(), burst.room());
        let out = burst.spare_mut().get_mut(..n).ok_or(NoRoom::Full { asked: n, room })?;
        self.get_into(out)?;
        // SAFETY: the `n` places after `len` were just filled.
        unsafe { burst.set_len(len + n) };
        Ok(())
    }

    /// Fills `out` with packets in the state that [`Pool::get`] returns.
    ///
    /// # Errors
    /// The pool has fewer packets. Nothing is filled then.
    #[inline]
    #[track_caller]
    pub fn get_into(&self, out: &mut [MaybeUninit<Packet>]) -> Result<(), Exhausted> {
        // SAFETY: `Packet` is a transparent `Item`; only whole packets are written below.
        let raw = unsafe { &mut *(&raw mut *out as *mut [MaybeUninit<Item>]) };
        self.get_raw(raw)?;
        let rearm = self.shared().rearm;
        for packet in raw {
            // SAFETY: `get_raw` filled every place.
            let meta = unsafe { packet.assume_init() };
            // SAFETY: `get_raw` gave the packet to this function alone; no data behind the headroom is within
            // its buffer.
            unsafe { Meta::write_plain(meta, rearm, 0) };
        }
        Ok(())
    }

    /// Fills `out` with packets whose first 24 bytes of metadata are stale. Before any other use, the caller
    /// writes [`Meta::rearm`] and [`Meta::lengths`] to each. `buf`, `next` and `pool` are valid.
    ///
    /// # Errors
    /// The pool has fewer packets. Nothing is filled then.
    #[inline]
    #[track_caller]
    pub fn get_raw(&self, out: &mut [MaybeUninit<NonNull<Meta>>]) -> Result<(), Exhausted> {
        let n = out.len();
        // SAFETY: this handle keeps the pool; `out` has room for `n` pointers.
        let filled = unsafe { get(self.shared, out.as_mut_ptr().cast(), n, Some(Location::caller())) };
        if filled { Ok(()) } else { Err(Exhausted) }
    }

    /// Returns packets that came from [`Packet::into_raw`](crate::Packet::into_raw) or [`Pool::get_raw`].
    ///
    /// # Safety
    /// Each packet belongs to this pool, has `state == 0`, `next == None` and its own `buf`, is owned by the
    /// caller, and is listed once; none is used afterwards. A pool in debug mode reports most violations
    /// instead.
    #[inline]
    #[track_caller]
    pub unsafe fn put_raw(&self, packets: &[NonNull<Meta>]) {
        // SAFETY: plain packets of this pool that the caller owns (this function's condition); this handle keeps the pool meanwhile.
        unsafe { put(self.shared, packets.as_ptr(), packets.len(), Some(Location::caller())) }
    }

    /// Counters. Without concurrent use, `free + cached + in_use == total`; otherwise each is correct for
    /// some recent moment.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared().stats()
    }

    /// The domain of the packet data, which a peer must map.
    #[must_use]
    pub fn domain(&self) -> &Arc<Domain> {
        self.shared().buffers.domain()
    }

    /// The number of bytes per packet behind the headroom.
    #[must_use]
    #[inline]
    pub fn data_room(&self) -> u16 {
        self.shared().config.data_room
    }

    /// The number of bytes before the data of a fresh packet.
    #[must_use]
    #[inline]
    pub fn headroom(&self) -> u16 {
        self.shared().config.headroom
    }

    /// The distance between two buffers in bytes: an odd number of cache lines.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.shared().stride
    }

    /// The pool's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared().config.name
    }

    /// The configuration with which the pool was created.
    #[must_use]
    pub fn config(&self) -> &PoolConfig {
        &self.shared().config
    }

    /// An identifier that equals [`Meta::pool_id`] of the pool's packets.
    #[must_use]
    #[inline]
    pub fn id(&self) -> usize {
        self.shared.as_ptr().addr()
    }
}

impl Clone for Pool {
    fn clone(&self) -> Self {
        // An existing handle creates a new one: nothing to order.
        self.shared().handles.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // H1, pairs with H2: the thread that closes the pool sees all operations through this handle, in
        // particular gets.
        if self.shared().handles.fetch_sub(1, Ordering::Release) == 1 {
            // H2, pairs with H1 of every other handle.
            fence(Ordering::Acquire);
            // SAFETY: that was the last handle, and handles come only from handles: this runs once.
            unsafe { orphans::close(self.shared) };
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("config", self.config()).field("stats", &self.stats()).finish()
    }
}
