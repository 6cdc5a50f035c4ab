//! Network namespaces: `netns=NAME` or `netns=/path`, and work inside them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::refusal;
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

/// The directory of the names that `ip netns add` creates.
const NAMED: &str = "/run/netns";

/// A network namespace: the process's own, or one that was opened by name or path.
///
/// ```
/// use linecard_pmd::DevArgs;
/// use linecard_netdev::Namespace;
/// let args = DevArgs::parse("net_tap0,netns=/proc/self/ns/net")?;
/// let namespace = Namespace::of(&args)?;
/// assert_eq!(namespace.to_string(), "/proc/self/ns/net");
/// assert!(Namespace::default().is_own());
/// let missing = DevArgs::parse("net_tap0,netns=nowhere-at-all")?;
/// let problem = Namespace::of(&missing).expect_err("no such namespace").to_string();
/// assert!(problem.starts_with("net_tap0: there is no network namespace 'nowhere-at-all'"));
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    other: Option<(String, Arc<OwnedFd>)>,
    /// The path it was opened by.
    path: Option<PathBuf>,
}

impl Namespace {
    /// Returns the namespace that the argument `netns` of `args` names; the process's own if there is none.
    ///
    /// # Errors
    /// There is no such namespace, the file is not a namespace, or it may not be opened.
    pub fn of(args: &DevArgs) -> Result<Self, Error> {
        match args.value("netns") {
            None => Ok(Self::default()),
            Some(text) => Self::open(args.name(), text),
        }
    }

    /// Opens the namespace of that name (in `/run/netns`) or path, for the port `port`.
    ///
    /// # Errors
    /// As for [`of`](Self::of).
    pub fn open(port: &str, text: &str) -> Result<Self, Error> {
        let path = if text.contains('/') { PathBuf::from(text) } else { PathBuf::from(NAMED).join(text) };
        let problem = |problem: String, remedy: &str| Error::Argument {
            device: port.into(),
            problem,
            remedy: remedy.into(),
        };
        let file = match File::open(&path) {
            Ok(file) if !text.is_empty() => file,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(refusal(
                    port,
                    &format!("opening the network namespace {}", path.display()),
                    error,
                ));
            }
            _ => {
                let remedy = "make it with 'ip netns add NAME', or give a path such as /proc/PID/ns/net";
                return Err(problem(format!("there is no network namespace '{text}'"), remedy));
            }
        };
        if !rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type == libc::NSFS_MAGIC) {
            let remedy = "give a name from /run/netns, or a path such as /proc/PID/ns/net";
            return Err(problem(format!("netns={text} is no network namespace"), remedy));
        }
        Ok(Self { other: Some((text.to_owned(), Arc::new(file.into()))), path: Some(path) })
    }

    /// Returns a namespace that is already open; `name` is for messages.
    #[must_use]
    pub fn from_fd(name: &str, fd: OwnedFd) -> Self {
        Self { other: Some((name.to_owned(), Arc::new(fd))), path: None }
    }

    /// Returns whether this is the namespace of the process.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.other.is_none()
    }

    /// Returns whether its path has become invalid or refers to another namespace (`ip netns del`, the end of
    /// its process). The namespace and its interfaces still exist while a port holds it.
    ///
    /// ```
    /// use linecard_netdev::Namespace;
    /// assert!(!Namespace::open("port", "/proc/self/ns/net")?.is_deleted());
    /// assert!(!Namespace::default().is_deleted());
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        let (Some((_, fd)), Some(path)) = (&self.other, &self.path) else { return false };
        let held = rustix::fs::fstat(fd).map(|held| (held.st_dev, held.st_ino));
        let named = rustix::fs::stat(path).map(|named| (named.st_dev, named.st_ino));
        match named {
            Ok(_) => held != named,
            Err(error) => matches!(error, rustix::io::Errno::NOENT | rustix::io::Errno::SRCH),
        }
    }

    /// Runs `work` inside the namespace, on a separate thread unless it is the process's own, so that the
    /// caller's thread stays in its namespace. Sockets and descriptors opened there stay in the namespace.
    ///
    /// ```
    /// use linecard_netdev::Namespace;
    /// let socket = Namespace::default().run(|| std::net::UdpSocket::bind("127.0.0.1:0"))??;
    /// # drop(socket);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The namespace may not be entered (which takes `CAP_SYS_ADMIN`).
    ///
    /// # Panics
    /// `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Some((_, fd)) = &self.other else { return Ok(work()) };
        let inside = || -> io::Result<T> {
            move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`run`](Self::run), with the error of a port.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn enter<T: Send>(&self, port: &str, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.run(work)
            .map_err(|error| refusal(port, &format!("entering the network namespace {self}"), error))
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.other.as_ref().map_or("of this process", |(name, _)| name))
    }
}
