//! The control socket: its path, and its hand-over between switches.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linecard::eal::runtime;
use linecard_switch::server::{Server, Service};

use crate::error::Error;

/// A listening socket that removes its path when it is dropped.
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the path, so that a successor's socket is not removed.
    identity: Option<(u64, u64)>,
}

/// The default path of the control socket for this user.
pub(crate) fn default_path() -> PathBuf {
    runtime::root().join("switch.sock")
}

impl Socket {
    /// The path at which a switch listens if `asked` is requested; `None` for no socket.
    pub(crate) fn place(asked: Option<&Path>) -> Option<PathBuf> {
        match asked {
            Some(path) if path.as_os_str() == "none" => None,
            Some(path) => Some(path.to_owned()),
            None => Some(default_path()),
        }
    }

    /// Listens at `asked` or at the default path; returns `None` if `none` was requested.
    ///
    /// # Errors
    /// Another switch uses the path, or listening fails.
    pub(crate) fn open(asked: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(path) = Self::place(asked) else { return Ok(None) };
        if asked.is_none() {
            runtime::create("switch")?;
        }
        clear(&path)?;
        let failed = |source| Error::System {
            action: format!("nobody can listen at {}", path.display()),
            source,
            remedy: "name another path with --socket, or `none`",
        };
        let listener = UnixListener::bind(&path).map_err(failed)?;
        // Users that connect before this are refused by the peer credentials.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let identity = identity(&path);
        Ok(Some(Self { path, listener, identity }))
    }

    /// The socket of an earlier switch at `path`, with device and inode of the path.
    pub(crate) fn taken_over(path: PathBuf, (listener, identity): (OwnedFd, Option<(u64, u64)>)) -> Self {
        Self { path, listener: UnixListener::from(listener), identity }
    }

    /// The socket of a killed switch, if `path` still names it.
    pub(crate) fn recovered(path: PathBuf, listener: OwnedFd, name: Option<(u64, u64)>) -> Option<Self> {
        let is_there = name.is_some() && identity(&path) == name;
        is_there.then(|| Self::taken_over(path, (listener, name)))
    }

    /// Returns a duplicate of the socket, with device and inode of its path, for a successor.
    ///
    /// # Errors
    /// No descriptor is available.
    pub(crate) fn to_leave(&self) -> Result<(OwnedFd, Option<(u64, u64)>), Error> {
        let listener = self.listener.as_fd().try_clone_to_owned().map_err(|source| Error::System {
            action: "the control socket cannot be duplicated".into(),
            source,
            remedy: "allow this user more descriptors",
        })?;
        Ok((listener, self.identity))
    }

    /// Leaves the path to a successor.
    pub(crate) fn leave_name(&mut self) {
        self.identity = None;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Serves clients that connect.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn serve(&self, service: Arc<Service>) -> Result<Server, Error> {
        let started = self.listener.try_clone().and_then(|listener| Server::start(listener, service));
        started.map_err(|source| Error::System {
            action: "the control socket cannot be served".into(),
            source,
            remedy: "allow this user more descriptors and threads",
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Not an error if it is gone already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Removes the socket of a switch that has ended.
///
/// # Errors
/// The path is not a socket, or another process listens there.
pub(super) fn clear(path: &Path) -> Result<(), Error> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        let problem =
            format!("{} is there and is no socket; name another path with --socket", path.display());
        return Err(Error::Failed(problem));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| Error::System {
                action: format!("a dead switch's socket {} cannot be removed", path.display()),
                source,
                remedy: "name another path with --socket",
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::Failed(format!(
            "another switch answers at {}; end it, or name another path with --socket",
            path.display()
        ))),
    }
}
