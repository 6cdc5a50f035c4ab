//! Notice of the end of another process's thread, before the kernel has ended the process.
//!
//! The descriptors of a killed process are closed, and a pidfd of it becomes readable, only after the kernel has
//! released its memory. That takes tens of milliseconds for a process with asynchronous I/O (`exit_aio` waits for
//! grace periods of RCU), which is most of the time for which a killed switch forwards nothing. A robust mutex
//! (`pthread_mutexattr_setrobust(3)`, `get_robust_list(2)`) is released earlier, as the first step of the exit of
//! the thread that holds it.
//!
//! ```text
//!   watcher  Liveness::new ── descriptor, passed at the start ──► Liveness::from_fd, hold   watched thread
//!     wait ◄───────────────── the kernel releases the mutex ──────────────────────────── ✗ killed
//! ```

use std::cell::UnsafeCell;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::sys;

/// The content of the shared memory.
#[repr(C)]
struct Shared {
    /// [`LIBRARY`] of the process that initialised the mutex.
    library: AtomicU32,
    /// 1 from when the watched thread holds the mutex.
    held: AtomicU32,
    mutex: UnsafeCell<libc::pthread_mutex_t>,
}

/// The C library, because each has its own layout of a mutex, and a version of this layout. Never 0, which is
/// the content of a new file.
const LIBRARY: u32 = if cfg!(target_env = "musl") { 2 } else { 1 };

/// A robust mutex in memory that two processes share.
///
/// Both processes trust each other: a peer of a port must never get the descriptor.
///
/// ```
/// use std::os::fd::AsFd;
/// use linecard_eal::liveness::Liveness;
///
/// let watcher = Liveness::new()?;
/// assert!(!watcher.is_held());
/// // In an application, another process gets the descriptor.
/// let watched = Liveness::from_fd(watcher.as_fd().try_clone_to_owned()?)?;
/// let thread = std::thread::spawn(move || watched.hold());
/// thread.join().expect("no panic")?;
/// assert!(watcher.is_held());
/// watcher.wait()?; // returns: the thread has ended
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Liveness {
    memory: MmapRaw,
    file: File,
}

// SAFETY: all shared fields are atomic, and the mutex is made for use by several threads and processes.
unsafe impl Sync for Liveness {}

impl Liveness {
    /// Creates the mutex, which no thread holds.
    ///
    /// # Errors
    /// No descriptor or memory is available, or the C library has no robust mutexes.
    pub fn new() -> io::Result<Self> {
        let file = sys::memfd("linecard-liveness", None)?;
        file.set_len(size_of::<Shared>() as u64)?;
        sys::seal(&file)?;
        let new = Self { memory: map(&file)?, file };
        initialise(new.shared().mutex.get())?;
        new.shared().library.store(LIBRARY, Ordering::Release);
        Ok(new)
    }

    /// Opens the mutex of another process.
    ///
    /// # Errors
    /// `InvalidData` if the file is not that of [`Liveness::new`] in a program with the same C library, or an
    /// error of the kernel.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        if file.metadata()?.len() != size_of::<Shared>() as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let opened = Self { memory: map(&file)?, file };
        if opened.shared().library.load(Ordering::Acquire) != LIBRARY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(opened)
    }

    /// Holds the mutex until the calling thread ends.
    ///
    /// # Errors
    /// Another thread holds it, or has held it.
    pub fn hold(self) -> io::Result<()> {
        // SAFETY: `initialise` made the mutex, and the memory stays mapped: `self` is forgotten below, or no thread
        // of this process holds the mutex.
        match unsafe { libc::pthread_mutex_trylock(self.shared().mutex.get()) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        self.shared().held.store(1, Ordering::Release);
        // The C library's list of this thread's robust mutexes contains the memory until the thread ends.
        std::mem::forget(self);
        Ok(())
    }

    /// Whether a thread holds the mutex, or has held it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.shared().held.load(Ordering::Acquire) == 1
    }

    /// Waits until the thread that holds the mutex has ended, which may be long before its process has. Returns
    /// at once if no thread holds it.
    ///
    /// # Errors
    /// The C library reports an error other than the end of the thread.
    pub fn wait(&self) -> io::Result<()> {
        let mutex = self.shared().mutex.get();
        // SAFETY: `initialise` made the mutex, and the memory stays mapped while `self` is borrowed.
        match unsafe { libc::pthread_mutex_lock(mutex) } {
            libc::EOWNERDEAD => {
                // SAFETY: as above; this thread holds the mutex.
                unsafe { libc::pthread_mutex_consistent(mutex) };
            }
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: as above. Once unlocked, the C library no longer refers to the memory.
        unsafe { libc::pthread_mutex_unlock(mutex) };
        Ok(())
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping is page-aligned, as long as `Shared`, zeroed or written by `new`, and lives as long as
        // `self`. All bit patterns are valid, and both processes write only through atomics and the C library.
        unsafe { &*self.memory.as_mut_ptr().cast() }
    }
}

impl AsFd for Liveness {
    /// The descriptor for the watched process; closed when another program is executed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn map(file: &File) -> io::Result<MmapRaw> {
    MmapOptions::new().len(size_of::<Shared>()).map_raw(file)
}

/// Initialises a robust mutex that processes share.
fn initialise(mutex: *mut libc::pthread_mutex_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::uninit();
    let attributes = attributes.as_mut_ptr();
    let calls: [&dyn Fn() -> libc::c_int; 4] = [
        // SAFETY: writes to `attributes`, which lives until the end of this function.
        &|| unsafe { libc::pthread_mutexattr_init(attributes) },
        // SAFETY: initialised by the call before.
        &|| unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) },
        // SAFETY: initialised by the first call.
        &|| unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) },
        // SAFETY: `mutex` is in a new mapping that no other thread or process knows yet.
        &|| unsafe { libc::pthread_mutex_init(mutex, attributes) },
    ];
    calls.iter().try_for_each(|call| match call() {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    })
    // The attributes hold no resources in the C libraries of Linux: pthread_mutexattr_destroy does nothing.
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ended_is_noticed() {
        let watcher = Liveness::new().expect("a mutex");
        let other =
            || Liveness::from_fd(watcher.file.try_clone().expect("a descriptor").into()).expect("the same");
        let (ready, release) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                other().hold().expect("nobody else holds it");
                ready.wait();
                release.wait();
            });
            ready.wait();
            assert!(watcher.is_held());
            let error = other().hold().expect_err("it is held").kind();
            assert_eq!(error, io::ErrorKind::ResourceBusy);
            let waiter = scope.spawn(|| watcher.wait());
            assert!(!waiter.is_finished() && !holder.is_finished());
            release.wait();
            waiter.join().expect("no panic").expect("it is noticed");
        });
        watcher.wait().expect("nobody holds it");
    }

    #[test]
    fn other_files_are_refused() {
        let file = sys::memfd("other", None).expect("a file");
        let opened = || Liveness::from_fd(file.try_clone().expect("a descriptor").into());
        let kind = |opened: io::Result<Liveness>| opened.expect_err("nothing of ours").kind();
        assert_eq!(kind(opened()), io::ErrorKind::InvalidData);
        file.set_len(size_of::<Shared>() as u64).expect("a length");
        assert_eq!(kind(opened()), io::ErrorKind::InvalidData);
        file.set_len(2 * size_of::<Shared>() as u64).expect("a length");
        assert_eq!(kind(opened()), io::ErrorKind::InvalidData);
    }
}
