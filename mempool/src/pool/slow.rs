//! The slow paths of get and put: exchange of magazines, pools and threads without caches, debug mode.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::atomic::fence;

use super::Item;
use super::cache::Cache;
use super::orphans;
use super::shared::{PoolShared, Site};
use crate::slots::{self, THREADS};

/// Takes `n` packets, all or none.
///
/// # Safety
/// The pool exists until this returns; `out` has room for `n` pointers.
#[cold]
#[inline(never)]
pub(super) unsafe fn get(pool: NonNull<PoolShared>, out: *mut Item, n: usize, site: Site) -> bool {
    // SAFETY: the pool exists until this returns (this function's condition).
    let pool = unsafe { pool.as_ref() };
    let cache = pool.enter();
    // SAFETY: `enter` returns this thread's own cache; `out` has room for `n` pointers.
    let have = unsafe { pool.gather(cache, out, n) };
    if have < n {
        // SAFETY: `gather` wrote `have` owned packets to `out`, which the caller does not use, since this
        // returns false.
        unsafe { pool.spread(cache, out, have) };
        pool.get_fail.fetch_add(1, Relaxed);
        return false;
    }
    if let Some(ledger) = &pool.ledger {
        // SAFETY: `gather` wrote `n` packets to `out`, where nothing writes until this returns.
        let items = unsafe { std::slice::from_raw_parts(out, n) };
        // SAFETY: `gather` took them from the pool, so they are owned here until this returns.
        items.iter().for_each(|&item| unsafe { ledger.got(pool, item, site) });
    }
    match cache {
        Some(cache) => cache.gets.store(cache.gets.load(Relaxed).wrapping_add(n as u64), Relaxed),
        None => _ = pool.gets.fetch_add(n as u64, Relaxed),
    }
    true
}

/// Returns `n` packets.
///
/// # Safety
/// As for the fast path: plain packets of this pool, owned by the caller; the pool may not exist afterwards.
#[cold]
#[inline(never)]
pub(super) unsafe fn put(this: NonNull<PoolShared>, items: *const Item, n: usize, site: Site) {
    // C1, pairs with C2 (closing): a thread that read `room == 0` because the pool was closed sees `closed`;
    // otherwise the memory would not be freed before the next pool operation of the process.
    fence(Ordering::Acquire);
    // SAFETY: the pool exists as long as one of its packets is out, that is until the counter at the end.
    let pool = unsafe { this.as_ref() };
    if pool.ledger.is_some() {
        // SAFETY: `n` pointers are at `items`, where nothing writes until this returns.
        let items = unsafe { std::slice::from_raw_parts(items, n) };
        for item in items {
            // SAFETY: the caller claims to own the packet; the ledger checks it.
            unsafe { put_checked(this, *item, site) };
        }
    } else {
        // SAFETY: plain packets of this pool that the caller owns (this function's condition).
        unsafe { put_plain(this, items, n) };
    }
}

/// Returns one packet of a pool in debug mode, if this does no harm.
///
/// # Safety
/// The pool exists: packets of it that have not been returned keep it.
unsafe fn put_checked(this: NonNull<PoolShared>, item: Item, site: Site) {
    // SAFETY: the packets not yet returned keep the pool; a violation returns none.
    let pool = unsafe { this.as_ref() };
    // SAFETY: the ledger reads only its own memory before it knows that the packet is the pool's.
    let sound = pool.ledger.as_ref().is_none_or(|ledger| unsafe { ledger.returned(pool, item, site) });
    if sound {
        // SAFETY: now known to be a packet of this pool that was out.
        unsafe { put_plain(this, &raw const item, 1) };
    }
}

/// Returns `n` packets, unchecked.
///
/// # Safety
/// Plain packets of this pool that the caller owns, or none of a pool that it keeps; the pool may not exist
/// afterwards.
unsafe fn put_plain(this: NonNull<PoolShared>, items: *const Item, n: usize) {
    // SAFETY: the pool exists while packets of it are out, and the caller holds some (this function's
    // condition).
    let pool = unsafe { this.as_ref() };
    if pool.closing.is_closed() {
        // SAFETY: the caller owns these packets of this pool (this function's condition), and the pool is
        // closed.
        return unsafe { orphans::put(this, items, n) };
    }
    let cache = pool.enter();
    // SAFETY: `enter` returns this thread's own cache; the caller owns the packets and does not use them afterwards.
    unsafe { pool.spread(cache, items, n) };
    // Last access to the pool: L1, as in the fast path.
    match cache {
        Some(cache) => cache.puts.store(cache.puts.load(Relaxed).wrapping_add(n as u64), Ordering::Release),
        None => _ = pool.puts.fetch_add(n as u64, Ordering::Release),
    }
}

impl PoolShared {
    /// This thread's cache, made ready; `None` if it cannot have one.
    fn enter(&self) -> Option<&Cache> {
        if self.depot.size == 0 {
            return None;
        }
        let cache = self.caches.get(slots::enter()?)?;
        if cache.loaded.load(Relaxed).is_null() {
            let (loaded, previous) = (self.depot.take_empty()?, self.depot.take_empty());
            let Some(previous) = previous else {
                self.depot.give_empty(loaded);
                return None;
            };
            cache.loaded.store(loaded, Relaxed);
            cache.previous.store(previous, Relaxed);
        }
        self.closing.make_room(&cache.room, self.depot.size);
        Some(cache)
    }

    /// Takes up to `n` packets, from the nearest storage first.
    ///
    /// # Safety
    /// The caller owns `cache`; `out` has room for `n` pointers.
    unsafe fn gather(&self, cache: Option<&Cache>, out: *mut Item, n: usize) -> usize {
        let mut have = 0;
        loop {
            let rest = out.wrapping_add(have);
            have += match cache {
                // SAFETY: the caller owns the cache; `rest` has room for `n - have`.
                Some(cache) => unsafe { cache.pop(rest, n - have) },
                // SAFETY: `rest` has room for `n - have`, because `out` has room for `n`.
                None => unsafe { self.depot.take_loose(rest, n - have) },
            };
            if have == n {
                return n;
            }
            let more = match cache {
                // SAFETY: the caller owns the cache, and its loaded magazine is empty now.
                Some(cache) => unsafe { self.reload(cache) },
                None => self.break_up(),
            };
            if !more && !self.adopt() {
                return have;
            }
        }
    }

    /// Refills the loaded magazine, which is empty.
    ///
    /// # Safety
    /// The caller owns `cache`, and its loaded magazine is empty.
    unsafe fn reload(&self, cache: &Cache) -> bool {
        if cache.previous_len.load(Relaxed) > 0 {
            cache.swap();
            return true;
        }
        if let Some(full) = self.depot.take_full() {
            self.depot.give_empty(cache.loaded.load(Relaxed));
            cache.loaded.store(full, Relaxed);
            cache.len.store(self.depot.size, Relaxed);
            return true;
        }
        // SAFETY: every magazine has room for `size` pointers, and the loaded one is empty and owned by the caller.
        let count = unsafe { self.depot.take_loose(cache.loaded.load(Relaxed), self.depot.size) };
        cache.len.store(count, Relaxed);
        count > 0
    }

    /// Turns a full magazine into loose packets.
    fn break_up(&self) -> bool {
        let Some(full) = self.depot.take_full() else { return false };
        // SAFETY: a full magazine holds `size` packets and is owned here.
        unsafe { self.depot.give_loose(full, self.depot.size) };
        self.depot.give_empty(full);
        true
    }

    /// Stores `n` packets, in the nearest storage first.
    ///
    /// # Safety
    /// The caller owns `cache` and the `n` free packets at `items`.
    unsafe fn spread(&self, cache: Option<&Cache>, items: *const Item, n: usize) {
        let mut done = 0;
        if let Some(cache) = cache {
            loop {
                // SAFETY: the caller owns the cache and the `n - done` packets that follow.
                done += unsafe { cache.push(items.wrapping_add(done), n - done, self.depot.size) };
                if done == n {
                    return;
                }
                if !self.unload(cache) {
                    break;
                }
            }
        }
        // SAFETY: `n - done` packets of the caller remain.
        unsafe { self.depot.give_loose(items.wrapping_add(done), n - done) };
    }

    /// Makes room in the loaded magazine, which is full.
    fn unload(&self, cache: &Cache) -> bool {
        if cache.previous_len.load(Relaxed) < self.depot.size {
            cache.swap();
            return true;
        }
        let Some(empty) = self.depot.take_empty() else { return false };
        self.depot.give_full(cache.previous.load(Relaxed));
        cache.swap();
        cache.loaded.store(empty, Relaxed);
        cache.len.store(0, Relaxed);
        true
    }

    /// Moves the packets in caches of threads that ended to the depot. Returns whether there were any.
    #[cold]
    fn adopt(&self) -> bool {
        let mut found = false;
        for slot in THREADS.abandoned() {
            let Some(cache) = self.caches.get(slot).filter(|cache| cache.held() > 0) else { continue };
            if THREADS.claim(slot) {
                found |= self.empty_out(cache);
                THREADS.release(slot);
            }
        }
        found
    }

    /// Moves the packets in a cache that the caller owns to the depot.
    fn empty_out(&self, cache: &Cache) -> bool {
        let held = cache.held();
        for _ in 0..2 {
            let len = cache.len.load(Relaxed);
            // SAFETY: the loaded magazine holds `len` packets, and the caller owns it.
            unsafe { self.depot.give_loose(cache.loaded.load(Relaxed), len) };
            cache.len.store(0, Relaxed);
            cache.swap();
        }
        held > 0
    }
}
