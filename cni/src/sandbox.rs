//! Network namespaces for checks and demonstrations, which end with this process.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Code, Error};
use crate::netns::Netns;

/// A network namespace that exists as long as this value, and at most as long as this process, however that
/// ends.
///
/// ```no_run
/// use linecard_cni::Sandbox;
/// let pod = Sandbox::new()?;
/// println!("CNI_NETNS={}", pod.path().display());
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Debug)]
pub struct Sandbox {
    child: Child,
    path: PathBuf,
}

impl Sandbox {
    /// Creates a namespace with only a loopback interface, which is up.
    ///
    /// # Errors
    /// This user may not create one, or a required program is missing.
    pub fn new() -> Result<Self, Error> {
        let failed = |why: String| {
            Error::new(
                Code::Namespace,
                format!("making a network namespace: {why}"),
                "run as root, or in a user namespace: unshare --user --map-root-user --net --mount …",
            )
        };
        // The child ends when its standard input is closed, at the latest by the kernel when this process
        // ends.
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up 2>/dev/null; echo; exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("no program 'unshare' ({error}); install util-linux")))?;
        let mut ready = [0];
        let told = child.stdout.as_mut().map(|out| out.read_exact(&mut ready));
        if !matches!(told, Some(Ok(()))) {
            let mut why = String::new();
            let _ = child.stderr.as_mut().map(|stderr| stderr.read_to_string(&mut why));
            let _ = child.wait();
            return Err(failed(why.trim().to_owned()));
        }
        let path = format!("/proc/{}/ns/net", child.id()).into();
        Ok(Self { child, path })
    }

    /// Returns the path to pass as `CNI_NETNS`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a thread inside the namespace; programs that it starts are inside too.
    ///
    /// # Errors
    /// The namespace may not be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        Self::run_in(&self.path, work)
    }

    /// As [`run`](Self::run), in an existing namespace at `netns`.
    ///
    /// # Errors
    /// It is not a namespace, or may not be entered.
    pub fn run_in<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        Netns::open(netns)?.run(work)
    }

    /// Returns whether there is an interface of that name inside.
    ///
    /// # Errors
    /// The namespace may not be entered.
    pub fn has_interface(&self, name: &str) -> Result<bool, Error> {
        Netns::open(&self.path)?.has_interface(name)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
