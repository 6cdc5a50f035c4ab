//! Runs a test again in a user namespace, where an ordinary user may create interfaces.
//!
//! Only a process with a single thread can enter a user namespace, and a test harness has several. Therefore
//! `unshare` starts the test again, alone, and its result is the result of the first run.

use std::io::{self, Write};
use std::process::{Command, Output};

/// Set in a process that [`in_user_namespace`] started.
pub const IN_USER_NAMESPACE: &str = "LINECARD_IN_USER_NAMESPACE";

/// The result of the second run.
#[derive(Debug, PartialEq, Eq)]
pub enum Rerun {
    /// The test ran there and passed, or reported that it was skipped: there is nothing left to do.
    Done,
    /// A user namespace is not available, with the reason.
    Refused(String),
}

/// Checks whether an ordinary user may create a user namespace here.
///
/// # Errors
/// `unshare` is missing, the kernel refuses, or the process is already in one.
pub fn user_namespace() -> Result<(), String> {
    if std::env::var_os(IN_USER_NAMESPACE).is_some() {
        return Err("it runs in a user namespace already".into());
    }
    match Command::new("unshare").args(["--user", "--map-root-user", "true"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("no user namespace: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("no program 'unshare' ({error}); install util-linux")),
    }
}

/// Runs the test of this thread again, alone, as root of a new user namespace. `test` is its name without
/// modules, for harnesses that run tests on their main thread.
///
/// # Panics
/// The test failed there; the message contains its output.
#[must_use = "after `Done` the test is over"]
pub fn in_user_namespace(test: &str) -> Rerun {
    if let Err(why) = user_namespace() {
        return Rerun::Refused(why);
    }
    let Some(name) = crate::this_test(test) else {
        return Rerun::Refused("what is no test of its own cannot be run in a user namespace".into());
    };
    let program = std::env::current_exe().expect("a test knows its program");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(program);
    command.args(["--exact", &name, "--include-ignored", "--nocapture"]).env(IN_USER_NAMESPACE, "1");
    let output = command.output().expect("unshare ran a moment ago");
    report(&name, &output);
    Rerun::Done
}

fn report(name: &str, output: &Output) {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    // An unknown test name would succeed without running anything.
    let ran = output.status.success() && out.contains("1 passed");
    assert!(ran, "{name} failed in a user namespace of its own ({}):\n{out}\n{err}", output.status);
    for line in err.lines().filter(|line| line.starts_with("SKIPPED ")) {
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

/// Set for a program that is asked to list its tests. A program without a harness, such as a documentation
/// example, runs all its tests instead and must not ask itself again: that would start processes without end.
const LISTING: &str = "LINECARD_LISTING";

/// Returns the full name of the only test of this program with that name, modules ignored.
pub(crate) fn listed(test: &str) -> Option<String> {
    if std::env::var_os(LISTING).is_some() {
        return None;
    }
    let mut list = Command::new(std::env::current_exe().ok()?);
    let output = list.args(["--list", "--format=terse"]).env(LISTING, "1").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    only(&text, test)
}

fn only(list: &str, test: &str) -> Option<String> {
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let mut named = names.filter(|name| name.rsplit("::").next() == Some(test));
    let first = named.next()?;
    named.next().is_none().then(|| first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on its own when `in_user_namespace` starts it.
    #[test]
    fn a_test_becomes_root_of_a_namespace() {
        let name = "a_test_becomes_root_of_a_namespace";
        if std::env::var_os(IN_USER_NAMESPACE).is_some() {
            let map = std::fs::read_to_string("/proc/self/uid_map").expect("readable");
            let words: Vec<_> = map.split_whitespace().collect();
            assert_eq!((words[0], words[2]), ("0", "1"), "one user, who is root here");
            return;
        }
        match in_user_namespace(name) {
            Rerun::Done => {}
            Rerun::Refused(why) => crate::skip(name, &why),
        }
    }

    #[test]
    #[should_panic(expected = "the reason is told")]
    fn what_fails_there_fails_here() {
        let script = "echo the reason is told >&2; exit 101";
        let output = Command::new("sh").args(["-c", script]).output().expect("a shell");
        report("test", &output);
    }

    #[test]
    #[should_panic(expected = "failed in a user namespace")]
    fn a_run_of_no_test_is_a_failure() {
        let output = Command::new("sh").args(["-c", "echo '0 passed'"]).output().expect("a shell");
        report("test", &output);
    }

    #[test]
    fn a_name_is_completed_where_it_is_the_only_one() {
        let list = "tap::tests::ping: test\nxdp::tests::ping: test\ntap::tests::pong: test\nrun: benchmark\n";
        assert_eq!(only(list, "pong").as_deref(), Some("tap::tests::pong"));
        assert_eq!(only(list, "ping"), None, "two of them");
        assert_eq!(only(list, "run"), None, "no test");
    }
}
