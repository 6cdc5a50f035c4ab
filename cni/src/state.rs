//! The plugin's records: one file per attachment, written as a whole or not at all, in a folder that only its owner may enter; and a
//! lock while a plugin works on an attachment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::environment::Attachment;
use crate::error::{Code, Error};
use crate::netns::Identity;
use crate::step;

/// How long a plugin waits for another one that works on the same attachment.
const PATIENCE: Duration = Duration::from_secs(30);
const RECORD: &str = ".json";
const DETACHED: &str = ".detached";
const LOCK: &str = ".lock";

/// The record of one attachment. It is written before the first step of ADD, so that the steps of a killed plugin can be undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) attachment: Attachment,
    pub(crate) network: String,
    /// ADD finished.
    pub(crate) complete: bool,
    /// The boot ID: the identity of a namespace is only valid until the next boot.
    pub(crate) boot: String,
    pub(crate) netns: Option<Identity>,
    pub(crate) switch: PathBuf,
    /// The folder created for the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_info: Option<PathBuf>,
    /// The namespace in which a kernel interface was created beside the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<PathBuf>,
    /// The TCP and UDP ports of the fast port if it shares its address with that interface, which is a tap then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ports: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<Mac>,
    /// The parameters of the port, for CHECK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<serde_json::Value>,
    /// The parameters of the tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_port: Option<serde_json::Value>,
}

/// A port that could not be removed because the switch was not running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Detached {
    pub(crate) port: String,
    pub(crate) switch: PathBuf,
}

/// The folder of records.
#[derive(Debug)]
pub(crate) struct State {
    folder: PathBuf,
}

/// The lock on an attachment: while it exists, no other plugin works on it. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Lock {
    /// `None` if the whole folder is locked.
    path: Option<PathBuf>,
    _file: File,
    _folder: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed before the lock is released: a plugin that waits for it then sees that the file has no name and creates a new one.
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl State {
    /// Opens the records in `folder`, which is created if it does not exist.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        private_folder(folder)?;
        Ok(Self { folder: folder.into() })
    }

    /// As [`open`](Self::open), but `None` if the folder does not exist.
    pub(crate) fn open_existing(folder: &Path) -> Option<Self> {
        folder.is_dir().then(|| Self { folder: folder.into() })
    }

    fn path(&self, name: impl std::fmt::Display, suffix: &str) -> PathBuf {
        self.folder.join(format!("{name}{suffix}"))
    }

    /// Waits until no other plugin works on `attachment`, which is an [`Attachment`] or another object with a unique name.
    pub(crate) fn lock(&self, attachment: &impl std::fmt::Display) -> Result<Lock, Error> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(lock) = self.try_lock(&attachment.to_string())? {
                return Ok(lock);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(Error::new(
            Code::TryAgain,
            format!("another plugin has worked on {attachment} for {} s", PATIENCE.as_secs()),
            "try again later",
        ))
    }

    /// Takes the lock of that name; `None` while another plugin has it.
    ///
    /// The lock is an exclusive lock on a file of that name plus a shared lock on the folder. If no file can be created because the
    /// disk is full, it is an exclusive lock on the whole folder, so that removing things still works and frees space.
    fn try_lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        let path = self.path(name, LOCK);
        let failed = |error: io::Error| {
            Error::io(format!("locking {}", path.display()), &error, "free space, or see the folder's rights")
        };
        let folder = File::open(&self.folder).map_err(failed)?;
        let locked = |file: &File, how| match rustix::fs::flock(file, how) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(failed(error.into())),
        };
        let file = match create(&path, false) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                let whole = locked(&folder, FlockOperation::NonBlockingLockExclusive)?;
                let file = folder.try_clone().map_err(failed)?;
                return Ok(whole.then(|| Lock { path: None, _file: file, _folder: folder }));
            }
            Err(error) => return Err(failed(error)),
        };
        step::done("a lock's file is there");
        if !locked(&folder, FlockOperation::NonBlockingLockShared)?
            || !locked(&file, FlockOperation::NonBlockingLockExclusive)?
        {
            return Ok(None);
        }
        // The last owner may have removed the file between the two calls above, and another plugin may hold a new one. No `Lock` is
        // made here, because it would remove the other plugin's file.
        Ok(same_file(&file, &path).then(|| Lock { path: Some(path), _file: file, _folder: folder }))
    }

    pub(crate) fn read(&self, attachment: &Attachment) -> Option<Record> {
        read(&self.path(attachment, RECORD))
    }

    pub(crate) fn write(&self, record: &Record) -> Result<(), Error> {
        write(&self.path(&record.attachment, RECORD), record)
    }

    /// Removes the record of an attachment, if there is one; the caller holds the lock.
    pub(crate) fn remove(&self, attachment: &Attachment) -> Result<(), Error> {
        // A port to be removed later stays recorded; only a partly written record of it goes, because `sweep` skips locked names.
        let _ = fs::remove_file(beside(&self.path(attachment, DETACHED)));
        remove(&self.path(attachment, RECORD))?;
        step::done("a record is removed");
        Ok(())
    }

    /// Every attachment that has a record, whether the record can be read or not.
    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        let name = |name: &str| {
            let (container, ifname) = name.strip_suffix(RECORD)?.split_once('@')?;
            Attachment::new(container, ifname).ok()
        };
        self.names().iter().filter_map(|entry| name(entry)).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Records a port that has to be removed when the switch runs again.
    pub(crate) fn detach_later(&self, detached: &Detached) -> Result<(), Error> {
        write(&self.path(&detached.port, DETACHED), detached)
    }

    /// Calls `removed` for each port that was to be removed later, and forgets those for which it succeeds. Ports on which another
    /// plugin works are left to that plugin.
    pub(crate) fn catch_up(&self, mut removed: impl FnMut(&Detached) -> bool) {
        for name in self.names().iter().filter_map(|name| name.strip_suffix(DETACHED)) {
            let Ok(Some(_lock)) = self.try_lock(name) else { continue };
            let path = self.path(name, DETACHED);
            let done = match read::<Detached>(&path) {
                Some(detached) => removed(&detached),
                None => true,
            };
            step::done("a port was removed later");
            if done {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Forgets that the port of `attachment` was to be removed later; returns whether it was.
    pub(crate) fn was_detached(&self, attachment: &Attachment) -> bool {
        fs::remove_file(self.path(attachment, DETACHED)).is_ok()
    }

    /// As [`was_detached`](Self::was_detached), for a port with any name.
    pub(crate) fn forget_detached(&self, port: &impl std::fmt::Display) {
        let _ = fs::remove_file(self.path(port, DETACHED));
    }

    /// Removes the leftovers of killed plugins: partly written files, and lock files without an owner.
    pub(crate) fn sweep(&self) {
        for name in self.names() {
            let half = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
            let of = match half {
                Some(name) => name.strip_suffix(RECORD).or_else(|| name.strip_suffix(DETACHED)),
                None => name.strip_suffix(LOCK),
            };
            // Dropping the lock removes its file.
            let Some(Ok(Some(_lock))) = of.map(|of| self.try_lock(of)) else { continue };
            if half.is_some() {
                let _ = fs::remove_file(self.folder.join(&name));
            }
            step::done("a file was swept");
        }
    }
}

/// The ID of this boot.
pub(crate) fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Creates `folder`, which only its owner may enter, and its parents; fails if `folder` is a symbolic link, or if it exists and another
/// user could put files into it.
pub(crate) fn private_folder(folder: &Path) -> Result<(), Error> {
    private_folder_for(folder, None)
}

/// As [`private_folder`], but a folder that exists may also be that of `user`.
pub(crate) fn private_folder_for(folder: &Path, user: Option<u32>) -> Result<(), Error> {
    let failed = |error: io::Error| {
        let remedy = "run the plugin as root, or name another folder in the configuration";
        Error::io(format!("making the folder {}", folder.display()), &error, remedy)
    };
    if let Some(above) = folder.parent() {
        // Other users need to reach sockets below it; the folders of the sockets control who may use them.
        DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => step::done("a private folder is there"),
    }
    let own = rustix::process::geteuid().as_raw();
    match fs::symlink_metadata(folder) {
        Ok(meta) if meta.is_dir() && meta.mode() & 0o022 != 0 => Err(Error::new(
            Code::Io,
            format!("other users may write to {}", folder.display()),
            "run chmod go-w on it, or name another folder in the configuration",
        )),
        Ok(meta) if meta.is_dir() && meta.uid() != own && Some(meta.uid()) != user => Err(Error::new(
            Code::Io,
            format!("{} belongs to user {}, not to user {own}", folder.display(), meta.uid()),
            "remove it, or name another folder in the configuration",
        )),
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::new(
            Code::Io,
            format!("{} is no folder", folder.display()),
            "remove it, or name another folder in the configuration",
        )),
        Err(error) => Err(failed(error)),
    }
}

fn create(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    match new {
        true => options.create_new(true).open(path),
        false => options.create(true).truncate(false).open(path),
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => identity(held) == identity(named),
        _ => false,
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The temporary name of a file that is being written.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!(".{name}.new"))
}

/// Writes `value` to a temporary file and renames it to `path` when it is complete.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let failed = |error: io::Error| {
        Error::io(format!("writing {}", path.display()), &error, "free space, or see the folder's rights")
    };
    let new = beside(path);
    let bytes = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    let written = || -> io::Result<()> {
        // Not reused: a killed plugin may have left it, or somebody may have made it a link.
        let _ = fs::remove_file(&new);
        let mut file = create(&new, true)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        step::done("a file is written beside");
        fs::rename(&new, path)?;
        step::done("a file is in its place");
        Ok(())
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}

/// Removes a file that may not exist, and its partly written version.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let _ = fs::remove_file(beside(path));
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::io(format!("removing {}", path.display()), &error, "remove it by hand"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("linecard-cni-state-{name}-{}", std::process::id()))
    }

    fn record(attachment: &Attachment) -> Record {
        Record {
            attachment: attachment.clone(),
            network: "fast".into(),
            complete: false,
            boot: boot(),
            netns: None,
            switch: "/run/s".into(),
            folder: None,
            device_info: None,
            link: None,
            ports: None,
            mac: None,
            port: None,
            kernel_port: None,
        }
    }

    #[test]
    fn records_come_back_and_leave_nothing() {
        let folder = folder("records");
        let state = State::open(&folder).expect("made");
        let attachment = Attachment::new("box", "net1").expect("legal");
        let lock = state.lock(&attachment).expect("free");
        state.write(&record(&attachment)).expect("written");
        assert_eq!(state.read(&attachment), Some(record(&attachment)));
        assert_eq!(state.attachments(), std::slice::from_ref(&attachment));
        fs::write(state.path(&attachment, RECORD), "{").expect("cut off");
        assert_eq!(state.read(&attachment), None);
        assert_eq!(state.attachments().len(), 1, "an unreadable record is one all the same");
        state.remove(&attachment).expect("removed");
        state.remove(&attachment).expect("removed already");
        drop(lock);
        fs::write(folder.join(".x.json.new"), "").expect("a killed plugin's");
        fs::write(folder.join("x@y.lock"), "").expect("a killed plugin's");
        state.sweep();
        fs::remove_dir(&folder).expect("empty");
    }

    #[test]
    fn one_works_at_a_time() {
        let folder = folder("lock");
        let attachment = Attachment::new("box", "net1").expect("legal");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let state = State::open(&folder).expect("made");
                    for _ in 0..20 {
                        let _lock = state.lock(&attachment).expect("in time");
                        let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(others, 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        fs::remove_dir(&folder).expect("empty");
    }

    /// A plugin opens the lock's file, its owner lets go, and a third plugin makes a new one before the first has locked.
    #[cfg(feature = "steps")]
    #[test]
    fn who_comes_late_to_a_lock_leaves_the_next_owners_file() {
        use std::cell::RefCell;
        use std::rc::Rc;

        let folder = folder("late");
        let state = State::open(&folder).expect("made");
        let attachment = Attachment::new("box", "net1").expect("legal");
        let held = Rc::new(RefCell::new(Some(state.lock(&attachment).expect("free"))));
        let (owner, others) = (Rc::clone(&held), State::open(&folder).expect("there"));
        let mut once = true;
        step::watch(move |_| {
            if std::mem::take(&mut once) {
                drop(owner.take());
                *owner.borrow_mut() = others.try_lock("box@net1").expect("a folder of ours");
            }
        });
        assert!(state.try_lock("box@net1").expect("a folder of ours").is_none(), "the third has it");
        assert!(held.borrow().is_some(), "the third has it");
        assert!(state.path(&attachment, LOCK).exists(), "the lock's file is its owner's to remove");
        drop(held.take());
        fs::remove_dir(&folder).expect("empty");
    }

    #[test]
    fn a_folder_of_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = folder("others");
        private_folder(&folder).expect("made");
        for (mode, good) in [(0o700, true), (0o755, true), (0o720, false), (0o1777, false)] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("our folder");
            assert_eq!(private_folder(&folder).is_ok(), good, "{mode:o}");
        }
        fs::remove_dir(&folder).expect("empty");
        let own = rustix::process::geteuid().as_raw();
        let user = fs::metadata("/proc/1").expect("a process").uid();
        // A folder that another user has, wherever the test runs as root or not.
        if user != own {
            let problem = private_folder(Path::new("/proc/1")).expect_err("another user's");
            assert!(problem.msg.contains("belongs to user"), "{problem}");
            private_folder_for(Path::new("/proc/1"), Some(user)).expect("that user's");
        }
    }

    #[test]
    fn links_are_not_followed() {
        let folder = folder("links");
        let state = State::open(&folder).expect("made");
        let attachment = Attachment::new("box", "net1").expect("legal");
        let victim = folder.join("victim");
        fs::write(&victim, "precious").expect("written");
        for suffix in [".box@net1.json.new", "box@net1.json", "box@net1.lock"] {
            std::os::unix::fs::symlink(&victim, folder.join(suffix)).expect("a link");
        }
        assert!(state.lock(&attachment).is_err());
        state.write(&record(&attachment)).expect("written beside");
        assert_eq!(fs::read_to_string(&victim).expect("there"), "precious");
        assert_eq!(state.read(&attachment), Some(record(&attachment)));
        let link = folder.with_extension("link");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        assert!(private_folder(&link).expect_err("a link").msg.contains("is no folder"));
        fs::remove_file(link).expect("removed");
        fs::remove_dir_all(folder).expect("removed");
    }
}
