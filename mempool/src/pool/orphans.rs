//! Pools whose last handle is gone while packets are still out.
//!
//! Counting packets with a locked instruction each would be the slowest part of a pool, so nobody counts. Every thread has counters
//! of its own for what it took and what it returned, and the returning one is its *last access* to the pool (L1). Whoever
//! wants to know reads all returns first and all gets second (L2). Once no handle is left, packets come only from
//! cloning packets that are out; so when the sums are equal, nothing is out, nothing can come out, and nobody is inside.
//!
//! Closing takes the room of every cache, so that the next return comes to the slow path and looks. A return that is
//! inside the fast path at that very moment does not; if it was the last, the memory waits for the next pool that is
//! made or dropped.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Item;
use super::shared::PoolShared;

struct Orphan(NonNull<PoolShared>);

// SAFETY: the list owns the pool together with the packets that are out; it is freed by whoever takes it off the list.
unsafe impl Send for Orphan {}

static ORPHANS: Mutex<Vec<Orphan>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn orphans() -> MutexGuard<'static, Vec<Orphan>> {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a pool without handles: now, or when the last packet returns.
///
/// # Safety
/// The last handle is gone, and this is called once.
pub(super) unsafe fn close(this: NonNull<PoolShared>) {
    let mut list = orphans();
    // SAFETY: freed by those on the list only, and it is not there yet.
    let pool = unsafe { this.as_ref() };
    pool.closing.close(pool.caches.iter().map(|cache| &cache.room));
    if settled(pool) {
        drop(list);
        // SAFETY: no handle and no packet is left, and it never was on the list: nobody else knows it.
        unsafe { free(this) };
    } else {
        list.push(Orphan(this));
        COUNT.store(list.len(), Ordering::Relaxed);
        drop(list);
    }
    reap();
}

/// Returns packets to a closed pool, and ends it if they were the last.
///
/// # Safety
/// As for every return; the pool is closed.
pub(super) unsafe fn put(this: NonNull<PoolShared>, items: *const Item, n: usize) {
    // Whoever frees a pool took it off the list under this lock: until we release it, the pool stays.
    let mut list = orphans();
    // SAFETY: our packets are out, so it exists; and then the lock keeps it.
    let pool = unsafe { this.as_ref() };
    // SAFETY: free packets of this pool that the caller owns (this function's condition).
    unsafe { pool.depot.give_loose(items, n) };
    pool.puts.fetch_add(n as u64, Ordering::Release);
    let place = list.iter().position(|orphan| orphan.0 == this);
    if let Some(place) = place.filter(|_| settled(pool)) {
        list.swap_remove(place);
        COUNT.store(list.len(), Ordering::Relaxed);
        drop(list);
        // SAFETY: no handle and no packet is left, and we took it off the list under the lock: nobody else knows it.
        unsafe { free(this) };
    }
}

/// Ends the closed pools whose packets have all returned.
pub(super) fn reap() {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut list = orphans();
    // SAFETY: a pool is taken off the list, under the lock that we hold, before it is freed.
    let done: Vec<Orphan> = list.extract_if(.., |orphan| settled(unsafe { orphan.0.as_ref() })).collect();
    COUNT.store(list.len(), Ordering::Relaxed);
    drop(list);
    for orphan in done {
        // SAFETY: no handle and no packet is left, and we took it off the list under the lock: nobody else knows it.
        unsafe { free(orphan.0) };
    }
}

fn settled(pool: &PoolShared) -> bool {
    let (gets, puts) = pool.gets_and_puts();
    gets == puts
}

/// Gives the memory back. Outside the lock: it may call listeners of the domain, who may return packets.
///
/// # Safety
/// The caller is the only one who knows the pool.
unsafe fn free(this: NonNull<PoolShared>) {
    // SAFETY: made by `Box::into_raw` in `create`, and nobody else knows it (this function's condition).
    drop(unsafe { Box::from_raw(this.as_ptr()) });
}
