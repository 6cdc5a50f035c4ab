//! How a port comes to a connection: it connects, or it listens.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use linecard_wire::socket::{self, Access, Listener, SocketError};

use crate::error::Error;
use crate::sys::Ready;
use crate::thread::{Waiter, after};

/// Between two tries to connect.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// Listens at `path`; see [`Listener::bind_for`].
pub(crate) fn listen(path: &Path, access: Access) -> Result<Listener, Error> {
    Listener::bind_for(path, access).map_err(|reason| {
        let path = path.to_owned();
        match reason {
            SocketError::NotASocket { what } => Error::NoSocket { path, what },
            SocketError::InUse => Error::InUse { path },
            SocketError::Access { action, source } => Error::Access { path, action, source },
            SocketError::System { source, .. } => Error::Listen { path, source },
            other => Error::Listen { path, source: io::Error::new(ErrorKind::InvalidInput, other) },
        }
    })
}

/// The next backend that connects.
pub(crate) fn accept(listener: &Listener, waiter: &Waiter) -> Result<UnixStream, Error> {
    loop {
        if waiter.stopped() {
            return Err(Error::Stopped);
        }
        match listener.accept() {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                waiter.wait(Some(listener.as_fd()), Ready::Read, None);
            }
            // A backend that left before it was accepted, or no descriptors left: later may be better.
            Err(_) => waiter.wait(None, Ready::Read, Some(after(RETRY))),
        }
    }
}

/// Connects to `path`, trying again until `deadline`.
pub(crate) fn connect(path: &Path, waiter: &Waiter, deadline: Instant) -> Result<UnixStream, Error> {
    loop {
        match socket::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if let Some(what) = socket::obstacle(path) => {
                return Err(Error::NoSocket { path: path.to_owned(), what });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(Error::Connect { path: path.to_owned(), source });
            }
            Err(_) if waiter.stopped() => return Err(Error::Stopped),
            Err(_) => waiter.wait(None, Ready::Read, Some(after(RETRY).min(deadline))),
        }
    }
}
