//! Unix sockets for connections between the two ends: created for their owner only, and removed when dropped.
//! The name of a socket on which no process listens is reused; a name in use is refused.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use crate::access::{Access, AccessError};
use crate::descriptor::close_elsewhere;
use crate::sys;
pub use crate::unusable::UnusableSocket;

/// Why a socket cannot be created, passed or used.
///
/// ```
/// use linecard_wire::socket::{Listener, SocketError};
/// let error = Listener::bind(&std::env::temp_dir()).expect_err("not a socket");
/// assert!(matches!(error, SocketError::NotASocket { what: "a folder" }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The path does not fit a socket address.
    #[error("the path of a socket has 1 to {max} bytes, not {len}")]
    PathLength {
        /// The length of the path in bytes.
        len: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// A file with this name exists that is not a socket.
    #[error("{what} has that name")]
    NotASocket {
        /// The kind of file, with an article.
        what: &'static str,
    },
    /// A process listens there.
    #[error("another process listens there")]
    InUse,
    /// `/proc` is not mounted. It is needed to connect to a socket by the file that its name referred to at
    /// first, and to set the permissions of that file only.
    #[error("sockets need /proc, which is not mounted here (mount -t proc proc /proc)")]
    NoProc,
    /// The socket's permissions cannot be set.
    #[error("{action}: {source}")]
    Access {
        /// The attempted action.
        action: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// The passed descriptor does not accept connections.
    #[error("it is {what}")]
    NotListening {
        /// The kind of descriptor, instead of a listening Unix stream socket.
        what: &'static str,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    System {
        /// The attempted action.
        action: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
}

/// The data about a [`Listener`] that a successor needs besides the socket: the owner of its name.
///
/// ```
/// use linecard_wire::socket::{Listener, ListenerName};
/// let path = std::env::temp_dir().join(format!("listener-doc-name-{}", std::process::id()));
/// let first = Listener::bind(&path)?;
/// let socket = std::os::fd::AsFd::as_fd(&first).try_clone_to_owned()?;
/// let name: ListenerName = first.leave_name();
/// drop(first);
/// assert!(path.exists());
/// let second = Listener::succeed(socket, name)?;
/// drop(second);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerName {
    /// Device and inode of a name that is removed when the listener ends; zeros for a name that stays.
    pub file: [u64; 2],
    /// Only this user and root may connect, because the name is abstract.
    pub own_user_only: bool,
}

/// A listening socket. Its name is removed on drop.
///
/// ```
/// use linecard_wire::socket::{Listener, connect};
/// let path = std::env::temp_dir().join(format!("listener-doc-{}", std::process::id()));
/// let listener = Listener::bind(&path)?;
/// let (_frontend, _backend) = (connect(&path)?, listener.accept()?);
/// drop(listener);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the name if this value owns it, so that a successor's name is not removed.
    identity: Option<(u64, u64)>,
    /// The name is abstract, so that every user of the network namespace can connect to it.
    own_user_only: bool,
    removed: AtomicBool,
}

impl Listener {
    /// As [`bind_for`](Self::bind_for), for the owner only.
    ///
    /// # Errors
    /// A separate variant for each way in which a path can be unsuitable.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_for(path, Access::default())
    }

    /// Listens at `path`, non-blocking, for the users that `access` allows, because a connected peer gets
    /// access to memory. A socket on which no process listens any more is replaced. The name is created for
    /// its owner only; others get their permissions before anybody can connect.
    ///
    /// A path that begins with `@` is an abstract name (`unix(7)`): it belongs to the network namespace, has
    /// no mode or group, and ends with the socket. Only this user and root are accepted there.
    ///
    /// ```
    /// use linecard_wire::socket::{Access, Listener};
    /// use std::os::unix::fs::PermissionsExt;
    /// let path = std::env::temp_dir().join(format!("listener-doc-for-{}", std::process::id()));
    /// let listener = Listener::bind_for(&path, Access::of(Some("0660"), None)?)?;
    /// assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o660);
    /// # drop(listener);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`bind`](Self::bind), or if this user may not set that group.
    pub fn bind_for(path: &Path, access: Access) -> Result<Self, SocketError> {
        check_path(path)?;
        let is_abstract = sys::abstract_name(path).is_some();
        if !is_abstract {
            clear_stale(path)?;
        } else if access != Access::default() {
            let source = io::Error::new(ErrorKind::InvalidInput, "an abstract name has none");
            return Err(SocketError::Access { action: "giving a socket its mode or group", source });
        }
        let failed = |action| move |source| SocketError::System { action, source };
        let socket = sys::stream_socket().map_err(failed("making a socket"))?;
        sys::keep_to_owner(socket.as_fd()).map_err(failed("keeping a socket to its owner"))?;
        bind_when_free(socket.as_fd(), path)?;
        let listener = Self {
            socket: UnixListener::from(socket),
            path: path.into(),
            identity: if is_abstract { None } else { identity(path) },
            own_user_only: is_abstract,
            removed: AtomicBool::new(false),
        };
        access.give(path)?;
        sys::listen(listener.as_fd()).map_err(failed("listening on a socket"))?;
        Ok(listener)
    }

    /// Uses a listening socket from a service manager, or from a container runtime that bound it in another
    /// network or mount namespace. Makes it non-blocking and close-on-exec. Its name remains when this value
    /// is dropped.
    ///
    /// ```
    /// use linecard_wire::socket::{Listener, connect};
    /// let path = std::env::temp_dir().join(format!("listener-doc-fd-{}", std::process::id()));
    /// let made_elsewhere = std::os::unix::net::UnixListener::bind(&path)?;
    /// let listener = Listener::from_fd(made_elsewhere.into())?;
    /// assert_eq!(listener.path(), Some(path.as_path()));
    /// let (_frontend, _backend) = (connect(&path)?, listener.accept()?);
    /// drop(listener);
    /// assert!(path.exists());
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SocketError::NotListening`]; the error of a system call. The descriptor is closed then.
    pub fn from_fd(socket: OwnedFd) -> Result<Self, SocketError> {
        let failed = |action| move |source| SocketError::System { action, source };
        if let Some(what) = sys::not_listening(socket.as_fd()) {
            return Err(SocketError::NotListening { what });
        }
        sys::close_on_exec(socket.as_fd()).map_err(failed("keeping a socket from other programs"))?;
        let socket = UnixListener::from(socket);
        socket.set_nonblocking(true).map_err(failed("making a socket non-blocking"))?;
        let address = socket.local_addr().map_err(failed("asking a socket for its name"))?;
        let path = address.as_pathname().unwrap_or(Path::new("")).into();
        Ok(Self { socket, path, identity: None, own_user_only: false, removed: AtomicBool::new(false) })
    }

    /// As [`from_fd`](Self::from_fd), with a duplicate of the descriptor of this number, which this process
    /// inherited. The number stays open, so that it can be used again after this value is dropped.
    ///
    /// # Errors
    /// As `from_fd`; also [`SocketError::NotListening`] if no descriptor has this number.
    pub fn inherited(number: RawFd) -> Result<Self, SocketError> {
        duplicate(number).and_then(Self::from_fd)
    }

    /// Passes the socket to a successor, which has a duplicate of its descriptor and gets the result. When
    /// this value is dropped, the name stays, and the successor gets waiting connections.
    pub fn leave_name(&self) -> ListenerName {
        let left = self.removed.swap(true, Relaxed);
        let file = self.identity.filter(|_| !left).map_or([0; 2], |(device, inode)| [device, inode]);
        ListenerName { file, own_user_only: self.own_user_only }
    }

    /// The result that [`leave_name`](Self::leave_name) would have, but without giving up the name.
    #[must_use]
    pub fn name(&self) -> ListenerName {
        let file = self.identity.filter(|_| !self.removed.load(Relaxed));
        ListenerName {
            file: file.map_or([0; 2], |(device, inode)| [device, inode]),
            own_user_only: self.own_user_only,
        }
    }

    /// Makes this listener own its name (again) after [`leave_name`](Self::leave_name): it is removed on drop.
    ///
    /// ```
    /// use linecard_wire::socket::Listener;
    /// let path = std::env::temp_dir().join(format!("listener-doc-keep-{}", std::process::id()));
    /// let listener = Listener::bind(&path)?;
    /// listener.leave_name();
    /// listener.keep_name();
    /// drop(listener);
    /// assert!(!path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_name(&self) {
        self.removed.store(false, Relaxed);
    }

    /// Takes over the socket and the name that a predecessor has [left](Self::leave_name).
    ///
    /// # Errors
    /// As [`from_fd`](Self::from_fd).
    pub fn succeed(socket: OwnedFd, name: ListenerName) -> Result<Self, SocketError> {
        let [device, inode] = name.file;
        let identity = (name.file != [0; 2]).then_some((device, inode));
        let mut listener = Self::from_fd(socket)?;
        (listener.identity, listener.own_user_only) = (identity, name.own_user_only);
        Ok(listener)
    }

    /// The name of the socket; `None` for a passed socket without a name in the file system.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        Some(self.path.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// Accepts the next connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; `ConnectionAborted` if the connection has ended already, or comes from another user
    /// to an abstract name; otherwise the system's error for this connection, after which there may be others.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept()?;
        if self.own_user_only && !sys::is_of_own_user_or_root(stream.as_fd()) {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(stream)
    }

    /// Removes the name, unless a successor owns it. Nobody can connect by this name afterwards.
    pub fn remove_name(&self) {
        // Only once: a successor's socket may get the same inode.
        if self.removed.swap(true, Relaxed) {
            return;
        }
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // It does not matter if the name has been removed already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A Unix stream socket that was passed to this process: either listening or connected.
///
/// ```
/// use std::os::fd::AsRawFd;
/// use std::os::unix::net::UnixStream;
/// use linecard_wire::socket::Passed;
/// let (frontend, _backend) = UnixStream::pair()?;
/// assert!(matches!(Passed::inherited(frontend.as_raw_fd())?, Passed::Connected(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Passed {
    /// A listening socket, which accepts connections.
    Listening(Listener),
    /// A connected socket.
    Connected(UnixStream),
}

impl Passed {
    /// A duplicate of the descriptor of this number, which this process inherited. The number stays open.
    ///
    /// # Errors
    /// [`SocketError::NotListening`] if the socket neither listens nor is connected; the error of a system call.
    pub fn inherited(number: RawFd) -> Result<Self, SocketError> {
        let socket = duplicate(number)?;
        if !sys::is_stream(socket.as_fd()) {
            return Listener::from_fd(socket).map(Self::Listening);
        }
        if !sys::has_peer(socket.as_fd()) {
            let what = "a socket that neither listens nor is connected";
            return Err(SocketError::NotListening { what });
        }
        Ok(Self::Connected(UnixStream::from(socket)))
    }
}

fn duplicate(number: RawFd) -> Result<OwnedFd, SocketError> {
    sys::duplicate(number).map_err(|source| match source.raw_os_error() {
        Some(libc::EBADF) => SocketError::NotListening { what: "not open" },
        _ => SocketError::System { action: "duplicating a descriptor", source },
    })
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // An abstract name stays until another thread closes the socket; connections are refused from now on.
        if self.own_user_only && !self.removed.load(Relaxed) {
            let _ = sys::stop_listening(self.socket.as_fd());
        }
        // Connections that nobody accepted end with the listener, and so do the descriptors sent over them.
        if let Ok(last) = self.socket.try_clone() {
            close_elsewhere(last.into());
        }
        self.remove_name();
    }
}

/// Binds `socket`. An abstract name may be in use until another thread closes a predecessor's socket.
fn bind_when_free(socket: BorrowedFd<'_>, path: &Path) -> Result<(), SocketError> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let began = Instant::now();
    loop {
        let source = match sys::bind(socket, path) {
            Ok(()) => return Ok(()),
            Err(source) => source,
        };
        if source.kind() != ErrorKind::AddrInUse {
            return Err(SocketError::System { action: "naming a socket", source });
        }
        let refused = || connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if sys::abstract_name(path).is_none() || began.elapsed() > PATIENCE || !refused() {
            return Err(SocketError::InUse);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Removes the socket that a dead process left at `path`.
fn clear_stale(path: &Path) -> Result<(), SocketError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if let Some(what) = other_kind(&meta) {
        return Err(SocketError::NotASocket { what });
    }
    match connect(path) {
        // No process listens any more.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| SocketError::System { action: "removing a dead process's socket", source }),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) if needs_proc(&e) => Err(SocketError::NoProc),
        Err(source) if source.kind() == ErrorKind::PermissionDenied => {
            Err(SocketError::System { action: "asking who listens", source })
        }
        // It answers, or its queue is full: a process listens.
        _ => Err(SocketError::InUse),
    }
}

/// The kind of a file, with an article, if it is not a socket.
///
/// ```
/// use linecard_wire::socket::other_kind;
/// assert_eq!(other_kind(&std::fs::metadata("/dev/null")?), Some("a device or a pipe"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn other_kind(meta: &Metadata) -> Option<&'static str> {
    match meta.file_type() {
        kind if kind.is_socket() => None,
        kind if kind.is_dir() => Some("a folder"),
        kind if kind.is_file() => Some("a file"),
        kind if kind.is_symlink() => Some("a link"),
        _ => Some("a device or a pipe"),
    }
}

/// The kind of the file at `path`, with an article, if it is not a socket; links are followed. Use it after a failed
/// connection: connecting to a directory gives `PermissionDenied` or `ConnectionRefused`, which does not show the problem.
///
/// ```
/// use linecard_wire::socket::{connect, obstacle};
/// assert!(connect("/".as_ref()).is_err());
/// assert_eq!(obstacle("/".as_ref()), Some("a folder"));
/// assert_eq!(obstacle("/no/such/thing".as_ref()), None);
/// ```
#[must_use]
pub fn obstacle(path: &Path) -> Option<&'static str> {
    fs::metadata(path).ok().as_ref().and_then(other_kind)
}

/// Checks that `path` can be a socket address.
///
/// # Errors
/// [`SocketError::PathLength`].
pub fn check_path(path: &Path) -> Result<(), SocketError> {
    let len = path.as_os_str().len();
    match len {
        1..=sys::MAX_PATH => Ok(()),
        _ => Err(SocketError::PathLength { len, max: sys::MAX_PATH }),
    }
}

/// Whether [`connect`] failed because `/proc` is not mounted. An attempt to connect again fails, too.
///
/// ```
/// use linecard_wire::socket::{connect, needs_proc};
/// let error = connect("/no/such/socket".as_ref()).expect_err("nothing is there");
/// assert!(!needs_proc(&error));
/// ```
#[must_use]
pub fn needs_proc(error: &io::Error) -> bool {
    let reason = error.get_ref().and_then(|reason| reason.downcast_ref());
    matches!(reason, Some(SocketError::NoProc))
}

/// Connects to the socket at `path` without waiting: a listener whose queue is full is an error. The result
/// is non-blocking. Needs `/proc`.
///
/// A symbolic link at the end of `path` is not followed, because the directory may belong to another user,
/// who could redirect this process to a third user's socket. Links in earlier components are followed.
///
/// # Errors
/// The system's error; `ConnectionRefused` if no process listens or `path` is not a socket; `InvalidInput` if
/// it is a symbolic link; [`SocketError::NoProc`] inside of `Unsupported` if `/proc` is missing
/// ([`needs_proc`]).
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = sys::stream_socket()?;
    sys::connect(socket.as_fd(), path)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("wire-socket-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_dead_owners_socket_is_replaced_and_a_living_ones_is_not() {
        let path = path("taken");
        drop(UnixListener::bind(&path).expect("a name that stays"));
        let first = Listener::bind(&path).expect("nobody listens");
        assert!(matches!(Listener::bind(&path), Err(SocketError::InUse)));
        assert!(connect(&path).is_ok());
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_to_somebody_elses_socket_is_not_followed() {
        let (real, link, folder) = (path("real"), path("link"), path("folder"));
        let _listener = Listener::bind(&real).expect("a socket");
        std::os::unix::fs::symlink(&real, &link).expect("a link");
        let refused = connect(&link).expect_err("it is a link");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
        std::os::unix::fs::symlink(std::env::temp_dir(), &folder).expect("a link");
        let on_the_way = folder.join(real.file_name().expect("it has one"));
        assert!(connect(&on_the_way).is_ok(), "the administrator's links are");
        for path in [link, folder] {
            fs::remove_file(path).expect("it is there");
        }
    }

    #[test]
    fn a_successors_name_is_left_alone() {
        let path = path("successor");
        let first = Listener::bind(&path).expect("a socket");
        fs::remove_file(&path).expect("it is there");
        let second = Listener::bind(&path).expect("a socket");
        drop(first);
        assert!(connect(&path).is_ok(), "the second's name is still there");
        drop(second);
    }

    #[test]
    fn only_the_owner_may_connect() {
        use std::os::unix::fs::PermissionsExt;
        let path = path("owner");
        let _listener = Listener::bind(&path).expect("a socket");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// A group other than its own to which this process may give a file.
    fn other_group() -> Option<u32> {
        let own = rustix::process::getegid().as_raw();
        let file = path("group");
        fs::write(&file, "").expect("a file");
        let ours = rustix::process::getgroups().expect("a list").into_iter().map(|group| group.as_raw());
        // Root may give a file to any group, unless it is root of a user namespace with one group.
        let found = ours
            .chain([own + 1])
            .find(|group| *group != own && std::os::unix::fs::chown(&file, None, Some(*group)).is_ok());
        fs::remove_file(&file).expect("it is there");
        found
    }

    #[test]
    fn others_connect_where_that_was_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let path = path("others");
        // Another group than a new file of this user has.
        let Some(group) = other_group() else {
            let why = "this user belongs to one group only; run it as root, or as a member of two groups";
            return linecard_testing::skip("others_connect_where_that_was_asked_for", why);
        };
        for (mode, want) in [("0666", 0o666), ("0660", 0o660), ("0600", 0o600)] {
            let access = Access::of(Some(mode), Some(&group.to_string())).expect("possible");
            let listener = Listener::bind_for(&path, access).expect("a group of ours");
            let data = fs::symlink_metadata(&path).expect("it is there");
            assert_eq!((data.permissions().mode() & 0o777, data.gid()), (want, group), "whatever the umask");
            assert!(connect(&path).is_ok());
            drop(listener);
        }
    }

    #[test]
    fn what_is_no_socket_stays() {
        let path = path("file");
        fs::write(&path, "precious").expect("a file");
        assert!(matches!(Listener::bind(&path), Err(SocketError::NotASocket { what: "a file" })));
        assert_eq!(fs::read(&path).expect("still there"), b"precious");
        fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn a_passed_socket_serves_and_keeps_its_name() {
        let path = path("passed");
        let made_elsewhere = UnixListener::bind(&path).expect("a socket");
        let number = std::os::fd::AsRawFd::as_raw_fd(&made_elsewhere);
        for _ in 0..2 {
            let listener = Listener::inherited(number).expect("it listens");
            assert!(matches!(listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock));
            let _frontend = connect(&path).expect("it listens");
            listener.accept().expect("a connection");
            drop(listener);
            assert!(path.exists(), "the name is not ours");
        }
        let listener = Listener::from_fd(made_elsewhere.into()).expect("it listens");
        listener.remove_name();
        assert!(path.exists());
        fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn what_nobody_can_connect_through_is_refused_by_what_it_is() {
        let not = |fd: OwnedFd| match Listener::from_fd(fd) {
            Err(SocketError::NotListening { what }) => what,
            other => panic!("{other:?}"),
        };
        let (one, _other) = UnixStream::pair().expect("a pair");
        let network = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert_eq!(not(fs::File::open("/dev/null").expect("it is there").into()), "not a socket");
        assert_eq!(not(network.into()), "not a Unix stream socket");
        assert_eq!(not(one.into()), "a socket that does not listen");
        let closed = Listener::inherited(i32::MAX);
        assert!(matches!(closed, Err(SocketError::NotListening { what: "not open" })), "{closed:?}");
    }

    #[test]
    fn an_abstract_name_has_no_file() {
        let name = PathBuf::from(format!("@wire-abstract-{}", std::process::id()));
        let listener = Listener::bind(&name).expect("nobody has that name");
        assert!(!name.exists());
        assert!(matches!(Listener::bind(&name), Err(SocketError::InUse)));
        let _frontend = connect(&name).expect("it listens");
        listener.accept().expect("this user's own connection");
        drop(listener);
        let after = connect(&name);
        assert!(matches!(&after, Err(error) if error.kind() == ErrorKind::ConnectionRefused), "{after:?}");
        drop(Listener::bind(&name).expect("its predecessor listens no more"));
        let access = Access::of(Some("0666"), None).expect("a mode");
        assert!(matches!(Listener::bind_for(&name, access), Err(SocketError::Access { .. })));
    }

    #[test]
    fn paths_that_fit_no_address_are_refused() {
        for len in [0, 108] {
            let path = PathBuf::from("x".repeat(len));
            assert!(matches!(Listener::bind(&path), Err(SocketError::PathLength { max: 107, .. })));
            assert!(connect(&path).is_err());
        }
    }
}
