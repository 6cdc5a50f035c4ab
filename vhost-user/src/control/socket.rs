//! Unix sockets: made for their owner only, removed at the end, taken over from the dead, never from the living.

use std::fs;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use linecard_wire::close_elsewhere;

use super::epoll::owned;
use crate::error::Error;

/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 16;
/// Longest path in a socket address, its terminator apart.
const MAX_PATH: usize = 107;

/// A listening socket whose name goes with it.
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the name we made, so that a successor's is left alone.
    identity: Option<(u64, u64)>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Connections that nobody accepted end with it, and with them what was sent over them.
        if let Ok(last) = self.socket.try_clone() {
            close_elsewhere(last.into());
        }
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Listens on `path`, readable and writable by its owner only.
///
/// # Errors
/// Every way a path can be unsuitable, as a variant of its own.
pub(super) fn listen(path: &Path) -> Result<Listener, Error> {
    let address = Address::new(path)?;
    clear_stale(path, &address)?;
    let socket = new_socket().map_err(|e| Error::system("making a socket", e))?;
    // The name inherits this mode; unlike a umask it concerns no other thread.
    // SAFETY: changes the mode of a descriptor we own.
    check(unsafe { libc::fchmod(socket.as_raw_fd(), 0o600) })
        .map_err(|e| Error::system("keeping a socket to its owner", e))?;
    // SAFETY: `address` is a valid socket address of the length given, alive during the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) })
        .map_err(|source| bind_error(path, source))?;
    let listener =
        Listener { socket: UnixListener::from(socket), path: path.into(), identity: identity(path) };
    // SAFETY: takes a descriptor we own and a number.
    check(unsafe { libc::listen(listener.socket.as_raw_fd(), BACKLOG) })
        .map_err(|e| Error::system("listening on a socket", e))?;
    Ok(listener)
}

/// Removes what a dead process left behind at `path`.
fn clear_stale(path: &Path, address: &Address) -> Result<(), Error> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(Error::NotASocket { path: path.into() });
    }
    match connect_to(address) {
        // Nobody listens any more.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| bind_error(path, source))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Error::Permission { path: path.into() }),
        // It answers, or its backlog is full: somebody lives there.
        _ => Err(Error::InUse { path: path.into() }),
    }
}

fn bind_error(path: &Path, source: io::Error) -> Error {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NoDirectory { path },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::Permission { path },
        ErrorKind::AddrInUse => Error::InUse { path },
        _ => Error::system(format!("making socket {}", path.display()), source),
    }
}

/// Checks that `path` can be a socket address.
///
/// # Errors
/// [`Error::PathLength`].
pub(super) fn check_path(path: &Path) -> Result<(), Error> {
    Address::new(path).map(drop)
}

/// Connects to `path` now or not at all.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = Address::new(path).map_err(io::Error::other)?;
    connect_to(&address)
}

fn connect_to(address: &Address) -> io::Result<UnixStream> {
    let socket = new_socket()?;
    // SAFETY: `address` is a valid socket address of the length given, alive during the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr(), address.len()) })?;
    Ok(UnixStream::from(socket))
}

fn new_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes integers, returns a new descriptor or -1.
    owned(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A path as a socket address.
struct Address {
    raw: libc::sockaddr_un,
    len: usize,
}

impl Address {
    fn new(path: &Path) -> Result<Self, Error> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > MAX_PATH || bytes.is_empty() {
            return Err(Error::PathLength { path: path.into(), len: bytes.len(), max: MAX_PATH });
        }
        // SAFETY: all zeros is a valid sockaddr_un.
        let mut raw: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = from.cast_signed();
        }
        Ok(Self { raw, len: size_of::<libc::sa_family_t>() + bytes.len() + 1 })
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.raw).cast()
    }

    fn len(&self) -> libc::socklen_t {
        self.len as libc::socklen_t
    }
}
