//! The network namespace of a container.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// `f_type` of namespace files (`linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The flag of a listening socket (`__SO_ACCEPTCON` of `linux/net.h`).
const ACCEPTS: u32 = 1 << 16;

/// How long a socket may exist after its port was removed. On a machine that stalls, a process that is just
/// being started can hold the inherited descriptor for seconds.
const GONE_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(2);

/// Device and inode of a namespace: constant while it exists, whatever path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// An open network namespace, which therefore keeps existing.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    pub(crate) identity: Identity,
}

impl Netns {
    /// Opens the namespace at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |problem: String| {
            Error::new(
                Code::Namespace,
                format!("CNI_NETNS {}: {problem}", path.display()),
                "give the path of a network namespace, such as /run/netns/NAME or /proc/PID/ns/net",
            )
        };
        // Opening a pipe would wait for its other end; a namespace file ignores this flag.
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(|error| failed(io::Error::from(error).to_string()))?;
        if !rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC) {
            return Err(failed("it is no namespace".into()));
        }
        let identity = identity(&file).map_err(|error| failed(error.to_string()))?;
        Ok(Self { file: file.into(), identity })
    }

    /// Returns whether this process runs in it.
    pub(crate) fn is_own(&self) -> bool {
        File::open("/proc/thread-self/ns/net").and_then(identity).is_ok_and(|own| own == self.identity)
    }

    /// Runs `work` inside, in a separate thread.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        // Its own namespace need not be entered, which may not be permitted.
        let is_own = self.is_own();
        let inside = || -> io::Result<T> {
            if is_own {
                return Ok(work());
            }
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        let outcome = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside ended early")))
        });
        outcome.map_err(|error| {
            Error::new(
                Code::Namespace,
                format!("entering the container's network namespace: {error}"),
                "run the plugin as root (CAP_SYS_ADMIN), or use \"mode\": \"socket-dir\"",
            )
        })
    }

    /// Returns whether there is a kernel interface of that name inside.
    pub(crate) fn has_interface(&self, name: &str) -> Result<bool, Error> {
        self.run(|| {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
            socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(socket, name).is_ok())
        })
    }

    /// Returns whether a socket listens at the abstract name `name` inside, according to the kernel's table:
    /// a connection would occupy the only one that the port accepts. If the table cannot be read, the answer
    /// is yes.
    pub(crate) fn listens(&self, name: &str) -> Result<bool, Error> {
        let table = self.run(|| std::fs::read("/proc/thread-self/net/unix"))?;
        let Ok(table) = table else { return Ok(true) };
        Ok(has_listener(&table, name))
    }

    /// Listens at the abstract name `name` inside. If a socket of that name is about to be closed, waits for
    /// that: a switch closes the socket of a removed port a moment after its answer.
    pub(crate) fn listen(&self, name: &str) -> Result<UnixListener, Error> {
        let bound = self.run(|| {
            let until = Instant::now() + GONE_WITHIN;
            loop {
                match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                        std::thread::sleep(LOOK);
                    }
                    bound => return bound,
                }
            }
        })?;
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Error::new(
                Code::Exists,
                format!("somebody listens at @{name} in the container's network namespace already"),
                "use another interface name, or end what listens there",
            ),
            _ => Error::io(
                format!("listening at @{name} in the container's network namespace"),
                &error,
                "see the limits of open files and memory",
            ),
        })
    }
}

/// Returns whether a table of Unix sockets (proc_pid_net(5)) has one that listens at the abstract name
/// `name`.
fn has_listener(table: &[u8], name: &str) -> bool {
    // Num RefCount Protocol Flags Type St Inode Path; the leading zero byte of Path is shown as @.
    let listens = |line: &str| {
        let mut words = line.splitn(8, ' ').map(str::trim_start);
        let flags = words.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & ACCEPTS != 0)
            && line.split_once(" @").is_some_and(|(_, path)| path == name)
    };
    String::from_utf8_lossy(table).lines().any(listens)
}

fn identity(file: impl AsFd) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(file)?;
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_by_name() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            000000008db14408: 00000003 00000000 00000000 0001 03   377 @vport/net1\n\
            000000008db14409: 00000002 00000000 00010000 0001 01 11035377 @vport/net2\n\
            000000008db1440a: 00000002 00000000 00010000 0001 01 11035377 @a @b\n\
            000000008db1440b: 00000002 00000000 00010000 0001 01 11035377 /run/vport/net3\n\
            000000008db1440c: 00000003 00000000 00000000 0001 03 1023901\n";
        for (name, want) in [
            ("vport/net1", false),
            ("vport/net2", true),
            ("a @b", true),
            ("b", false),
            ("vport/net3", false),
            ("", false),
        ] {
            assert_eq!(has_listener(table, name), want, "{name}");
        }
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        for path in ["/no/such/netns", "/proc/self/status", "/", "relative"] {
            assert_eq!(Netns::open(Path::new(path)).expect_err(path).code, Code::Namespace);
        }
        assert!(Netns::open(Path::new("/proc/self/ns/net")).expect("ours").is_own());
    }
}
