//! How a port comes to a connection: it connects, or it listens.

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

/// Between two tries to connect, at first.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// The port connects to a backend that listens.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) path: PathBuf,
    /// Of all the port's connections.
    pub(super) closer: Closer,
}

/// Backends connect to the port.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) listener: Listener,
    pub(super) closer: Closer,
}

/// A connection that was passed to the port; there is no other one.
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

/// One more descriptor, given back at once: while the port holds too many it does not connect.
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
        // An abstract name is in no folder.
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

/// The next backend that connects.
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
            // A backend that left before it was accepted, or no descriptors left: later may be better.
            Err(_) => waiter.wait(None, Ready::Read, Some(after(RETRY))),
        }
    }
}

/// Connects to `path`, trying again until `deadline`.
fn connect(path: &Path, waiter: &Waiter, deadline: Instant) -> Result<UnixStream, Error> {
    loop {
        let source = match socket::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(source) => source,
        };
        if let Some(what) = socket::obstacle(path) {
            return Err(UnusableSocket::new(path, SocketError::NotASocket { what }).into());
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
