//! The state that all handles and packets of a pool share, and the two hot paths.

use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;

use super::cache::{Cache, MAGAZINE, copy};
use super::config::{PoolConfig, PoolStats};
use super::depot::{Depot, magazine_bytes};
use super::region::{Region, Source};
use super::{Item, slow};
use crate::closing::Closing;
use crate::debug::Ledger;
use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::slots::{self, SLOTS};

/// The source location of a call; `None` in a destructor.
pub(crate) type Site = Option<&'static Location<'static>>;

/// The pool itself. It is on the heap until no handle and no packet is left; see the module `orphans`.
#[repr(C, align(128))]
pub(crate) struct PoolShared {
    /// One row per thread slot, and an always empty one for threads without a slot.
    pub(super) caches: [Cache; SLOTS + 1],
    /// The first word of a fresh packet's metadata.
    pub(crate) rearm: u64,
    pub(crate) config: PoolConfig,
    pub(super) stride: usize,
    pub(super) depot: Depot,
    pub(super) buffers: Region,
    /// The offset of the first buffer in `buffers`, in bytes.
    first: usize,
    metas: Region,
    /// For each packet: the packet that it is a clone of, or the owner of its external memory.
    attachments: Region,
    pub(super) ledger: Option<Ledger>,
    pub(super) handles: AtomicUsize,
    pub(super) closing: Closing,
    /// As in a [`Cache`], for threads without one.
    pub(super) gets: AtomicU64,
    pub(super) puts: AtomicU64,
    pub(super) get_fail: AtomicU64,
}

/// Takes `n` packets, all or none.
///
/// # Safety
/// The pool exists until this returns; `out` has room for `n` pointers.
#[inline(always)]
pub(crate) unsafe fn get(pool: NonNull<PoolShared>, out: *mut Item, n: usize, site: Site) -> bool {
    // SAFETY: the pool exists until this returns (this function's condition).
    let cache = unsafe { cache(pool) };
    let len = cache.len.load(Ordering::Relaxed);
    let Some(rest) = len.checked_sub(n) else {
        // SAFETY: `slow::get` has this function's conditions: the pool exists, and `out` has room for `n`.
        return unsafe { slow::get(pool, out, n, site) };
    };
    // SAFETY: `rest <= len`, and the loaded magazine holds `len`.
    let from = unsafe { cache.loaded.load(Ordering::Relaxed).add(rest) };
    // SAFETY: the magazine belongs to this thread; `out` is not in it.
    unsafe { copy(from, out, n) };
    cache.len.store(rest, Ordering::Relaxed);
    let gets = cache.gets.load(Ordering::Relaxed);
    cache.gets.store(gets.wrapping_add(n as u64), Ordering::Relaxed);
    true
}

/// Returns `n` packets.
///
/// # Safety
/// They are plain packets of this pool that the caller owns; the pool may not exist afterwards.
#[inline(always)]
pub(crate) unsafe fn put(pool: NonNull<PoolShared>, items: *const Item, n: usize, site: Site) {
    // SAFETY: the pool exists as long as one of its packets is out.
    let cache = unsafe { cache(pool) };
    let len = cache.len.load(Ordering::Relaxed);
    let sum = len + n;
    if sum > cache.room.load(Ordering::Relaxed) {
        // SAFETY: `slow::put` has this function's conditions: plain packets of the pool that the caller owns.
        return unsafe { slow::put(pool, items, n, site) };
    }
    // SAFETY: `len + n <= room`, which is never more than the size of the loaded magazine.
    let to = unsafe { cache.loaded.load(Ordering::Relaxed).add(len) };
    // SAFETY: the magazine belongs to this thread; `items` are not in it.
    unsafe { copy(items, to, n) };
    cache.len.store(sum, Ordering::Relaxed);
    let puts = cache.puts.load(Ordering::Relaxed);
    // L1, pairs with L2 (orphans): the last access to the pool, ordered after all others; otherwise its
    // memory could be freed while it is still being written.
    cache.puts.store(puts.wrapping_add(n as u64), Ordering::Release);
}

/// This thread's row.
///
/// # Safety
/// The pool exists while the row is used.
#[inline(always)]
unsafe fn cache<'a>(pool: NonNull<PoolShared>) -> &'a Cache {
    let row = pool.cast::<Cache>().as_ptr().wrapping_add(slots::current());
    // SAFETY: the rows are the pool's first field, and slots are at most `SLOTS`.
    unsafe { &*row }
}

/// The distance between two buffers in bytes: an odd number of whole cache lines, so that the first lines of
/// packets spread over all sets of a cache.
fn stride(buf_len: u16, debug: bool) -> usize {
    let lines = usize::from(buf_len).div_ceil(64) + usize::from(debug);
    (lines | 1) * 64
}

/// The number of pointers per magazine: as configured, but limited so that the caches of as many threads as
/// there are cores hold at most two thirds of the pool.
fn magazine_size(config: &PoolConfig) -> usize {
    let threads = available_parallelism().map_or(2, |n| n.get().clamp(2, SLOTS));
    let share = config.packets as usize * 2 / 3 / threads;
    let size = usize::from(config.cache).min(share).min(2 * MAGAZINE) / 2;
    if size < 4 || config.debug { 0 } else { size }
}

impl PoolShared {
    pub(super) fn create(source: Source<'_>, config: PoolConfig) -> Result<NonNull<Self>> {
        config.check()?;
        let memory = |source| Error::Memory { pool: config.name.clone(), source };
        let packets = config.packets as usize;
        let size = magazine_size(&config);
        let stride = stride(config.buf_len(), config.debug);
        let first = if config.debug { 64 } else { 0 };
        let buffers = source.shared(&config.name, first + packets * stride).map_err(memory)?;
        let metas = source.private(packets * size_of::<Meta>()).map_err(memory)?;
        let attachments = source.private(packets * size_of::<usize>()).map_err(memory)?;
        let magazines = match magazine_bytes(packets, size) {
            0 => None,
            bytes => Some(source.private(bytes).map_err(memory)?),
        };
        let ledger = config.debug.then(|| Ledger::new(packets));
        let pool = Box::new(Self {
            caches: [const { Cache::new() }; SLOTS + 1],
            rearm: Meta::rearm(config.headroom, Meta::NO_PORT, config.buf_len()),
            depot: Depot::new(metas.ptr().cast(), packets, magazines, size),
            config,
            stride,
            buffers,
            first,
            metas,
            attachments,
            ledger,
            handles: AtomicUsize::new(1),
            closing: Closing::new(),
            gets: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            get_fail: AtomicU64::new(0),
        });
        // SAFETY: `Box::into_raw` never returns null.
        let pool = unsafe { NonNull::new_unchecked(Box::into_raw(pool)) };
        // SAFETY: the pool was made above, and its pointer has not left this function.
        unsafe { Self::lay_out(pool) };
        Ok(pool)
    }

    /// Initialises every packet's metadata.
    ///
    /// # Safety
    /// Nothing else refers to the pool.
    unsafe fn lay_out(this: NonNull<Self>) {
        // SAFETY: the pool exists and nothing else refers to it (this function's condition), so no other
        // pointer changes it.
        let pool = unsafe { this.as_ref() };
        for index in 0..pool.config.packets as usize {
            let meta = Meta {
                data_off: pool.config.headroom,
                state: 0,
                nb_segs: 1,
                port: Meta::NO_PORT,
                buf_len: pool.config.buf_len(),
                pkt_len: 0,
                data_len: 0,
                vlan_tci: 0,
                ol_flags: 0,
                packet_type: 0,
                hash: 0,
                refcnt: crate::sync::AtomicU32::new(1),
                tx_offload: 0,
                next: None,
                buf: pool.home(index),
                pool: this,
            };
            // SAFETY: `metas` has room for `packets`, aligned to cache lines.
            unsafe { pool.item(index).write(meta) };
            if let Some(ledger) = &pool.ledger {
                // SAFETY: the pool is not shared yet, so the packet is free and nothing uses its buffer.
                unsafe { ledger.prepare(pool, index) };
            }
        }
    }

    /// The buffer that belongs to packet `index`.
    pub(crate) fn home(&self, index: usize) -> NonNull<u8> {
        // SAFETY: `index` is below `packets`, for which `buffers` has room.
        unsafe { self.buffers.ptr().add(self.first + index * self.stride) }
    }

    /// The pointer to packet `index`.
    pub(super) fn item(&self, index: usize) -> Item {
        self.depot.item(index as u32)
    }

    /// The length of one buffer in bytes.
    pub(crate) fn buf_len(&self) -> usize {
        usize::from(self.config.buf_len())
    }

    /// The number of a packet of this pool.
    pub(crate) fn index(&self, item: Item) -> usize {
        self.depot.index(item)
    }

    /// Whether `item` points to one of this pool's packets, without reading it.
    pub(crate) fn owns(&self, item: Item) -> bool {
        let offset = item.as_ptr().addr().wrapping_sub(self.metas.ptr().as_ptr().addr());
        offset < self.config.packets as usize * size_of::<Meta>() && offset.is_multiple_of(size_of::<Meta>())
    }

    /// The place of a packet's attachment, which the owner of the packet may read and write.
    pub(crate) fn attachment(&self, item: Item) -> NonNull<*mut ()> {
        // SAFETY: `attachments` has one place for each packet, and `index` is below their number for a packet of this pool.
        unsafe { self.attachments.ptr().cast().add(self.index(item)) }
    }

    /// The numbers of packets ever taken and ever returned. Without concurrent use, the difference is the
    /// packets out.
    pub(super) fn gets_and_puts(&self) -> (u64, u64) {
        // L2, pairs with L1: returns are read before gets. The get of a counted return is counted too,
        // because it happened before, so the difference is never too small.
        let puts = self.sum(&self.puts, |cache| &cache.puts, Ordering::Acquire);
        let gets = self.sum(&self.gets, |cache| &cache.gets, Ordering::Relaxed);
        (gets, puts)
    }

    fn sum(&self, own: &AtomicU64, of: impl Fn(&Cache) -> &AtomicU64, order: Ordering) -> u64 {
        self.caches.iter().fold(own.load(order), |sum, cache| sum.wrapping_add(of(cache).load(order)))
    }

    pub(super) fn stats(&self) -> PoolStats {
        let total = self.config.packets as usize;
        let (gets, puts) = self.gets_and_puts();
        let in_use = usize::try_from(gets.wrapping_sub(puts)).unwrap_or(0).min(total);
        let cached = self.caches.iter().map(Cache::held).sum::<usize>().min(total - in_use);
        PoolStats {
            total,
            free: total - in_use - cached,
            cached,
            in_use,
            gets,
            puts,
            get_fail: self.get_fail.load(Ordering::Relaxed),
            violations: self.ledger.as_ref().map_or(0, Ledger::violations),
        }
    }
}
