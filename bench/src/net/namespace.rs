//! A network namespace that exists as long as a child process, which waits for the end of its input.

use std::io;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use linecard::netdev::{Interface, Namespace};

use super::cell::Kind;
use crate::Error;
use crate::loopback::console::Failure;

/// The port's interface, and the other end of its veth pair.
pub(super) const NEAR: &str = "lcnear";
pub(super) const FAR: &str = "lcfar";
const PORT: &str = "bench net";
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace. The holder is a child that reads from our pipe, so it exits when this process ends.
pub(super) struct TestNamespace {
    holder: Child,
    namespace: Namespace,
    path: String,
}

impl TestNamespace {
    /// Creates an empty namespace.
    pub(super) fn new() -> Result<Self, Error> {
        let refused = |why: String| {
            Error::Place(format!(
                "no network namespace can be made: {why}; run as root, with util-linux and iproute2"
            ))
        };
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| refused(error.to_string()))?;
        let mut said = [0; 6];
        let heard = holder.stdout.as_mut().map(|out| io::Read::read_exact(out, &mut said));
        let path = format!("/proc/{}/ns/net", holder.id());
        let opened = match heard {
            Some(Ok(())) => Namespace::open(PORT, &path).map_err(|error| refused(error.to_string())),
            _ => Err(refused("unshare is not allowed to".into())),
        };
        match opened {
            Ok(namespace) => Ok(Self { holder, namespace, path }),
            Err(error) => {
                end(&mut holder);
                Err(error)
            }
        }
    }

    /// Creates a namespace for a driver, with a veth pair unless the port creates its interface.
    pub(super) fn of(kind: Kind) -> Result<Self, Failure> {
        let namespace = Self::new().map_err(|error| Failure::Program(error.to_string()))?;
        if !kind.makes_interface() {
            namespace.ip(&["link", "add", NEAR, "type", "veth", "peer", "name", FAR])?;
            for name in [NEAR, FAR] {
                namespace.quiet(name)?;
            }
        }
        Ok(namespace)
    }

    /// Brings an interface up, and prevents the kernel's own packets.
    pub(super) fn quiet(&self, name: &str) -> Result<(), Failure> {
        self.ip(&["link", "set", name, "addrgenmode", "none"])?;
        self.ip(&["link", "set", name, "up"])
    }

    /// The value for the device argument `netns=`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Runs `work` inside the namespace; programs that it starts run there too.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        self.namespace.run(work).map_err(|error| Failure::Program(format!("entering a namespace: {error}")))
    }

    /// The process that holds the namespace, for `ip link … netns`.
    pub(super) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs `ip` inside the namespace.
    pub(super) fn ip(&self, arguments: &[&str]) -> Result<(), Failure> {
        let failed = |why: &str| Failure::Program(format!("ip {}: {why}", arguments.join(" ")));
        let output = self.run(|| Command::new("ip").args(arguments).output())?;
        let output = output.map_err(|error| failed(&error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Waits for an interface and returns it.
    pub(super) fn interface(&self, name: &str) -> Result<Interface, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Interface::find(PORT, &self.namespace, name) {
                Ok(interface) => return Ok(interface),
                Err(error) if Instant::now() > deadline => return Err(Failure::Program(error.to_string())),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn end(holder: &mut Child) {
    drop(holder.stdin.take());
    let _ = holder.wait();
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        end(&mut self.holder);
    }
}
