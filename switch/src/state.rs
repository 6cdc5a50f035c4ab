//! Ports that survive a restart: a file with the parameters of each, which is always replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::{Code, FdbStatic, PortSpec, Problem, Span};

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct Content {
    /// The version of the layout; larger ones are not understood.
    version: u32,
    ports: Vec<serde_json::Value>,
    /// Earlier versions of the switch do not write this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fdb: Vec<FdbStatic>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    spans: Vec<Span>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    moves: BTreeMap<String, Vec<u16>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<String, String>,
}

/// The data kept for a restart.
///
/// ```
/// assert!(linecard_switch::state::Saved::default().ports.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Ports that were added by request.
    pub ports: Vec<PortSpec>,
    /// Static addresses, behind these ports or others.
    pub fdb: Vec<FdbStatic>,
    /// Mirroring sessions that were set by request.
    pub spans: Vec<Span>,
    /// The workers of the receive queues of ports with a moved queue, by the keys of these ports or others.
    pub moves: BTreeMap<String, Vec<u16>>,
    /// The network namespaces of containers as the switch saw them, by the keys of their ports, in the form
    /// of [`SocketOrigin::namespace`](crate::api::SocketOrigin::namespace).
    pub namespaces: BTreeMap<String, String>,
}

/// The version of the layout that is written.
const VERSION: u32 = 1;

/// Why the state cannot be read or written.
///
/// ```
/// use linecard_switch::state::{State, StateError};
/// let path = std::env::temp_dir().join(format!("switch-doc-bad-{}.json", std::process::id()));
/// std::fs::write(&path, "{")?;
/// assert!(matches!(State::at(&path).load(), Err(StateError::Unreadable { .. })));
/// # std::fs::remove_file(path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file was not written by a switch.
    #[error("{} is no state of a switch: {problem}; {}", path.display(), self.remedy())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The error of the operating system.
    #[error("the state in {} cannot be {action}: {source}; {}", path.display(), self.remedy())]
    System {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// The error.
        source: io::Error,
    },
}

impl StateError {
    /// Returns what to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "move it away to start without ports",
            Self::System { .. } => "name another file with --state",
        }
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        let (text, remedy) = (error.to_string(), error.remedy());
        let message = text.strip_suffix(remedy).and_then(|rest| rest.strip_suffix("; ")).unwrap_or(&text);
        Self::new(Code::Unavailable, message, remedy)
    }
}

/// The file in which ports are kept.
///
/// ```
/// use linecard_switch::api::{PortKind, PortSpec};
/// use linecard_switch::state::{Saved, State};
/// let path = std::env::temp_dir().join(format!("switch-doc-{}.json", std::process::id()));
/// let state = State::at(&path);
/// let ports = vec![PortSpec::new("a", PortKind::Tap { name: "lc0".into(), netns: None })];
/// let saved = Saved { ports, ..Saved::default() };
/// state.save(&saved)?;
/// assert_eq!(state.load()?, saved);
/// # std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct State {
    path: PathBuf,
}

impl State {
    /// The state in this file, which need not exist.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file exists.
    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Returns the state saved last; an empty state if there is no file.
    ///
    /// # Errors
    /// The file cannot be read or is invalid; nothing of it is used.
    pub fn load(&self) -> Result<Saved, StateError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
            Err(source) => return Err(self.system("read", source)),
        };
        let unreadable = |problem: String| StateError::Unreadable { path: self.path.clone(), problem };
        let mut content: Content =
            serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        if content.version != VERSION {
            return Err(unreadable(format!("its layout is {}, not {VERSION}", content.version)));
        }
        let read = |port| PortSpec::read(port).map_err(|problem| unreadable(problem.to_string()));
        let ports = std::mem::take(&mut content.ports).into_iter().map(read).collect::<Result<_, _>>()?;
        let Content { fdb, spans, moves, namespaces, .. } = content;
        Ok(Saved { ports, fdb, spans, moves, namespaces })
    }

    /// Replaces the file as a whole: a reader finds the old or the new state at any time, also after a crash.
    ///
    /// # Errors
    /// The file cannot be written: the old state remains.
    pub fn save(&self, saved: &Saved) -> Result<(), StateError> {
        self.write(saved).map_err(|source| self.system("written", source))
    }

    fn write(&self, saved: &Saved) -> io::Result<()> {
        let ports = saved.ports.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        let Saved { fdb, spans, moves, namespaces, .. } = saved.clone();
        let content = Content { version: VERSION, ports, fdb, spans, moves, namespaces };
        let mut text = serde_json::to_vec_pretty(&content)?;
        text.push(b'\n');
        let beside = self.path.with_extension("new");
        // Opened first: once the file is renamed, the new state is there and no failure may be reported.
        let parent = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(parent.unwrap_or(Path::new(".")))?;
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| fs::rename(&beside, &self.path));
        if renamed.is_err() {
            // A partly written file is of no use.
            let _ = fs::remove_file(&beside);
        }
        renamed?;
        // The rename is durable once its folder is synced.
        if let Err(error) = folder.sync_all() {
            tracing::warn!(
                "the state in {} is written, but a power failure may undo it, because its folder cannot be synced: {error}",
                self.path.display()
            );
        }
        Ok(())
    }

    fn system(&self, action: &'static str, source: io::Error) -> StateError {
        StateError::System { path: self.path.clone(), action, source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    use super::*;

    #[test]
    fn the_file_has_what_was_reported() {
        let folder = std::env::temp_dir().join(format!("switch-state-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let state = State::at(&folder.join("state.json"));
        let old = Saved::default();
        state.save(&old).expect("written");
        let new = Saved { moves: BTreeMap::from([("a".to_owned(), vec![1])]), ..Saved::default() };
        // Files in it can be replaced, but it cannot be opened, not even by root without these rights.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o300)).expect("our folder");
        let outcome = std::thread::scope(|scope| {
            let save = || {
                let none = CapabilitySet::empty();
                let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
                set_capabilities(None, none).expect("fewer rights");
                state.save(&new)
            };
            scope.spawn(save).join().expect("no panic")
        });
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("our folder");
        let want = if outcome.is_ok() { &new } else { &old };
        assert_eq!(&state.load().expect("a state"), want);
        fs::remove_dir_all(folder).expect("our folder");
    }
}
