//! Use of the kernel's asynchronous I/O for one purpose: it reports completions to an eventfd without ever
//! waiting.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;

/// The maximum number of completions in the queue before they are discarded.
const DEPTH: u32 = 32;
const PREAD: u16 = 0;
const RESFD: u32 = 1;

/// `struct iocb` of `linux/aio_abi.h` on a little-endian machine.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event` of `linux/aio_abi.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Completion {
    _data: u64,
    _request: u64,
    _result: i64,
    _result2: i64,
}

const _: () = assert!(size_of::<Request>() == 64 && size_of::<Completion>() == 32);

/// The queue of one thread.
pub(crate) struct Queue {
    id: u64,
    /// The number of completions in the queue.
    done: Cell<u32>,
}

impl Queue {
    pub(crate) fn new() -> io::Result<Self> {
        // The field order above is that of little-endian machines.
        if cfg!(any(miri, target_endian = "big")) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut id = 0_u64;
        // SAFETY: writes one word to `id`, which lives across the call.
        if unsafe { libc::syscall(libc::SYS_io_setup, DEPTH, &raw mut id) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { id, done: Cell::new(0) })
    }

    /// Has the kernel add one to eventfd `to`, by completing a read of zero bytes from the eventfd itself.
    /// That is an error (`eventfd(2)`), but it completes. Kernels before 5.8 refuse the request.
    pub(crate) fn signal(&self, to: RawFd) -> io::Result<()> {
        if self.done.get() >= DEPTH {
            self.forget();
        }
        let request = Request {
            opcode: PREAD,
            file: to.cast_unsigned(),
            flags: RESFD,
            resfd: to.cast_unsigned(),
            ..Request::default()
        };
        let list = [&raw const request];
        // SAFETY: the kernel copies the one request that `list` points to before it returns; a read of zero
        // bytes writes no memory.
        let taken = unsafe { libc::syscall(libc::SYS_io_submit, self.id, 1_usize, list.as_ptr()) };
        if taken != 1 {
            return Err(io::Error::last_os_error());
        }
        self.done.set(self.done.get() + 1);
        Ok(())
    }

    /// Discards the completions; each request was complete before its submission returned.
    #[cold]
    fn forget(&self) {
        let mut events = [Completion::default(); DEPTH as usize];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes at most `events.len()` completions to `events` and reads `now`; both live across the call.
        unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.id,
                0_usize,
                events.len(),
                events.as_mut_ptr(),
                &raw const now,
            )
        };
        self.done.set(0);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: takes an integer: the queue that `new` created, or, in a forked child, a number without a
        // queue.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
    }
}
