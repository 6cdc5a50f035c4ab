//! Descriptors passed to this process when it was started: by a service manager
//! (`sd_listen_fds_with_names(3)`), or by a process that keeps descriptors for this one.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

/// The first descriptor that a service manager passes (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// The name of a descriptor without a name, as in systemd.
const UNKNOWN: &str = "unknown";
/// The variable in which a process that keeps descriptors for this one gives its own PID and what it passes:
/// `PID NUMBER:NAME NUMBER:NAME …`. The numbers are arbitrary, so that no descriptors have to be moved.
pub const KEPT: &str = "LINECARD_KEPT";

/// A descriptor passed to this process, with its name.
#[derive(Debug)]
pub struct Inherited {
    /// `unknown` if it has no name.
    pub name: String,
    /// The descriptor, which is closed when another program is executed.
    pub fd: OwnedFd,
}

/// Takes the descriptors that were passed to this process; a second call returns none.
///
/// ```
/// // `cargo test` passes none.
/// assert!(linecard_eal::inherited::take().is_empty());
/// ```
#[must_use]
pub fn take() -> Vec<Inherited> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let (kept, listed) = (std::env::var(KEPT).ok(), listed());
    let passed = kept.and_then(|text| kept_by(&text, std::os::unix::process::parent_id())).unwrap_or(listed);
    let take = |(number, name)| Some(Inherited { name, fd: sys::inherited(number)? });
    passed.into_iter().filter_map(take).collect()
}

/// The numbers and names of the descriptors that a service manager passes.
fn listed() -> Vec<(i32, String)> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).ok();
    if number("LISTEN_PID") != own {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, i32::MAX - FIRST);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(UNKNOWN.to_owned()));
    (FIRST..FIRST + count).zip(names).collect()
}

/// The descriptors that `text`, in the format of [`KEPT`], passes to a child of `parent`; `None` if it is for
/// the child of another process.
fn kept_by(text: &str, parent: u32) -> Option<Vec<(i32, String)>> {
    let mut words = text.split_ascii_whitespace();
    let keeper: u32 = words.next()?.parse().ok()?;
    let passed = |word: &str| {
        let (number, name) = word.split_once(':')?;
        let number = number.parse().ok().filter(|number| *number >= FIRST)?;
        Some((number, name.to_owned()))
    };
    let mut passed: Vec<(i32, String)> = words.filter_map(passed).collect();
    passed.sort();
    passed.dedup_by_key(|(number, _)| *number);
    (keeper == parent).then_some(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_keeper_passes_is_read() {
        let a = |number| (number, "a".to_owned());
        assert_eq!(kept_by("7 12:a 5:a", 7), Some(vec![a(5), a(12)]));
        assert_eq!(kept_by("7", 7), Some(vec![]));
        assert_eq!(kept_by("7 12:a", 8), None, "another's child");
        assert_eq!(kept_by("7 12:a 12:b 2:a -1:a x:a 9 :a 99999999999:a", 7), Some(vec![a(12)]));
        assert_eq!(kept_by("", 7), None);
    }
}
