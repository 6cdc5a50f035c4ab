//! The system calls this room needs that `std` does not have.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use linecard_eal::bell::{Bell, Strikes};

/// A counter in the kernel that wakes whoever polls it (`eventfd(2)`), non-blocking and close-on-exec.
#[derive(Debug)]
pub(crate) struct EventFd(Arc<Bell<OwnedFd>>);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        Self::of(&Arc::default())
    }

    /// One of the port that `strikes` counts for.
    pub(crate) fn of(strikes: &Arc<Strikes>) -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Bell::new(fd, strikes))))
    }

    /// Wakes the other side, which may be a hostile backend that shares the open file: never sleeps.
    /// A full counter means it is awake already, so nothing can go wrong.
    #[cold]
    pub(crate) fn signal(&self) {
        self.0.ring();
    }

    /// Forgets earlier signals.
    pub(crate) fn drain(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: `count` outlives the call, which writes at most its 8 bytes.
        unsafe { libc::read(self.as_fd().as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What to watch a descriptor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Read,
    Write,
}

/// One line of a poll set.
pub(crate) fn pollfd(fd: Option<RawFd>, ready: Ready) -> libc::pollfd {
    let events = match ready {
        Ready::Read => libc::POLLIN,
        Ready::Write => libc::POLLOUT,
    };
    // A negative descriptor is skipped by the kernel.
    libc::pollfd { fd: fd.unwrap_or(-1), events, revents: 0 }
}

/// Waits until a descriptor of `set` is ready or `wait` is over (`None`: for ever); an interrupted call just returns.
pub(crate) fn poll(set: &mut [libc::pollfd], wait: Option<Duration>) {
    let timeout = wait.map_or(-1, |wait| {
        // Rounded up, so that a deadline is over when the call returns for it.
        i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    for line in set.iter_mut() {
        line.revents = 0;
    }
    // SAFETY: `set` is exclusively borrowed for the call and its length is passed along.
    unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) };
}

/// Whether `path` is a character device such as `/dev/vhost-net`.
pub(crate) fn is_char_device(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device())
}

/// Six bytes nobody can guess, for an address.
pub(crate) fn random_bytes() -> [u8; 6] {
    let mut bytes = [0_u8; 6];
    // SAFETY: `bytes` is exclusively borrowed for the call, which writes at most its 6 bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != 6 {
        // Unique within the machine is enough for an address: the clock and the process.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        let mix = now ^ (u64::from(std::process::id()) << 32);
        bytes.copy_from_slice(&mix.to_le_bytes()[..6]);
    }
    bytes
}

/// A path as a socket address.
fn address(path: &std::path::Path) -> io::Result<libc::sockaddr_un> {
    use std::os::unix::ffi::OsStrExt;
    let mut addr = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= addr.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such socket can exist"));
    }
    for (to, from) in addr.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(addr)
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Listens at `path`, non-blocking, with a name that only its owner may read and write.
pub(crate) fn listen(path: &std::path::Path) -> io::Result<UnixListener> {
    /// Connections that may wait to be accepted.
    const BACKLOG: libc::c_int = 16;
    let (addr, socket) = (address(path)?, socket()?);
    // The name inherits this mode; unlike a umask it concerns no other thread.
    // SAFETY: takes integers.
    check(unsafe { libc::fchmod(socket.as_raw_fd(), 0o600) })?;
    // SAFETY: `addr` outlives the call, which reads `ADDRESS_LEN` bytes of it.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), ADDRESS_LEN) })?;
    // SAFETY: takes integers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(UnixListener::from(socket))
}

/// Connects to a Unix socket without ever blocking (a listener whose queue is full is an error).
pub(crate) fn connect(path: &std::path::Path) -> io::Result<UnixStream> {
    let (addr, socket) = (address(path)?, socket()?);
    // SAFETY: `addr` outlives the call, which reads `ADDRESS_LEN` bytes of it.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const addr).cast(), ADDRESS_LEN) })?;
    Ok(UnixStream::from(socket))
}
