//! The folder for the sockets of a demo or benchmark, and the removal of folders that killed processes left.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Error as IoError, ErrorKind, Read, Result as IoResult, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::Error;

/// A folder that only this user can enter; dropping it removes it with its content. It is locked as long as
/// its process lives, so that other processes can tell which folders are abandoned.
///
/// If this process is killed, a helper process removes the folder: this program, started with the argument
/// [`REMOVER`], which has to call [`run_remover`].
///
/// ```
/// # fn main() -> Result<(), linecard_apps_common::Error> {
/// # // This example is started again as the remover.
/// # if std::env::args().nth(1).as_deref() == Some(linecard_apps_common::REMOVER) {
/// #     return linecard_apps_common::run_remover();
/// # }
/// use linecard_apps_common::PrivateFolder;
/// let folder = PrivateFolder::new()?;
/// let path = folder.path().to_owned();
/// assert!(path.is_dir());
/// drop(folder);
/// assert!(!path.exists());
/// # Ok(())
/// # }
/// ```
pub struct PrivateFolder {
    path: PathBuf,
    _lock: File,
    /// Removes the folder when its input ends, if the folder still exists.
    _remover: Remover,
}

/// The hidden sub-command that reads paths of folders, each followed by a NUL, until the end of its input,
/// and then removes those folders.
pub const REMOVER: &str = "folder-end";

/// The helper process. If it cannot be started, the next start removes abandoned folders.
struct Remover(Option<Child>);

impl Remover {
    fn start() -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg(REMOVER).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a process group of its own, so that signals from the terminal do not reach it.
        Self(command.process_group(0).spawn().ok())
    }

    /// Announces a folder, before it is created: this process may be killed at any moment.
    fn watch(&mut self, path: &Path) {
        let input = self.0.as_mut().and_then(|child| child.stdin.as_mut());
        if let Some(input) = input {
            let _ = input.write_all(&[path.as_os_str().as_bytes(), b"\0"].concat());
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        if let Some(mut remover) = self.0.take() {
            drop(remover.stdin.take());
            let _ = remover.wait();
        }
    }
}

/// Runs the remover.
///
/// # Errors
/// The input cannot be read.
pub fn run_remover() -> Result<(), Error> {
    /// The number of attempts: other users of the folder, which are ending, may still create or remove files
    /// in it.
    const LOOKS: u32 = 20;
    let mut paths = Vec::new();
    std::io::stdin().lock().read_to_end(&mut paths).map_err(|source| Error {
        action: "the folder's name cannot be read".into(),
        source,
        remedy: "this command is for `linecard demo` and `linecard bench`",
    })?;
    let paths = paths.split(|byte| *byte == 0).map(|path| Path::new(OsStr::from_bytes(path)));
    let ours = |path: &&Path| path.file_name().and_then(OsStr::to_str).and_then(process_of).is_some();
    let folders: Vec<_> = paths.filter(ours).collect();
    for _ in 0..LOOKS {
        if !folders.iter().any(|folder| folder.exists()) {
            break;
        }
        folders.iter().for_each(|folder| remove_left(folder));
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

const PREFIX: &str = "linecard-demo-";
/// The path of a socket has at most 107 bytes (unix(7)); the names of folder and socket need up to 50.
const LONGEST_PLACE: usize = 57;

impl PrivateFolder {
    /// Creates a folder in one of the usual places for temporary files, and removes abandoned folders of this
    /// user there.
    ///
    /// # Errors
    /// None of these places is writable.
    pub fn new() -> Result<Self, Error> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places = [Some(std::env::temp_dir()), runtime, Some("/dev/shm".into()), Some("/var/tmp".into())];
        Self::in_one_of(places)
    }

    /// As [`new`](Self::new), in memory if such a place exists and `TMPDIR` names no other: for measurements
    /// of programs that normally keep their files in `/run`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_memory() -> Result<Self, Error> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let temporary = std::env::var_os("TMPDIR").map(PathBuf::from);
        Self::in_one_of([temporary, runtime, Some("/dev/shm".into()), Some(std::env::temp_dir())])
    }

    fn in_one_of(places: [Option<PathBuf>; 4]) -> Result<Self, Error> {
        let (mut failure, mut remover) = (None, Remover::start());
        for place in places.into_iter().flatten() {
            match make_in(&place, &mut remover) {
                Ok((path, lock)) => {
                    sweep(&place);
                    return Ok(Self { path, _lock: lock, _remover: remover });
                }
                Err(error) => failure = failure.or(Some((place, error))),
            }
        }
        let (place, source) = failure.unwrap_or_else(|| ("/tmp".into(), ErrorKind::NotFound.into()));
        Err(Error {
            action: format!("no folder for a socket can be made in {}", place.display()),
            source,
            remedy: "point TMPDIR at a folder that you may write",
        })
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for PrivateFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PrivateFolder").field(&self.path).finish()
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Creates a folder in `place` and locks it.
fn make_in(place: &Path, remover: &mut Remover) -> IoResult<(PathBuf, File)> {
    if place.as_os_str().len() > LONGEST_PLACE {
        let problem = "its name is too long for a socket in it";
        return Err(IoError::new(ErrorKind::InvalidFilename, problem));
    }
    let now = clock_gettime(ClockId::Monotonic);
    for attempt in 0..16 {
        let path = place.join(format!("{PREFIX}{}-{:x}", std::process::id(), now.tv_nsec + attempt));
        remover.watch(&path);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            // Before it was locked, a process in another PID namespace may have removed it as abandoned.
            Ok(()) => match lock(&path).filter(|lock| is_at(lock, &path)) {
                Some(lock) => return Ok((path, lock)),
                None => continue,
            },
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Opens and locks the folder itself, never the target of a link; returns `None` if another process has the
/// lock.
fn lock(path: &Path) -> Option<File> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = File::from(rustix::fs::open(path, how, Mode::empty()).ok()?);
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(folder)
}

/// Returns whether `path` still names `folder`.
fn is_at(folder: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    folder.metadata().ok().map(identity) == fs::symlink_metadata(path).ok().map(identity)
}

/// Removes folders of this user in `place` whose processes have ended.
fn sweep(place: &Path) {
    let me = rustix::process::geteuid().as_raw();
    // Nothing is removed in a place where other users could exchange a folder meanwhile.
    let safe =
        |meta: &fs::Metadata| meta.mode() & 0o1000 != 0 || meta.uid() == me && meta.mode() & 0o022 == 0;
    if !fs::metadata(place).is_ok_and(|meta| safe(&meta)) {
        return;
    }
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(process_of) else { continue };
        let path = entry.path();
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        remove_left(&path);
    }
}

/// Removes a folder that belongs to this user only and is not locked.
fn remove_left(path: &Path) {
    let me = rustix::process::geteuid().as_raw();
    // Held until the folder is removed, so that only one process removes it.
    let Some(folder) = lock(path) else { return };
    let ours = folder.metadata().is_ok_and(|meta| meta.uid() == me && meta.mode() & 0o077 == 0);
    if ours && is_at(&folder, path) {
        let _ = fs::remove_dir_all(path);
    }
}

/// The process ID in the name of a folder.
fn process_of(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    i64::from_str_radix(rest, 16).ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_away() {
        let folder = PrivateFolder::new().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("x"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_place_with_a_long_name_is_passed_over() {
        let place = std::env::temp_dir().join("x".repeat(100));
        assert!(
            make_in(&place, &mut Remover(None))
                .is_err_and(|e| e.kind() == std::io::ErrorKind::InvalidFilename)
        );
    }

    #[test]
    fn only_folders_of_the_dead_are_swept_away() {
        let scratch = PrivateFolder::new().unwrap();
        let place = scratch.path();
        // No process has this number (proc(5): pid_max is at most 2^22).
        let dead = |tail: &str| place.join(format!("linecard-demo-4999999-{tail}"));
        let make = |path: &Path, mode| fs::DirBuilder::new().mode(mode).create(path).unwrap();
        make(&dead("1"), 0o700);
        fs::write(dead("1").join("demo.sock"), "").unwrap();
        make(&dead("open"), 0o700);
        make(&dead("2"), 0o755);
        make(&dead("3"), 0o700);
        let _taken = lock(&dead("3")).unwrap();
        let living = place.join(format!("linecard-demo-{}-4", std::process::id()));
        make(&living, 0o700);
        let elsewhere = place.join("elsewhere");
        make(&elsewhere, 0o700);
        fs::write(elsewhere.join("precious"), "").unwrap();
        symlink(&elsewhere, dead("5")).unwrap();
        make(&dead("6"), 0o700);
        symlink(&elsewhere, dead("6").join("inside")).unwrap();
        sweep(place);
        let left = [dead("open"), dead("2"), dead("3"), living, dead("5"), elsewhere.join("precious")];
        assert!(left.iter().all(|path| fs::symlink_metadata(path).is_ok()));
        assert!(![dead("1"), dead("6")].iter().any(|path| fs::symlink_metadata(path).is_ok()));
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
        make(&dead("1"), 0o700);
        sweep(place);
        assert!(dead("1").exists(), "anybody could exchange what is in this place");
    }
}
