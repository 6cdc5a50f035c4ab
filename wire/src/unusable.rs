//! An error for a socket that cannot be used, with one wording for all callers.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::access::{GIVE_GROUP, GIVE_MODE};
use crate::socket::SocketError;

/// A socket that cannot be created or connected to: [the problem](Self::problem) and [the
/// remedy](Self::remedy).
///
/// ```
/// use linecard_wire::socket::{Listener, UnusableSocket};
/// let folder = std::env::temp_dir();
/// let error = Listener::bind(&folder).map_err(|reason| UnusableSocket::new(&folder, reason)).expect_err("not a socket");
/// assert!(error.to_string().contains("a folder, not a socket"));
/// ```
#[derive(Debug)]
pub struct UnusableSocket {
    /// The requested path.
    pub path: PathBuf,
    /// Why the socket cannot be used.
    pub reason: SocketError,
}

impl UnusableSocket {
    /// An error about the socket at `path`.
    pub fn new(path: impl AsRef<Path>, reason: SocketError) -> Self {
        Self { path: path.as_ref().to_path_buf(), reason }
    }

    /// The problem, as one clause.
    #[must_use]
    pub fn problem(&self) -> String {
        let path = self.path.display();
        match &self.reason {
            SocketError::PathLength { len, max } => {
                format!("the socket path {path} has {len} bytes, at most {max} are possible")
            }
            SocketError::NotASocket { what } => format!("{path} is {what}, not a socket"),
            SocketError::InUse => format!("another process listens at socket {path}"),
            SocketError::NoProc => format!("socket {path} needs /proc, which is not mounted here"),
            SocketError::Access { action, source } => format!("socket {path}: {action}: {source}"),
            SocketError::NotListening { what } => format!("what was passed for {path} is {what}"),
            SocketError::System { action, source } => match source.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => {
                    format!("the directory of socket {path} does not exist, or takes no sockets")
                }
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    format!("no permission to make socket {path}")
                }
                _ => format!("{action} for {path} failed: {source}"),
            },
        }
    }

    /// What to do, as one clause.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match &self.reason {
            SocketError::PathLength { .. } => "choose a shorter one",
            SocketError::NotASocket { .. } => "give the path of a socket, or one where there is nothing yet",
            SocketError::InUse => "end it, or choose another path",
            SocketError::NoProc => "mount it with 'mount -t proc proc /proc'",
            SocketError::Access { action: GIVE_GROUP, .. } => "name a group of this user's with group=",
            SocketError::Access { action: GIVE_MODE, .. } => {
                "leave out mode= and group=, or use a directory of another file system"
            }
            // An abstract name.
            SocketError::Access { .. } => "leave out mode= and group=, or use a path",
            SocketError::NotListening { .. } => "pass a Unix stream socket that listens",
            SocketError::System { source, .. } => match source.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => "create it, or choose another",
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "use a directory of your own",
                _ => "check the limits of this process",
            },
        }
    }
}

/// Writes the problem only; callers add the remedy.
impl std::fmt::Display for UnusableSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem())
    }
}

impl std::error::Error for UnusableSocket {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            SocketError::Access { source, .. } | SocketError::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{Access, Listener};

    #[test]
    fn a_group_is_asked_for_only_if_the_group_was_refused() {
        let name = format!("@wire-remedy-{}", std::process::id());
        let access = Access::of(Some("0666"), None).expect("a mode");
        let reason = Listener::bind_for(name.as_ref(), access).expect_err("an abstract name has no mode");
        let error = UnusableSocket::new(&name, reason);
        let problem = format!("socket {name}: giving a socket its mode or group: an abstract name has none");
        assert_eq!(error.problem(), problem);
        assert_eq!(error.remedy(), "leave out mode= and group=, or use a path");
        let remedy = |action| {
            let source = ErrorKind::PermissionDenied.into();
            UnusableSocket::new("/run/socket", SocketError::Access { action, source }).remedy()
        };
        assert_eq!(remedy(GIVE_GROUP), "name a group of this user's with group=");
        assert_eq!(
            remedy(GIVE_MODE),
            "leave out mode= and group=, or use a directory of another file system"
        );
    }
}
