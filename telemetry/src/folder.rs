//! Where DPDK's clients look for a program's socket, by `--file-prefix`.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::TelemetryError;

/// The name of the socket; further programs with the same prefix add `:1`, `:2` and so on.
pub(crate) const NAME: &str = "dpdk_telemetry.v2";

/// The folder of a prefix, by the rule of DPDK's EAL and of `dpdk-telemetry.py`: `$RUNTIME_DIRECTORY/dpdk/PREFIX`, and
/// without that variable `/var/run/dpdk/PREFIX` for root, `$XDG_RUNTIME_DIR/dpdk/PREFIX` or `/tmp/dpdk/PREFIX` for others.
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

/// Makes the folder of a prefix, which only this user enters.
///
/// # Errors
/// It cannot be made, or somebody else could put things there.
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

/// Removes a folder if it is empty and one of a prefix. The one above stays: DPDK makes its own folders there without
/// looking twice.
pub(crate) fn remove(folder: &Path) {
    if folder.parent() == Some(&root()) {
        let _ = std::fs::remove_dir(folder);
    }
}

/// Removes what killed programs of this user left: folders that hold nothing but telemetry sockets nobody listens at.
/// A folder of a DPDK program has other files, and is left alone.
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

/// Whether it is a socket of a program that is gone. One of a program that runs is of another kind than the one that asks,
/// which the kernel says whether that program listens already or not.
pub(crate) fn is_deserted(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = || std::os::unix::net::UnixStream::connect(path).err().map(|error| error.kind());
    socket && refused() == Some(io::ErrorKind::ConnectionRefused)
}
