//! Establishes the connection of a port, by connecting or by listening.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use linecard_wire::Closer;
use linecard_wire::socket::{self, Access, Listener, SocketError, UnusableSocket};

use super::VhostUser;
use super::dialogue::Dialogue;
use crate::backend::{Backend, Connect, ConnectTimeouts, Ready, Waiter};
use crate::error::Error;
use crate::thread::after;

/// The first interval between two attempts to connect.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// Connects to a backend that listens.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) path: PathBuf,
    /// Shared by all connections of the port.
    pub(super) closer: Closer,
}

/// Listens for backends that connect.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) listener: Listener,
    pub(super) closer: Closer,
}

/// Uses a connection that was passed to the port; there is no second one.
#[derive(Debug)]
pub(super) struct Once {
    pub(super) stream: Mutex<Option<UnixStream>>,
    pub(super) closer: Closer,
}

impl Connect for Once {
    fn connect(&self, waiter: &Arc<Waiter>, timeouts: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        greet(stream.ok_or(Error::Over)?, &self.closer, waiter, timeouts)
    }
}

/// Checks that one more descriptor is allowed. While the port holds too many, it does not connect.
fn may_hold_more(closer: &Closer) -> Result<(), Error> {
    drop(closer.descriptors().charge(1).map_err(linecard_wire::Error::from)?);
    Ok(())
}

fn greet(
    socket: UnixStream,
    closer: &Closer,
    waiter: &Arc<Waiter>,
    timeouts: ConnectTimeouts,
) -> Result<Box<dyn Backend>, Error> {
    let dialogue = Dialogue::new(socket, closer, waiter, timeouts.deadline())?;
    Ok(Box::new(VhostUser::greet(dialogue)?))
}

impl Connect for Client {
    fn file(&self) -> Option<&Path> {
        // An abstract name is in no directory.
        Some(self.path.as_path()).filter(|path| !path.as_os_str().as_encoded_bytes().starts_with(b"@"))
    }

    fn connect(&self, waiter: &Arc<Waiter>, timeouts: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        may_hold_more(&self.closer)?;
        let socket = connect(&self.path, waiter, timeouts.until)?;
        greet(socket, &self.closer, waiter, timeouts)
    }
}

impl Connect for Server {
    fn comes_by_itself(&self) -> bool {
        true
    }

    fn connect(&self, waiter: &Arc<Waiter>, timeouts: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        may_hold_more(&self.closer)?;
        let socket = accept(&self.listener, waiter)?;
        greet(socket, &self.closer, waiter, timeouts)
    }

    fn withdraw(&self) {
        self.listener.remove_name();
    }
}

/// Listens at `path`; see [`Listener::bind_for`].
pub(super) fn listen(path: &Path, access: Access) -> Result<Listener, Error> {
    Ok(Listener::bind_for(path, access).map_err(|reason| UnusableSocket::new(path, reason))?)
}

/// Waits for the next backend to connect.
fn accept(listener: &Listener, waiter: &Waiter) -> Result<UnixStream, Error> {
    loop {
        if waiter.stopped() {
            return Err(Error::Stopped);
        }
        match listener.accept() {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                waiter.wait(Some(listener.as_fd()), Ready::Read, None);
            }
            // The backend left before it was accepted, or descriptors ran out: a retry may succeed.
            Err(_) => waiter.wait(None, Ready::Read, Some(after(RETRY))),
        }
    }
}

/// Connects to `path`, with retries until `deadline`.
fn connect(path: &Path, waiter: &Waiter, deadline: Instant) -> Result<UnixStream, Error> {
    loop {
        let source = match socket::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(source) => source,
        };
        if let Some(what) = socket::obstacle(path) {
            return Err(UnusableSocket::new(path, SocketError::NotASocket { what }).into());
        }
        if socket::needs_proc(&source) {
            return Err(UnusableSocket::new(path, SocketError::NoProc).into());
        }
        if Instant::now() >= deadline {
            return Err(Error::Connect { path: path.to_owned(), source });
        }
        if waiter.stopped() {
            return Err(Error::Stopped);
        }
        waiter.wait(None, Ready::Read, Some(after(RETRY).min(deadline)));
    }
}
