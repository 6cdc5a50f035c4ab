//! Directories for the control sockets of running programs, by `--file-prefix`.
//!
//! | user | directory |
//! |---|---|
//! | root | `/run/linecard/PREFIX` |
//! | others, and root of a user namespace that may not write there | `$XDG_RUNTIME_DIR/linecard/PREFIX`, or `/tmp/linecard-UID/PREFIX` |

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys;

/// The prefix of programs without `--file-prefix`.
pub const DEFAULT_PREFIX: &str = "linecard";

/// The directory for all programs of this user.
#[must_use]
pub fn root() -> PathBuf {
    let user = sys::user();
    if user == 0 && may_use(Path::new("/run/linecard")) {
        return "/run/linecard".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.join("linecard"),
        None => format!("/tmp/linecard-{user}").into(),
    }
}

/// Whether this process may write to a directory, or create it if it does not exist.
fn may_use(folder: &Path) -> bool {
    let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
    match writable(folder) {
        Err(rustix::io::Errno::NOENT) => folder.parent().is_some_and(|above| writable(above).is_ok()),
        found => found.is_ok(),
    }
}

/// The directory for programs with this prefix; [`create`] creates it.
///
/// ```
/// let folder = linecard_eal::runtime::folder("fe");
/// assert!(folder.is_absolute() && folder.ends_with("fe"));
/// ```
#[must_use]
pub fn folder(prefix: &str) -> PathBuf {
    root().join(prefix)
}

/// Creates the directory for a prefix, accessible only by this user.
///
/// # Errors
/// The directory cannot be created, or another user could create files in it.
pub fn create(prefix: &str) -> Result<PathBuf> {
    /// Programs that are ending may remove empty directories at the same time.
    const ATTEMPTS: usize = 5;
    let mut made = attempt(prefix);
    for _ in 1..ATTEMPTS {
        if !matches!(&made, Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::NotFound) {
            break;
        }
        made = attempt(prefix);
    }
    made
}

fn attempt(prefix: &str) -> Result<PathBuf> {
    let folder = folder(prefix);
    for part in [&root(), &folder] {
        let made = DirBuilder::new().mode(0o700).create(part);
        if let Err(source) = made
            && source.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(failed(part, source));
        }
        let found = std::fs::symlink_metadata(part).map_err(|source| failed(part, source))?;
        if !found.is_dir() || found.uid() != sys::user() || found.mode() & 0o022 != 0 {
            let text = "it is no folder of this user alone; remove it";
            return Err(failed(part, io::Error::new(io::ErrorKind::PermissionDenied, text)));
        }
    }
    Ok(folder)
}

/// Removes the directory for a prefix and its parent, if they are empty.
pub fn remove(prefix: &str) {
    // A directory with a socket in it stays.
    let _ = std::fs::remove_dir(folder(prefix)).and_then(|()| std::fs::remove_dir(root()));
}

fn failed(folder: &Path, source: io::Error) -> Error {
    Error::system(format!("make the folder {}", folder.display()), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_their_owners() {
        let prefix = format!("test-{}", std::process::id());
        let made = create(&prefix).expect("a folder");
        assert_eq!(made, folder(&prefix));
        let data = std::fs::metadata(&made).expect("it is there");
        assert_eq!((data.mode() & 0o777, data.uid()), (0o700, sys::user()));
        assert_eq!(create(&prefix).expect("again"), made);
        std::fs::remove_dir(&made).expect("empty");
        std::os::unix::fs::symlink("/tmp", &made).expect("a link");
        assert!(create(&prefix).is_err(), "somebody else's folder");
        std::fs::remove_file(&made).expect("the link");
        remove(&prefix);
        assert!(!made.exists());
    }
}
