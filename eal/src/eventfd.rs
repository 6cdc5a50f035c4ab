//! Eventfds: signals on an eventfd whose other holder may be hostile, and eventfds of this process.
//!
//! An eventfd is an open file that both ends of a notification share, including its `O_NONBLOCK` flag and its
//! counter. A peer that clears the flag and fills the counter makes a plain `write(2)` block for as long as
//! it likes, and the polling thread with it. Calling `poll` first leaves the peer time in between. Therefore
//! the counter is not written. Instead, a request that completes at once is submitted to the kernel, with the
//! eventfd as the place to report its completion (`IOCB_FLAG_RESFD`, `io_submit(2)`). The kernel adds one and
//! never waits, and a full counter stays full.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use crate::notifier::{Notifier, SignalBudget};
use crate::sys::{self, aio};

thread_local! {
    /// Each thread has its own queue: no lock, and no port waits for another.
    static QUEUE: Option<ThreadQueue> = SPARE.take().ok();
}

/// Queues of threads that have ended, for new threads. The kernel takes tens of milliseconds to destroy a
/// queue (it waits until no processor can be using it), and a thread that joins the ending thread would wait
/// for that too.
static SPARE: Spare = Spare(Mutex::new(Vec::new()));
/// The maximum number of spare queues: an eighth of a system's default limit (`fs.aio-max-nr`).
const MOST_SPARE: usize = 256;

struct Spare(Mutex<Vec<aio::Queue>>);

impl Spare {
    fn take(&'static self) -> io::Result<ThreadQueue> {
        // The lock is only held briefly, except in the child of a fork during which another thread held it.
        let spare = self.0.try_lock().ok().and_then(|mut spare| spare.pop());
        let queue = spare.map_or_else(aio::Queue::new, Ok)?;
        Ok(ThreadQueue { queue: Some(queue), spares: self })
    }
}

/// The queue of one thread, until the thread ends.
struct ThreadQueue {
    /// `None` once it was returned.
    queue: Option<aio::Queue>,
    spares: &'static Spare,
}

impl ThreadQueue {
    fn signal(&self, to: RawFd) -> io::Result<()> {
        self.queue.as_ref().ok_or(io::ErrorKind::NotConnected)?.signal(to)
    }
}

impl Drop for ThreadQueue {
    fn drop(&mut self) {
        let Ok(mut spare) = self.spares.0.try_lock() else { return };
        if spare.len() < MOST_SPARE {
            spare.extend(self.queue.take());
        }
    }
}

/// Adds one to the counter of eventfd `to`. Never blocks, whatever its other holders do. Costs about 0.7 µs.
///
/// If the kernel has no asynchronous I/O (or refuses it to this process), the eventfd is written if it has
/// room at that moment. A peer that fills it in the same moment can then block this call for as long as it
/// likes. Only eventfds are written: the fallback checks the descriptor first.
///
/// ```
/// use std::os::fd::{AsFd, FromRawFd, OwnedFd};
///
/// // SAFETY: takes integers.
/// let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
/// // SAFETY: just made, and checked by the assertion below.
/// let event = unsafe { OwnedFd::from_raw_fd(fd) };
/// linecard_eal::eventfd::signal(event.as_fd())?;
/// linecard_eal::eventfd::signal(event.as_fd())?;
/// let mut count = [0; 8];
/// // SAFETY: writes eight bytes to `count`.
/// assert_eq!(unsafe { libc::read(fd, count.as_mut_ptr().cast(), 8) }, 8);
/// assert_eq!(u64::from_ne_bytes(count), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `EINVAL` for a descriptor that is not an eventfd, `EAGAIN` for a full one in the fallback, or another
/// error of the kernel.
pub fn signal(to: BorrowedFd<'_>) -> io::Result<()> {
    let queued = QUEUE.try_with(|queue| queue.as_ref().map(|queue| queue.signal(to.as_raw_fd())));
    match queued {
        Ok(Some(Ok(()))) => Ok(()),
        // No queue (not yet or no longer), or a queue created before a fork.
        _ => sys::write_if_ready(to),
    }
}

/// Creates the queue that this thread [signals](signal) with, as its first signal would otherwise: this takes
/// the kernel some milliseconds.
///
/// ```
/// linecard_eal::eventfd::prepare_thread();
/// ```
pub fn prepare_thread() {
    // A thread that is ending sends no more signals.
    let _ = QUEUE.try_with(|_| ());
}

/// A new eventfd, non-blocking and close-on-exec, that wakes the thread waiting on it.
///
/// ```
/// let notifier = linecard_eal::eventfd::EventFd::new()?;
/// notifier.signal();
/// notifier.drain();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct EventFd(Kind);

#[derive(Debug)]
enum Kind {
    /// Only this process holds it.
    Own(OwnedFd),
    Shared(Arc<Notifier<OwnedFd>>),
}

impl EventFd {
    /// Creates an eventfd with counter 0 that is not passed to a peer.
    ///
    /// # Errors
    /// This process has no descriptors left, or the kernel no memory.
    pub fn new() -> io::Result<Self> {
        sys::eventfd().map(|fd| Self(Kind::Own(fd)))
    }

    /// Creates an eventfd that is passed to the peer of a port; its signals are charged to the port's budget.
    /// See [`crate::notifier`].
    ///
    /// # Errors
    /// As [`EventFd::new`].
    pub fn of(signal_budget: &Arc<SignalBudget>) -> io::Result<Self> {
        sys::eventfd().map(|fd| Self(Kind::Shared(Arc::new(Notifier::new(fd, signal_budget)))))
    }

    /// Wakes the other side with [`signal`]. A full counter means that it was woken already, so that error is
    /// ignored.
    #[cold]
    pub fn signal(&self) {
        // There is nothing to do about an error.
        let _ = match &self.0 {
            Kind::Own(fd) => signal(fd.as_fd()).is_ok(),
            Kind::Shared(notifier) => notifier.notify(),
        };
    }

    /// Discards earlier signals.
    pub fn drain(&self) {
        sys::drain(self.as_fd());
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Own(fd) => fd.as_fd(),
            Kind::Shared(notifier) => notifier.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::FromRawFd;

    const FULL: u64 = u64::MAX - 1;

    /// An eventfd in blocking mode with `count` in it.
    fn event(count: u64) -> File {
        // SAFETY: takes integers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: just created, nothing else owns it.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(&count.to_ne_bytes()).expect("room");
        file
    }

    fn count(mut file: &File) -> u64 {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes).expect("not zero");
        u64::from_ne_bytes(bytes)
    }

    /// Runs `body` in a separate thread and fails if it does not end, as a blocked write never would.
    fn in_time(body: impl FnOnce() + Send + 'static) {
        let (done, over) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            body();
            done.send(()).expect("the test waits");
        });
        over.recv_timeout(std::time::Duration::from_secs(5)).expect("it must not sleep");
    }

    #[test]
    fn a_full_blocking_eventfd_makes_nobody_wait() {
        in_time(|| {
            let event = event(FULL);
            for _ in 0..1000 {
                let _ = signal(event.as_fd());
            }
            assert!(count(&event) >= FULL);
        });
    }

    #[test]
    fn the_second_way_does_not_wait_for_a_full_one_either() {
        in_time(|| {
            let event = event(FULL);
            assert_eq!(
                sys::write_if_ready(event.as_fd()).map_err(|e| e.kind()),
                Err(io::ErrorKind::WouldBlock)
            );
            assert_eq!(count(&event), FULL);
            sys::write_if_ready(event.as_fd()).expect("room");
            assert_eq!(count(&event), 1);
        });
    }

    #[test]
    fn every_signal_counts_from_any_thread() {
        let event = event(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| signal(event.as_fd()).expect("room")));
            }
        });
        assert_eq!(count(&event), 4000);
    }

    #[test]
    fn threads_leave_their_queues_to_those_that_begin() {
        static HOME: Spare = Spare(Mutex::new(Vec::new()));
        let spare = || HOME.0.lock().expect("no panic").len();
        let (one, other) = (HOME.take().expect("a queue"), HOME.take().expect("a queue"));
        assert_eq!(spare(), 0);
        drop((one, other));
        assert_eq!(spare(), 2);
        let event = event(0);
        let again = HOME.take().expect("one of them");
        assert_eq!(spare(), 1);
        // More than fit into a queue before they are discarded.
        (0..100).for_each(|_| again.signal(event.as_raw_fd()).expect("it works"));
        drop(again);
        let again = HOME.take().expect("the same");
        (0..100).for_each(|_| again.signal(event.as_raw_fd()).expect("it works"));
        assert_eq!((count(&event), spare()), (200, 1));
        // A thread that cannot take the lock destroys its queue.
        let held = HOME.0.lock().expect("no panic");
        drop(again);
        drop(held);
        assert_eq!(spare(), 1);
    }

    /// Covers every kind of descriptor that accepts eight bytes, and some that do not.
    #[test]
    fn anything_else_is_refused_and_not_written() {
        let file = sys::memfd("not an eventfd", None).expect("a file");
        assert!(aio::Queue::new().is_ok_and(|queue| queue.signal(file.as_raw_fd()).is_err()));
        let (mut reader, pipe) = std::io::pipe().expect("a pipe");
        let (mut peer, socket) = std::os::unix::net::UnixStream::pair().expect("sockets");
        // SAFETY: takes integers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(epoll >= 0);
        // SAFETY: just created, nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        assert!(sys::has_no_type(event(0).as_fd()));
        assert!(
            [file.as_fd(), pipe.as_fd(), socket.as_fd()].into_iter().all(|other| !sys::has_no_type(other))
        );
        for other in [file.as_fd(), pipe.as_fd(), socket.as_fd(), epoll.as_fd()] {
            for way in [signal, sys::write_if_ready] {
                assert_eq!(way(other).map_err(|e| e.raw_os_error()), Err(Some(libc::EINVAL)));
            }
        }
        assert_eq!(file.metadata().expect("metadata").len(), 0, "nothing was written");
        drop((pipe, socket));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("ends");
        peer.read_to_end(&mut rest).expect("ends");
        assert!(rest.is_empty(), "nothing was written: {rest:?}");
    }
}
