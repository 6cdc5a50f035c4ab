//! Where running programs leave their control sockets, by `--file-prefix`.
//!
//! | who | folder |
//! |---|---|
//! | root | `/run/linecard/PREFIX` |
//! | others | `$XDG_RUNTIME_DIR/linecard/PREFIX`, or `/tmp/linecard-UID/PREFIX` |

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys;

/// The prefix of programs that were not given one.
pub const DEFAULT_PREFIX: &str = "linecard";

/// The folder of all programs of this user.
#[must_use]
pub fn root() -> PathBuf {
    let user = sys::user();
    if user == 0 {
        return "/run/linecard".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.join("linecard"),
        None => format!("/tmp/linecard-{user}").into(),
    }
}

/// The folder of programs with this prefix; [`create`] makes it.
///
/// ```
/// let folder = linecard_eal::runtime::folder("fe");
/// assert!(folder.is_absolute() && folder.ends_with("fe"));
/// ```
#[must_use]
pub fn folder(prefix: &str) -> PathBuf {
    root().join(prefix)
}

/// Makes the folder of a prefix, which only this user enters.
///
/// # Errors
/// It cannot be made, or somebody else could put things there.
pub fn create(prefix: &str) -> Result<PathBuf> {
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

fn failed(folder: &Path, source: io::Error) -> Error {
    Error::system(format!("make the folder {}", folder.display()), source)
}
