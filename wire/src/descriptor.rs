//! File descriptors that a peer sent: closing them must not make us wait.
//!
//! `close(2)` can sleep for as long as the sender likes: a TCP socket with `SO_LINGER` waits for its data to be read, a
//! file of a file system that is a program (FUSE) waits for that program. A thread that serves many peers never closes
//! such a descriptor itself; a thread of its own does.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{OnceLock, mpsc};

/// Descriptors that may wait to be closed. More are left open: there are that many only when one peer keeps the
/// closing thread waiting and goes on sending.
const MAX_WAITING: usize = 256;

/// A descriptor that came with a message. It is closed on drop, without waiting, wherever it leads.
///
/// ```
/// use std::os::fd::OwnedFd;
/// use linecard_wire::PeerFd;
///
/// let (reader, _writer) = std::io::pipe()?;
/// let came = PeerFd::from(OwnedFd::from(reader));
/// let kept: OwnedFd = came.into_owned(); // known to be harmless to close
/// # drop(kept);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PeerFd(Option<OwnedFd>);

impl PeerFd {
    /// The descriptor, to be closed like any other. For one whose kind was checked.
    ///
    /// # Panics
    /// Never: the descriptor is there until it is given away here.
    #[must_use]
    pub fn into_owned(mut self) -> OwnedFd {
        match self.0.take() {
            Some(fd) => fd,
            None => unreachable!("given away once"),
        }
    }
}

impl From<OwnedFd> for PeerFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }
}

impl AsFd for PeerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Some(fd) => fd.as_fd(),
            None => unreachable!("given away once"),
        }
    }
}

impl Drop for PeerFd {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take()
            && !closes_at_once(&fd)
        {
            close_elsewhere(fd);
        }
    }
}

/// Whether closing `fd` cannot wait for anybody: memory that can be sealed (memfd, tmpfs, hugetlbfs), and what is no file
/// at all. Asks the kernel alone: even `fstat` may wait for the file system.
fn closes_at_once(fd: &OwnedFd) -> bool {
    // SAFETY: takes integers.
    let memory = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) } >= 0;
    // Names of files begin with a slash.
    let no_file = || {
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).is_ok_and(|link| {
            let link = link.to_string_lossy();
            link.starts_with("anon_inode:") || link.starts_with("pipe:")
        })
    };
    memory || no_file()
}

fn close_elsewhere(fd: OwnedFd) {
    static THREAD: OnceLock<Option<mpsc::Sender<OwnedFd>>> = OnceLock::new();
    static WAITING: AtomicUsize = AtomicUsize::new(0);
    let thread = THREAD.get_or_init(|| {
        let (sender, fds) = mpsc::channel::<OwnedFd>();
        let body = move || {
            for fd in fds {
                drop(fd);
                WAITING.fetch_sub(1, Relaxed);
            }
        };
        std::thread::Builder::new().name("lc-closer".into()).spawn(body).ok().map(|_| sender)
    });
    // Without a thread there is nothing better than to close it here.
    let Some(thread) = thread else { return };
    if WAITING.fetch_add(1, Relaxed) >= MAX_WAITING {
        WAITING.fetch_sub(1, Relaxed);
        std::mem::forget(fd);
    } else if let Err(mpsc::SendError(fd)) = thread.send(fd) {
        drop(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// A socket whose `close` waits ten seconds for somebody to read, and the one who does not.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (silent, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("possible");
        while socket.write(&[7; 65_536]).is_ok() {}
        let linger = libc::linger { l_onoff: 1, l_linger: 10 };
        let len = size_of::<libc::linger>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
        // SAFETY: reads `len` bytes of `linger`.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const linger).cast(), len) };
        assert_eq!(set, 0);
        (socket, silent)
    }

    #[test]
    fn closing_does_not_wait_for_the_sender() {
        let (socket, mut silent) = lingering();
        let began = Instant::now();
        drop(PeerFd::from(OwnedFd::from(socket)));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        // It is closed for all that, once its data is gone.
        silent.read_to_end(&mut Vec::new()).expect("the end comes");
    }

    #[test]
    fn what_cannot_wait_is_closed_at_once() {
        // SAFETY: takes a terminated string and an integer.
        let memory = unsafe { libc::memfd_create(c"closed".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: takes integers.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        for raw in [memory, event] {
            // SAFETY: just made, nobody else owns it.
            let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) };
            assert!(closes_at_once(&fd));
        }
        assert!(!closes_at_once(&std::fs::File::open("/dev/null").expect("there").into()));
    }
}
