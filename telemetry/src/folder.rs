//! The directory in which DPDK's clients look for a program's socket, by `--file-prefix`.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::TelemetryError;

/// The name of the socket; further programs with the same prefix append `:1`, `:2` and so on.
pub(crate) const NAME: &str = "dpdk_telemetry.v2";

/// The directory for a prefix, by the rule of DPDK's EAL and `dpdk-telemetry.py`:
/// `$RUNTIME_DIRECTORY/dpdk/PREFIX`, or without that variable `/var/run/dpdk/PREFIX` for root and
/// `$XDG_RUNTIME_DIR/dpdk/PREFIX` or `/tmp/dpdk/PREFIX` for others.
///
/// ```
/// assert!(linecard_telemetry::folder("fe").ends_with("dpdk/fe"));
/// ```
#[must_use]
pub fn folder(prefix: &str) -> PathBuf {
    root().join(prefix)
}

fn root() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = named("RUNTIME_DIRECTORY").unwrap_or_else(|| {
        if rustix::process::getuid().is_root() {
            return "/var/run".into();
        }
        named("XDG_RUNTIME_DIR").unwrap_or_else(|| "/tmp".into())
    });
    base.join("dpdk")
}

/// Creates the directory for a prefix, accessible only by this user.
///
/// # Errors
/// It cannot be created, or another user could create files in it.
pub(crate) fn create(prefix: &str) -> Result<PathBuf, TelemetryError> {
    let folder = folder(prefix);
    for part in [&root(), &folder] {
        let failed = |source| {
            let action = format!("the folder {} for the telemetry socket cannot be used", part.display());
            let remedy =
                "name a folder of your own in XDG_RUNTIME_DIR, or do without telemetry (--no-telemetry)";
            TelemetryError::system(action, source, remedy)
        };
        if let Err(source) = DirBuilder::new().mode(0o700).create(part)
            && source.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(failed(source));
        }
        let found = std::fs::symlink_metadata(part).map_err(failed)?;
        let own = found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o022 == 0;
        if !found.is_dir() || !own {
            let text = "it is no folder of this user alone";
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, text)));
        }
    }
    Ok(folder)
}

/// Removes a directory if it is empty and belongs to a prefix. Its parent stays, because DPDK creates its own
/// directories there without checking twice.
pub(crate) fn remove(folder: &Path) {
    if folder.parent() == Some(&root()) {
        let _ = std::fs::remove_dir(folder);
    }
}

/// Removes what killed programs of this user left: directories that only contain telemetry sockets on which
/// no program listens. The directory of a DPDK program contains other files and is not removed.
pub(crate) fn sweep() {
    for prefix in entries(&root()) {
        let names = entries(&prefix);
        if !names.is_empty() && names.iter().all(|path| is_telemetry(path) && is_deserted(path)) {
            names.iter().for_each(|path| drop(std::fs::remove_file(path)));
            let _ = std::fs::remove_dir(&prefix);
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn is_telemetry(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(NAME))
}

/// Whether this is a socket of a program that has ended. The socket of a running program has another type
/// than the one that connects, and the kernel reports this whether or not that program listens already.
pub(crate) fn is_deserted(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = || std::os::unix::net::UnixStream::connect(path).err().map(|error| error.kind());
    socket && refused() == Some(io::ErrorKind::ConnectionRefused)
}
