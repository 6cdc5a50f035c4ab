//! What the data paths of both directions share: how a packet's metadata is read and written in whole words.
//!
//! Metadata is private memory (the backend never sees it), laid out by `linecard_mempool::Meta`; the words below are
//! its first 24 bytes, the buffer and the pool. One line per packet is all that either path touches besides the ring.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use linecard_mempool::{Burst, Meta};
use linecard_virtio::PeerFault;

use crate::reactor::Task;

/// Bytes of the header before every packet.
pub(crate) const HEADER: u32 = linecard_virtio::net::HDR_LEN;

/// A receive path, chosen when a backend connects.
pub(crate) trait RxPath: Send {
    fn burst(&mut self, packets: &mut Burst) -> usize;
    /// Gives everything in flight back to the pool; also done when dropped.
    fn home(&mut self);
}

/// A transmit path, chosen when a backend connects.
pub(crate) trait TxPath: Send {
    fn burst(&mut self, packets: &mut Burst) -> usize;
    fn reclaim(&mut self);
    /// Gives everything in flight back to its pools, counting what the backend never finished; also done when dropped.
    fn home(&mut self);
}

/// Where a data path reports that its backend broke the rules, and the control thread reads it.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    told: AtomicBool,
    first: Mutex<Option<(usize, PeerFault)>>,
    task: Mutex<Option<Arc<Task>>>,
}

impl Trouble {
    /// Remembers the first fault and wakes the control thread, which takes the port down.
    #[cold]
    #[inline(never)]
    pub(crate) fn report(&self, ring: usize, fault: PeerFault) {
        if self.told.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some((ring, fault));
        if let Some(task) = self.task() {
            task.notify();
        }
    }

    /// Takes the fault, ready for the next backend.
    pub(crate) fn take(&self) -> Option<(usize, PeerFault)> {
        let fault = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.told.store(false, Ordering::Release);
        fault
    }

    pub(crate) fn bind(&self, task: Option<Arc<Task>>) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
    }

    /// The control thread's bell for this port, while it is started.
    pub(crate) fn task(&self) -> Option<Arc<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The words of [`Meta`] that the data paths use.
///
/// ```text
///  word 0   data_off:16 state:8 nb_segs:8 port:16 buf_len:16
///  word 1   pkt_len:32 data_len:16 vlan_tci:16
///  word 2   ol_flags:32 packet_type:32
///  word 6   buf            word 7   pool
/// ```
pub(crate) mod words {
    use super::{Meta, NonNull};

    const _: () = assert!(size_of::<Meta>() == 64 && align_of::<Meta>() == 64);

    /// `state` 0 (unique, direct, of its home pool) and `nb_segs` 1, at bits 16–31 of word 0.
    pub(crate) const SINGLE: u16 = 0x0100;

    /// Word 0 of a received packet.
    pub(crate) const fn first(data_off: u16, port: u16, buf_len: u16) -> u64 {
        data_off as u64 | (SINGLE as u64) << 16 | (port as u64) << 32 | (buf_len as u64) << 48
    }

    /// Word 1 of a packet of one segment.
    #[inline(always)]
    pub(crate) const fn lengths(len: u32) -> u64 {
        len as u64 | (len as u64 & 0xffff) << 32
    }

    #[inline(always)]
    pub(crate) fn read<const WORD: usize>(meta: NonNull<Meta>) -> u64 {
        const { assert!(WORD < 8) };
        // SAFETY: metadata is 64 bytes and 64-aligned, so every word of it is in bounds; the path owns the packet.
        let at = unsafe { meta.cast::<u64>().add(WORD) };
        // SAFETY: as above; all bytes of metadata are initialised when the pool is made.
        unsafe { at.read() }
    }

    #[inline(always)]
    pub(crate) fn write<const WORD: usize>(meta: NonNull<Meta>, value: u64) {
        const { assert!(WORD < 3) };
        // SAFETY: as in `read`; words 0 to 2 have no value that would be invalid for their fields.
        let at = unsafe { meta.cast::<u64>().add(WORD) };
        // SAFETY: as above.
        unsafe { at.write(value) };
    }

    /// Where the packet's buffer starts.
    #[inline(always)]
    pub(crate) fn buffer(meta: NonNull<Meta>) -> u64 {
        read::<6>(meta)
    }

    /// Which pool the packet belongs to; compare with [`linecard_mempool::Pool::id`].
    #[inline(always)]
    pub(crate) fn pool(meta: NonNull<Meta>) -> u64 {
        read::<7>(meta)
    }
}

/// The packet behind a token that a queue gave back.
///
/// # Safety
/// `token` was made from a pointer to metadata (lowest bits aside, which are masked here).
#[inline(always)]
pub(crate) unsafe fn packet_of(token: u64) -> NonNull<Meta> {
    // SAFETY: the caller's token stands for a non-null, 64-aligned pointer.
    unsafe { NonNull::new_unchecked((token & !63) as *mut Meta) }
}

/// Bytes 0–7 and 8–9 of a header: all but `num_buffers`. One read each, of memory the backend may be writing.
#[inline(always)]
pub(crate) fn peek_header(at: u64) -> (u64, u16) {
    let mut bytes = [0_u8; 10];
    // SAFETY: `at` is 12 bytes before the data of a packet with at least 12 bytes of headroom, which we own; bytes are
    // copied out, no reference is made.
    unsafe { std::ptr::copy_nonoverlapping(at as *const u8, bytes.as_mut_ptr(), bytes.len()) };
    let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9] = bytes;
    (u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]), u16::from_le_bytes([b8, b9]))
}

/// Makes the header at `at` all zeros.
#[inline(always)]
pub(crate) fn clear_header(at: u64) {
    // SAFETY: as in `peek_header`; the bytes are headroom of a packet we own alone.
    unsafe { std::ptr::write_bytes(at as *mut u8, 0, HEADER as usize) };
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
