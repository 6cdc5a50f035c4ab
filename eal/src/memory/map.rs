//! Reserved address ranges, and mappings placed in them.
//!
//! ```text
//!  base                                                                    base + len
//!   ├── segment 0 (memfd) ──┼── segment 1 ──┼─── PROT_NONE, costs nothing ───┤
//! ```
//! All memory of a domain that peers know is in one such range, so that a pointer check is one comparison and
//! segments keep their relative addresses.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use super::page::GIB;
use super::space::Space;
use crate::sys::{Resource, limit};

/// A reservation smaller than this is useless.
pub(super) const SMALLEST: usize = 64 << 20;

/// The addresses of one domain, `PROT_NONE` until something is mapped there. Starts at a multiple of 1 GiB (2
/// MiB if small).
#[derive(Debug)]
pub(super) struct Reservation {
    base: NonNull<u8>,
    len: usize,
    align: usize,
    gaps: Mutex<Space>,
}

// SAFETY: this type never dereferences the pointer: it only asks the kernel to change mappings in the range
// it owns, which any thread may do.
unsafe impl Send for Reservation {}
// SAFETY: the gaps are behind a mutex, only the thread that took a gap maps there, and the kernel serialises
// the rest.
unsafe impl Sync for Reservation {}

/// An address within a mapping, which the kernel never places at 0. An address of 0 would be a bug; it is
/// caught here, because callers read and write through the pointer.
pub(super) fn mapped(ptr: *mut u8) -> NonNull<u8> {
    let Some(ptr) = NonNull::new(ptr) else { unreachable!("a mapping at address 0") };
    ptr
}

impl Reservation {
    /// Reserves about `len` bytes of addresses; fewer, down to 64 MiB, if the address space is limited.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let allowed = limit(Resource::AddressSpace) / 4;
        let len = len.min(allowed).max(SMALLEST).next_multiple_of(super::page::GRANULE);
        shrinking(len, Self::exactly)
    }

    fn exactly(len: usize) -> io::Result<Self> {
        // A 1G page needs this alignment; small ranges never contain one.
        let align = if len >= 2 * GIB { GIB } else { super::page::GRANULE };
        let asked = len.checked_add(align).ok_or(io::ErrorKind::OutOfMemory)?;
        let start = match reserve_low(asked, align) {
            Some(start) => start,
            None => reserve(None, asked)?,
        };
        let head = start.align_offset(align);
        let base = start.wrapping_add(head);
        release(start, head);
        release(base.wrapping_add(len), align - head);
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, align, gaps: Mutex::new(Space::new(0, len)) })
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Offsets at multiples of up to this value are addresses at such multiples.
    pub(super) fn align(&self) -> usize {
        self.align
    }

    /// Takes a gap of `len` bytes, which the caller owns until [`unmap`](Self::unmap).
    pub(super) fn place(&self, len: usize, align: usize) -> Option<usize> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).take(len, align)
    }

    /// Maps the first `len` bytes of `file`, shared, at `offset`, which is a placed gap. Neither core dumps
    /// nor forked children contain the mapping. On error the gap is freed.
    pub(super) fn map(&self, offset: usize, len: usize, file: &File) -> io::Result<()> {
        let at = self.address(offset, len)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: replaces only pages of the placed gap, which are in this reservation and to which there are
        // no pointers yet.
        let mapped = unsafe { libc::mmap(at.cast(), len, access, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            self.unmap(offset, len);
            return Err(error);
        }
        let private =
            advise(at, len, libc::MADV_DONTDUMP).and_then(|()| advise(at, len, libc::MADV_DONTFORK));
        private.inspect_err(|_| self.unmap(offset, len))
    }

    /// Populates the pages that `map` mapped, in hugepages if possible when `huge`. False if the kernel does
    /// not support this request.
    pub(super) fn populate(&self, offset: usize, len: usize, huge: bool) -> io::Result<bool> {
        let at = self.address(offset, len)?;
        if huge {
            advise(at, len, libc::MADV_HUGEPAGE)?;
        }
        match advise(at, len, libc::MADV_POPULATE_WRITE) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL) => Ok(false),
                // This would have been SIGBUS at the first access.
                Some(libc::EFAULT) => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
                _ => Err(error),
            },
        }
    }

    /// Sets node `node` as the preferred NUMA node of what `map` mapped.
    pub(super) fn bind(&self, offset: usize, len: usize, node: u32) -> io::Result<()> {
        const MPOL_PREFERRED: libc::c_int = 1;
        let at = self.address(offset, len)?;
        let bit = 1_u64.checked_shl(node).ok_or(io::ErrorKind::InvalidInput)?;
        let mask = [bit, 0];
        // SAFETY: the kernel reads at most 65 bits of `mask`, which has 128, and changes where future pages
        // of this process's own mapping come from.
        let result =
            unsafe { libc::syscall(libc::SYS_mbind, at, len, MPOL_PREFERRED, mask.as_ptr(), 65_usize, 0) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Restores `PROT_NONE` for a placed gap and frees it for the next segment.
    pub(super) fn unmap(&self, offset: usize, len: usize) {
        // A gap that cannot be restored is never used again: only its addresses are lost.
        if self.address(offset, len).and_then(|at| reserve(Some(at), len)).is_ok() {
            self.gaps.lock().unwrap_or_else(PoisonError::into_inner).give(offset, len);
        }
    }

    fn address(&self, offset: usize, len: usize) -> io::Result<*mut u8> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if inside { Ok(self.base().wrapping_add(offset)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        release(self.base(), self.len);
    }
}

/// Tries `len`, then repeatedly half of it while there are not enough addresses. An emulator with a small
/// address space (valgrind) reports this as `EINVAL`: no length here is invalid by itself.
fn shrinking<T>(mut len: usize, attempt: impl Fn(usize) -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt(len) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EINVAL))
                    && len / 2 >= SMALLEST =>
            {
                len /= 2;
            }
            result => return result,
        }
    }
}

/// Addresses below 2^39, so that a device behind an IOMMU with 39-bit addresses (Intel's have 39 or 48) can
/// use the same ones, and above what programs keep below 4 GiB. Small reservations have the upper end to
/// themselves.
const LOW: std::ops::Range<usize> = 4 * GIB..448 * GIB;
const LOW_SMALL: std::ops::Range<usize> = 448 * GIB..512 * GIB;

/// Reserves the first free addresses in that range that start at a multiple of `align`. `None` if there are
/// none, or if the kernel does not support requests for specific addresses (before Linux 4.17).
fn reserve_low(len: usize, align: usize) -> Option<*mut u8> {
    let (places, step) = match align {
        GIB => (LOW, GIB),
        _ => (LOW_SMALL, len.next_multiple_of(align)),
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    for at in places.clone().step_by(step).take_while(|at| at.saturating_add(len) <= places.end) {
        let hint = ptr::without_provenance_mut(at);
        // SAFETY: no mapping is replaced: the kernel refuses if there is one.
        let start = unsafe { libc::mmap(hint, len, libc::PROT_NONE, flags, -1, 0) };
        if start == hint {
            return Some(start.cast());
        }
        if start != libc::MAP_FAILED {
            release(start.cast(), len);
            return None;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EEXIST) {
            return None;
        }
    }
    None
}

/// Reserves addresses without memory: anywhere, or over pages of an existing reservation.
fn reserve(at: Option<*mut u8>, len: usize) -> io::Result<*mut u8> {
    let fixed = if at.is_some() { libc::MAP_FIXED } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let hint = at.unwrap_or(ptr::null_mut()).cast();
    // SAFETY: without an address the kernel chooses free ones; with one, the caller owns the pages and
    // nothing uses them any more.
    let start = unsafe { libc::mmap(hint, len, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start.cast()) }
}

/// Returns addresses of a reservation to the kernel.
fn release(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: `start .. start + len` is part of a reservation of this process that is no longer used. The
        // call only fails for lack of kernel memory; the addresses stay reserved then.
        let _ = unsafe { libc::munmap(start.cast(), len) };
    }
}

fn advise(at: *mut u8, len: usize, advice: libc::c_int) -> io::Result<()> {
    loop {
        // SAFETY: called with a mapping of this process and advice that keeps its content.
        if unsafe { libc::madvise(at.cast(), len, advice) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as there is room: a process with many domains has them anywhere.
    #[test]
    fn reservations_are_low_and_apart() {
        let made: Vec<_> = [64 * GIB, SMALLEST, 64 * GIB, SMALLEST, 2 * GIB, 3 * SMALLEST]
            .into_iter()
            .map(|len| Reservation::new(len).expect("addresses"))
            .collect();
        for (index, one) in made.iter().enumerate() {
            let (start, end) = (one.base() as usize, one.base() as usize + one.len());
            assert!(start >= 4 * GIB && end <= 512 * GIB, "{start:#x}..{end:#x}");
            for other in &made[index + 1..] {
                let (low, high) = (other.base() as usize, other.base() as usize + other.len());
                assert!(end <= low || high <= start);
            }
        }
    }

    #[test]
    fn a_reservation_shrinks_until_there_are_addresses() {
        for refusal in [libc::ENOMEM, libc::EINVAL] {
            let refuse = |len: usize| match len {
                len if len > GIB => Err(io::Error::from_raw_os_error(refusal)),
                len => Ok(len),
            };
            assert_eq!(shrinking(64 * GIB, refuse).ok(), Some(GIB));
            let none = |_| Err::<usize, _>(io::Error::from_raw_os_error(refusal));
            assert_eq!(shrinking(64 * GIB, none).map_err(|e| e.raw_os_error()), Err(Some(refusal)));
        }
        let other = |_| Err::<usize, _>(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(shrinking(GIB, other).map_err(|e| e.raw_os_error()), Err(Some(libc::EPERM)));
    }
}
