//! How a port comes to a connection: it connects, or it listens.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_wire::close_elsewhere;

use crate::error::Error;
use crate::reactor::{Task, after};
use crate::sys::{self, Ready};

/// Between two tries to connect.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// The socket of a port in server mode; its file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the name we made, so that a successor's is left alone.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at `path`, readable and writable by its owner only: who connects gets our memory. A socket that nobody
    /// listens to any more is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let listen = |source| Error::Listen { path: path.to_owned(), source };
        let socket = match sys::listen(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path)?;
                sys::listen(path).map_err(listen)?
            }
            other => other.map_err(listen)?,
        };
        Ok(Self { socket, path: path.to_owned(), identity: identity(path) })
    }

    /// The next backend that connects.
    pub(crate) async fn accept(&self, task: &Task, stop: impl Fn() -> bool) -> Result<UnixStream, Error> {
        loop {
            if stop() {
                return Err(Error::Stopped);
            }
            match self.socket.accept() {
                Ok((stream, _)) => return Ok(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    task.wait(Some(self.socket.as_fd()), Ready::Read, None).await;
                }
                // A backend that left before it was accepted, or no descriptors left: later may be better.
                Err(_) => task.wait(None, Ready::Read, Some(after(RETRY))).await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Connections that nobody accepted end with it, and with them what was sent over them.
        if let Ok(last) = self.socket.try_clone() {
            close_elsewhere(last.into());
        }
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Removes the socket of a process that has ended; anything else stays and is an error.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let listen = |source| Error::Listen { path: path.to_owned(), source };
    let meta = std::fs::symlink_metadata(path).map_err(listen)?;
    if let Some(what) = no_socket(&meta) {
        return Err(Error::NoSocket { path: path.to_owned(), what });
    }
    match sys::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(listen)
        }
        _ => Err(Error::InUse { path: path.to_owned() }),
    }
}

/// What it is, when it is no socket.
fn no_socket(meta: &std::fs::Metadata) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    match meta.file_type() {
        kind if kind.is_socket() => None,
        kind if kind.is_dir() => Some("a folder"),
        kind if kind.is_file() => Some("a file"),
        kind if kind.is_symlink() => Some("a link"),
        _ => Some("a device or a pipe"),
    }
}

/// Connects to `path`, trying again until `deadline`.
pub(crate) async fn connect(path: &Path, task: &Arc<Task>, deadline: Instant) -> Result<UnixStream, Error> {
    loop {
        match sys::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error)
                if error.kind() == ErrorKind::ConnectionRefused
                    && let Some(what) = std::fs::metadata(path).ok().as_ref().and_then(no_socket) =>
            {
                return Err(Error::NoSocket { path: path.to_owned(), what });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(Error::Connect { path: path.to_owned(), source });
            }
            Err(_) => task.wait(None, Ready::Read, Some(after(RETRY).min(deadline))).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_is_its_owners_alone_and_a_successors_stays() {
        let path = std::env::temp_dir().join(format!("lc-vu-owner-{}.sock", std::process::id()));
        let first = Listener::bind(&path).expect("a socket");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(sys::connect(&path).is_ok(), "and it listens");
        std::fs::remove_file(&path).expect("ours");
        let second = Listener::bind(&path).expect("a socket");
        drop(first);
        assert!(sys::connect(&path).is_ok(), "the second's name is still there");
        drop(second);
        assert!(!path.exists());
    }
}
