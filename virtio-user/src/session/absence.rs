//! The search for an absent backend, and how often it is repeated.
//!
//! The search repeats quickly at first, since a restarted backend returns soon, and then ever more slowly, so
//! that a port whose backend is never started costs nothing. If the device comes with a file (its socket),
//! the directory of that file is watched meanwhile, and the port looks as soon as the file appears.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::backend::{Ready, Waiter};
use crate::thread::after;
use crate::vhost_user::RETRY;

/// How long the search repeats every [`RETRY`].
const EAGER: Duration = Duration::from_secs(2);
/// The longest pause between two attempts.
const RARELY: Duration = Duration::from_secs(1);

/// The time since the backend vanished, and the state of the search.
#[derive(Debug)]
pub(super) struct Absence {
    since: Instant,
    pause: Duration,
    watch: Option<FolderWatch>,
}

impl Absence {
    /// Begins at `now`.
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, pause: RETRY, watch: None }
    }

    /// Returns the pause between `now` and the next attempt.
    fn next_pause(&mut self, now: Instant) -> Duration {
        if now.saturating_duration_since(self.since) >= EAGER {
            self.pause = (self.pause * 2).min(RARELY);
        }
        self.pause
    }

    /// Waits until the next attempt is due. `file` is the file that the backend comes with.
    pub(super) fn wait(&mut self, waiter: &Waiter, file: Option<&Path>) {
        let now = Instant::now();
        let pause = self.next_pause(now);
        if pause == RETRY {
            return waiter.rest(after(RETRY));
        }
        if let (None, Some(file)) = (&self.watch, file)
            && let Ok(watch) = FolderWatch::new(file)
        {
            self.watch = Some(watch);
            // A file that appeared before the watch is found by one more attempt.
            return waiter.rest(after(RETRY));
        }
        self.wait_for_file(waiter, after(pause));
    }

    fn wait_for_file(&mut self, waiter: &Waiter, until: Instant) {
        while !waiter.stopped() && Instant::now() < until {
            let Some(watch) = &self.watch else { return waiter.rest(until) };
            waiter.wait(Some(watch.inotify.as_fd()), Ready::Read, Some(until));
            match watch.has_come() {
                // The file may exist before its owner listens.
                Ok(true) => return *self = Self::new(Instant::now()),
                // Limits the rate: others may create files in the directory without limit.
                Ok(false) => waiter.rest(after(RETRY).min(until)),
                Err(_) => self.watch = None,
            }
        }
    }
}

/// Reports when a file of a given name appears in its directory.
#[derive(Debug)]
struct FolderWatch {
    inotify: OwnedFd,
    name: OsString,
}

impl FolderWatch {
    fn new(file: &Path) -> io::Result<Self> {
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // Creation or renaming, and a change of permissions, which may follow the creation of a socket.
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, folder, flags)?;
        Ok(Self { inotify, name })
    }

    /// Returns whether the file has appeared since the last call.
    ///
    /// # Errors
    /// The directory is no longer watched.
    fn has_come(&self) -> io::Result<bool> {
        let mut bytes = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut bytes);
        let mut came = false;
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(came),
                Err(error) => return Err(error.into()),
            };
            if event.events().contains(ReadFlags::IGNORED) {
                return Err(io::ErrorKind::NotFound.into());
            }
            // If events were lost, the file's event may be among them.
            let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            came |= lost || name == Some(&*self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread::ControlThread;

    #[test]
    fn pauses_grow_after_a_while_up_to_a_second() {
        let start = Instant::now();
        let mut absence = Absence::new(start);
        for millis in [0, 20, 1980] {
            assert_eq!(absence.next_pause(start + Duration::from_millis(millis)), RETRY);
        }
        let pauses: Vec<_> = (0..8).map(|_| absence.next_pause(start + EAGER).as_millis()).collect();
        assert_eq!(pauses, [40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }

    #[test]
    fn a_file_of_that_name_is_noticed_and_no_other() {
        let folder = std::env::temp_dir().join(format!("linecard-absence-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let file = folder.join("socket");
        let watch = FolderWatch::new(&file).expect("a folder can be watched");
        assert!(!watch.has_come().expect("it is there"));
        std::fs::write(folder.join("other"), "").expect("a file");
        assert!(!watch.has_come().expect("it is there"));
        let socket = std::os::unix::net::UnixListener::bind(&file).expect("a socket");
        assert!(watch.has_come().expect("it is there"));
        assert!(!watch.has_come().expect("it is there"), "once");
        std::fs::remove_file(&file).expect("it is there");
        std::fs::rename(folder.join("other"), &file).expect("the same folder");
        assert!(watch.has_come().expect("it is there"), "a name that it is given");
        drop(socket);
        std::fs::remove_dir_all(&folder).expect("ours");
        assert!(watch.has_come().is_err(), "the folder is gone");
        assert!(FolderWatch::new(&file).is_err());
    }

    /// The appearance of the file ends the longest pause.
    #[test]
    fn a_file_that_appears_ends_the_wait() {
        let folder = std::env::temp_dir().join(format!("linecard-appears-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let file = folder.join("socket");
        let thread = ControlThread::start("absence").expect("a thread");
        let watch = FolderWatch::new(&file).expect("a folder can be watched");
        let mut absence = Absence { pause: RARELY, watch: Some(watch), ..Absence::new(Instant::now()) };
        let far = Duration::from_secs(600);
        let waited = thread.spawn(move |waiter| {
            absence.wait_for_file(waiter, after(far));
            absence.pause
        });
        std::fs::write(&file, "").expect("a file");
        let pause = thread.await_within(Duration::from_secs(60), &waited).expect("woken");
        assert_eq!(pause, RETRY, "it is looked for often again");
        std::fs::remove_dir_all(&folder).expect("ours");
    }
}
