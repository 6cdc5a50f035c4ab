//! Network namespaces with names, for programs that are told theirs; gone with the test.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use super::skip;

/// A namespace of this test's own.
pub(crate) struct Netns(String);

impl Netns {
    /// `None`, loudly, where namespaces cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("linecard-{}-{number}", std::process::id());
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(output) if output.status.success() => Some(Self(name)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                skip(test, &format!("no network namespace ({why}); it needs root"));
                None
            }
            Err(error) => {
                skip(test, &format!("no program 'ip' ({error}); install iproute2"));
                None
            }
        }
    }

    /// What `netns=` and `ip -n` take.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs a program inside to its end.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]).args(arguments);
        command.output().expect("a program that is there")
    }

    /// `ip -n NAME` with these arguments; returns what it printed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let mut command = Command::new("ip");
        let output = command.args(["-n", &self.0]).args(arguments.split_whitespace()).output().expect("ip");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A veth pair, `one` here and `other` there, both up and without chatter of the kernel's.
    pub(crate) fn veth(&self, one: &str, there: &Self, other: &str) {
        self.ip(&format!("link add {one} type veth peer name {other} netns {}", there.name()));
        for (netns, name) in [(self, one), (there, other)] {
            netns.ip(&format!("link set {name} addrgenmode none"));
            netns.ip(&format!("link set {name} up"));
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
