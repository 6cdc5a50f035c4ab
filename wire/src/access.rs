//! Permissions of a socket that this process creates: its mode and its group.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use crate::socket::{SocketError, needs_proc};
use crate::sys;

/// Readable and writable by the owner. With less, the creator could not connect.
const OWNER: u32 = 0o600;
/// All permissions of a socket; connecting requires write permission.
const ALL: u32 = 0o666;

/// The action of [`SocketError::Access`] that gives a socket its group.
pub(crate) const GIVE_GROUP: &str = "giving a socket its group, which takes a member of it or root";
/// The action of [`SocketError::Access`] that gives a socket its mode.
pub(crate) const GIVE_MODE: &str = "giving a socket its mode";

/// Who may connect to a socket that this process creates. The default is its owner only.
///
/// ```
/// use linecard_wire::socket::Access;
/// assert_eq!(Access::of(None, None)?, Access::default());
/// let group = Access::of(Some("0660"), Some("0"))?;
/// assert_eq!((group.mode(), group.group()), (0o660, Some(0)));
/// let refused = Access::of(Some("777"), None).unwrap_err();
/// assert_eq!(refused.problem, "'mode=777' is not possible");
/// # Ok::<(), linecard_wire::socket::AccessError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    mode: u32,
    group: Option<u32>,
}

/// An invalid `mode=` or `group=`: the problem and the remedy.
///
/// ```
/// use linecard_wire::socket::Access;
/// let refused = Access::of(None, Some("no-such-group-here")).unwrap_err();
/// assert_eq!(refused.to_string(), "there is no group 'no-such-group-here'; name one that 'getent group' lists");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct AccessError {
    /// The problem, as a clause.
    pub problem: String,
    /// What to do, as a clause.
    pub remedy: &'static str,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: OWNER, group: None }
    }
}

impl Access {
    /// Parses the texts of `mode=` (octal, 0600 to 0666) and `group=` (a name or a number). A group without a
    /// mode means mode 0660, so that the group may connect.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn of(mode: Option<&str>, group: Option<&str>) -> Result<Self, AccessError> {
        let group = group.map(group_of).transpose()?;
        let mode = match mode {
            None if group.is_some() => 0o660,
            None => OWNER,
            Some(text) => mode_of(text)?,
        };
        Ok(Self { mode, group })
    }

    /// The mode bits.
    #[must_use]
    pub const fn mode(self) -> u32 {
        self.mode
    }

    /// The group, unless it is the process's.
    #[must_use]
    pub const fn group(self) -> Option<u32> {
        self.group
    }

    /// Sets group and then mode of the socket at `path`, to which nobody can connect yet. At no time does it
    /// have more permissions than requested.
    pub(crate) fn give(self, path: &Path) -> Result<(), SocketError> {
        if self == Self::default() {
            return Ok(());
        }
        // Through a descriptor, because another file may get this name at any time.
        let open = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path);
        let lost = |source| SocketError::System { action: "finding a socket just made", source };
        let file = open.map_err(lost)?;
        if !file.metadata().is_ok_and(|data| data.file_type().is_socket()) {
            return Err(lost(io::ErrorKind::NotFound.into()));
        }
        let same = sys::by_descriptor(&file);
        let refused = |action| {
            move |source| {
                let source = sys::through_proc(source);
                if needs_proc(&source) {
                    return SocketError::NoProc;
                }
                SocketError::Access { action, source }
            }
        };
        if self.group.is_some() {
            chown(&same, None, self.group).map_err(refused(GIVE_GROUP))?;
        }
        fs::set_permissions(&same, Permissions::from_mode(self.mode)).map_err(refused(GIVE_MODE))
    }
}

fn mode_of(text: &str) -> Result<u32, AccessError> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    let mode =
        u32::from_str_radix(text, 8).ok().filter(|mode| octal && mode & !ALL == 0 && mode & OWNER == OWNER);
    mode.ok_or_else(|| AccessError {
        problem: format!("'mode={text}' is not possible"),
        remedy: "give the mode of a socket in octal, 0600 to 0666, as in mode=0660",
    })
}

fn group_of(text: &str) -> Result<u32, AccessError> {
    let number = text.parse().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()));
    // The largest number means "no change" to `chown`.
    number.or_else(|| sys::group(text)).filter(|group| *group != u32::MAX).ok_or_else(|| AccessError {
        problem: format!("there is no group '{text}'"),
        remedy: "name one that 'getent group' lists",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_sockets() {
        for (text, mode) in [("0600", 0o600), ("660", 0o660), ("0666", 0o666), ("0620", 0o620)] {
            assert_eq!(Access::of(Some(text), None).expect(text).mode(), mode);
        }
        for text in ["", "0", "60", "0060", "0400", "0700", "4660", "00660", "0x1b", "+660", "rw", "0968"] {
            let refused = Access::of(Some(text), None).expect_err(text);
            assert!(refused.problem.contains(&format!("'mode={text}'")), "{refused}");
        }
    }

    #[test]
    fn groups_are_names_or_numbers() {
        assert_eq!(
            Access::of(None, Some("root")).expect("everywhere"),
            Access { mode: 0o660, group: Some(0) }
        );
        assert_eq!(
            Access::of(Some("0600"), Some("7")).expect("a number"),
            Access { mode: 0o600, group: Some(7) }
        );
        for text in ["", "4294967295", "-1", "no group", "nul\0"] {
            Access::of(None, Some(text)).expect_err(text);
        }
    }
}
