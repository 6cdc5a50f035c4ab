//! A queue's descriptor, read and written without blocking.
//!
//! Blocking is a flag of the open file. If a descriptor was passed, another process may keep a copy and clear
//! the flag. Each call on such a descriptor therefore requests non-blocking behaviour itself (`RWF_NOWAIT`).

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags, Result, preadv2, pwritev2};

/// The file's current position; a tun queue has none.
const HERE: u64 = u64::MAX;

pub(super) struct File {
    fd: Arc<OwnedFd>,
    /// Whether another process may hold the file too, and the kernel knows the flag (Linux 5.8).
    shared: Cell<bool>,
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl File {
    pub(super) fn new(fd: Arc<OwnedFd>, shared: bool) -> Self {
        Self { fd, shared: Cell::new(shared) }
    }

    #[inline]
    pub(super) fn read(&self, to: &mut [u8]) -> Result<usize> {
        if self.shared.get() {
            return self.read_into(&mut [IoSliceMut::new(to)]);
        }
        rustix::io::read(&*self.fd, to)
    }

    /// Reads one frame into several buffers.
    #[inline]
    pub(super) fn read_into(&self, places: &mut [IoSliceMut<'_>]) -> Result<usize> {
        if self.shared.get() {
            let read = preadv2(&*self.fd, places, HERE, ReadWriteFlags::NOWAIT);
            if !self.is_unknown(&read) {
                return read;
            }
        }
        rustix::io::readv(&*self.fd, places)
    }

    #[inline]
    pub(super) fn write(&self, frame: &[u8]) -> Result<usize> {
        if self.shared.get() {
            return self.write_from(&[IoSlice::new(frame)]);
        }
        rustix::io::write(&*self.fd, frame)
    }

    /// Writes one frame from several buffers.
    #[inline]
    pub(super) fn write_from(&self, pieces: &[IoSlice<'_>]) -> Result<usize> {
        if self.shared.get() {
            let written = pwritev2(&*self.fd, pieces, HERE, ReadWriteFlags::NOWAIT);
            if !self.is_unknown(&written) {
                return written;
            }
        }
        rustix::io::writev(&*self.fd, pieces)
    }

    /// Returns whether the kernel does not know the flag; it is not used again then.
    #[inline]
    fn is_unknown(&self, result: &Result<usize>) -> bool {
        let unknown = matches!(result, Err(Errno::OPNOTSUPP));
        if unknown {
            self.shared.set(false);
        }
        unknown
    }
}
