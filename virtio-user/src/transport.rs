//! How a port comes to a connection: it connects, or it listens.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_wire::socket::{self, Access, Listener, SocketError};

use crate::error::Error;
use crate::reactor::{Task, after};
use crate::sys::Ready;

/// Between two tries to connect.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// Listens at `path`; see [`Listener::bind_for`].
pub(crate) fn listen(path: &Path, access: Access) -> Result<Listener, Error> {
    Listener::bind_for(path, access).map_err(|reason| {
        let path = path.to_owned();
        match reason {
            SocketError::NotASocket { what } => Error::NoSocket { path, what },
            SocketError::InUse => Error::InUse { path },
            SocketError::System { action, source } if action.starts_with("giving") => {
                Error::Access { path, action, source }
            }
            SocketError::System { source, .. } => Error::Listen { path, source },
            other => Error::Listen { path, source: io::Error::new(ErrorKind::InvalidInput, other) },
        }
    })
}

/// The next backend that connects.
pub(crate) async fn accept(
    listener: &Listener,
    task: &Task,
    stop: impl Fn() -> bool,
) -> Result<UnixStream, Error> {
    loop {
        if stop() {
            return Err(Error::Stopped);
        }
        match listener.accept() {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                task.wait(Some(listener.as_fd()), Ready::Read, None).await;
            }
            // A backend that left before it was accepted, or no descriptors left: later may be better.
            Err(_) => task.wait(None, Ready::Read, Some(after(RETRY))).await,
        }
    }
}

/// Connects to `path`, trying again until `deadline`.
pub(crate) async fn connect(path: &Path, task: &Arc<Task>, deadline: Instant) -> Result<UnixStream, Error> {
    loop {
        match socket::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if let Some(what) = socket::obstacle(path) => {
                return Err(Error::NoSocket { path: path.to_owned(), what });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(Error::Connect { path: path.to_owned(), source });
            }
            Err(_) => task.wait(None, Ready::Read, Some(after(RETRY).min(deadline))).await,
        }
    }
}
