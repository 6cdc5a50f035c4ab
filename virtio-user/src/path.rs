//! What the data paths of both directions share.
//!
//! A packet's metadata is private memory (the backend never sees it), reached through `linecard_mempool::MetaWords`: one line per
//! packet is all that either path touches besides the ring. A buffer's token in a ring is the address of its metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use linecard_mempool::Burst;
use linecard_pmd::Armed;
use linecard_pmd::offload::AcceptedOffloads;
use linecard_virtio::PeerFault;

use crate::backend::RingId;
use crate::thread::Waiter;

/// Bytes of the header before every packet, where the device says no hashes.
pub(crate) const HEADER: u32 = linecard_virtio::net::HDR_LEN;

/// Bytes of the header before every packet, with hashes or without.
pub(crate) const fn header_len(hash: bool) -> u32 {
    if hash { linecard_virtio::net::HASH_HDR_LEN } else { HEADER }
}

/// A receive path, chosen when a backend connects. Dropped, it gives everything in flight back to the pool.
pub(crate) trait RxPath: Send {
    /// Appends what has come; the caller counts it, once it is known what of it the port keeps.
    fn burst(&mut self, packets: &mut Burst) -> Came;
    /// Asks the backend for calls, after doing what was put off.
    fn arm(&mut self) -> Armed;
    /// Asks it for none.
    fn disarm(&mut self);
    /// Descriptors with packets that have come and wait.
    fn used(&mut self) -> u16;
}

/// What one burst brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) packets: usize,
    pub(crate) bytes: u64,
}

/// A transmit path, chosen when a backend connects. Dropped, it gives everything in flight back to its pools, and counts what
/// the backend never finished.
pub(crate) trait TxPath: Send {
    fn burst(&mut self, packets: &mut Burst) -> usize;
    fn reclaim(&mut self);
    /// Descriptors that the backend has not finished with, after a look at what it has.
    fn used(&mut self) -> u16;
    /// What the backend takes unfinished.
    fn accepted(&self) -> AcceptedOffloads;
}

/// Where a data path reports that its backend broke the rules, and the control thread reads it.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    told: AtomicBool,
    first: Mutex<Option<(RingId, PeerFault)>>,
    waiter: Option<Arc<Waiter>>,
}

impl Trouble {
    /// Of the port that `waiter`'s thread serves.
    pub(crate) fn of(waiter: Arc<Waiter>) -> Self {
        Self { waiter: Some(waiter), ..Self::default() }
    }

    /// Remembers the first fault and wakes the control thread, which takes the port down.
    #[cold]
    #[inline(never)]
    pub(crate) fn report(&self, ring: RingId, fault: PeerFault) {
        if self.told.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some((ring, fault));
        if let Some(waiter) = &self.waiter {
            waiter.notify();
        }
    }

    /// Takes the fault, ready for the next backend.
    pub(crate) fn take(&self) -> Option<(RingId, PeerFault)> {
        let fault = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.told.store(false, Ordering::Release);
        fault
    }
}

/// Bytes 0–7 and 8–9 of a header: all but `num_buffers`. One read each, of memory the backend may be writing.
///
/// # Safety
/// `at` is 12 bytes before the data of a packet that we own and that has 12 bytes of headroom.
#[inline(always)]
pub(crate) unsafe fn peek_header(at: u64) -> (u64, u16) {
    let mut bytes = [0_u8; 10];
    // SAFETY: the bytes are headroom, as promised; they are copied out, no reference is made.
    unsafe { std::ptr::copy_nonoverlapping(at as *const u8, bytes.as_mut_ptr(), bytes.len()) };
    let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9] = bytes;
    (u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]), u16::from_le_bytes([b8, b9]))
}

/// Bytes 12–19 of a header that has them.
///
/// # Safety
/// As for [`peek_header`], with 20 bytes.
#[inline(always)]
pub(crate) unsafe fn peek_hash(at: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    let from = at.wrapping_add(u64::from(HEADER)) as *const u8;
    // SAFETY: the bytes are headroom, as promised; they are copied out, no reference is made.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    u64::from_le_bytes(bytes)
}

/// Makes the header at `at` all zeros.
///
/// # Safety
/// As for [`peek_header`], or [`peek_hash`] where there is a hash.
#[inline(always)]
pub(crate) unsafe fn clear_header<const HASH: bool>(at: u64) {
    // SAFETY: the bytes are headroom of a packet we own, as promised.
    unsafe { std::ptr::write_bytes(at as *mut u8, 0, header_len(HASH) as usize) };
}

/// Loads a cache line that will be written soon.
#[inline(always)]
pub(crate) fn prefetch(at: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no architectural effect, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
