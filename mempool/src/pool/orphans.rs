//! Pools without handles whose packets have not all returned.
//!
//! A shared packet counter with locked instructions would be the slowest part of a pool, so there is none.
//! Every thread has its own counters of packets taken and returned, and increasing the latter is its *last
//! access* to the pool (L1). To compare them, read the counters of returns first and of gets second (L2).
//! Once no handle is left, only cloning packets that are out can take more packets; so when the sums are
//! equal, no packet is out, none can be taken, and no thread is accessing the pool.
//!
//! Closing removes the room of every cache, so that the next return takes the slow path and compares the
//! sums. A return that is in the fast path at that moment does not; if it was the last, the memory is freed
//! when the next pool is created or dropped.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Item;
use super::shared::PoolShared;

struct Orphan(NonNull<PoolShared>);

// SAFETY: the list owns the pool together with the packets that are out; the thread that takes it off the
// list frees it.
unsafe impl Send for Orphan {}

static ORPHANS: Mutex<Vec<Orphan>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn orphans() -> MutexGuard<'static, Vec<Orphan>> {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees a pool without handles: now, or when the last packet returns.
///
/// # Safety
/// The last handle was dropped, and this is called once.
pub(super) unsafe fn close(this: NonNull<PoolShared>) {
    let mut list = orphans();
    // SAFETY: pools are freed only after they are taken off the list, and this one is not on it yet.
    let pool = unsafe { this.as_ref() };
    pool.closing.close(pool.caches.iter().map(|cache| &cache.room));
    if settled(pool) {
        drop(list);
        // SAFETY: no handle and no packet is left, and it never was on the list: nothing else refers to it.
        unsafe { free(this) };
    } else {
        list.push(Orphan(this));
        COUNT.store(list.len(), Ordering::Relaxed);
        drop(list);
    }
    reap();
}

/// Returns packets to a closed pool, and frees it if they were the last.
///
/// # Safety
/// As for every return; the pool is closed.
pub(super) unsafe fn put(this: NonNull<PoolShared>, items: *const Item, n: usize) {
    // A pool is taken off the list under this lock before it is freed: it exists until the lock is released.
    let mut list = orphans();
    // SAFETY: packets that are out keep it until they are returned, then the lock keeps it.
    let pool = unsafe { this.as_ref() };
    // SAFETY: free packets of this pool that the caller owns (this function's condition).
    unsafe { pool.depot.give_loose(items, n) };
    pool.puts.fetch_add(n as u64, Ordering::Release);
    let place = list.iter().position(|orphan| orphan.0 == this);
    if let Some(place) = place.filter(|_| settled(pool)) {
        list.swap_remove(place);
        COUNT.store(list.len(), Ordering::Relaxed);
        drop(list);
        // SAFETY: no handle and no packet is left, and it was taken off the list under the lock: nothing else
        // refers to it.
        unsafe { free(this) };
    }
}

/// Frees the closed pools whose packets have all returned.
pub(super) fn reap() {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut list = orphans();
    // SAFETY: a pool is taken off the list, under the lock held here, before it is freed.
    let done: Vec<Orphan> = list.extract_if(.., |orphan| settled(unsafe { orphan.0.as_ref() })).collect();
    COUNT.store(list.len(), Ordering::Relaxed);
    drop(list);
    for orphan in done {
        // SAFETY: no handle and no packet is left, and it was taken off the list under the lock: nothing else
        // refers to it.
        unsafe { free(orphan.0) };
    }
}

fn settled(pool: &PoolShared) -> bool {
    let (gets, puts) = pool.gets_and_puts();
    gets == puts
}

/// Frees the memory. Outside of the lock: it may call listeners of the domain, which may return packets.
///
/// # Safety
/// Only the caller refers to the pool.
unsafe fn free(this: NonNull<PoolShared>) {
    // SAFETY: made by `Box::into_raw` in `create`, and nothing else refers to it (this function's condition).
    drop(unsafe { Box::from_raw(this.as_ptr()) });
}
