//! A queue's descriptor, read and written without ever waiting.
//!
//! Whether a call waits is a flag of the open file, and of a descriptor that was passed to us somebody may have kept a
//! copy and clear it. There each call says for itself that it does not wait (`RWF_NOWAIT`).

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags, Result, preadv2, pwritev2};

/// No place: where the file stands, which has none.
const HERE: u64 = u64::MAX;

pub(super) struct File {
    fd: Arc<OwnedFd>,
    /// Somebody else may hold the file too, and the kernel knows the flag (Linux 5.8).
    shared: Cell<bool>,
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

    /// One frame into several places.
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

    /// One frame from several places.
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

    /// Whether the kernel did not know the flag; it is not asked again.
    #[inline]
    fn is_unknown(&self, result: &Result<usize>) -> bool {
        let unknown = matches!(result, Err(Errno::OPNOTSUPP));
        if unknown {
            self.shared.set(false);
        }
        unknown
    }
}
