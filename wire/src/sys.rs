//! `recvmsg` and `sendmsg` with `SCM_RIGHTS`, and named sockets. Unsafe code is limited to calls for which
//! `rustix` has no safe one.

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, FdFlags, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use crate::socket::SocketError;

/// The maximum number of descriptors in one `SCM_RIGHTS` record (`SCM_MAX_FD`, `include/net/scm.h`).
pub(crate) const SCM_MAX_FD: usize = 253;
/// `CMSG_LEN(0)`: the length of a record's header.
const HEAD_LEN: usize = 16;
const FD_LEN: usize = size_of::<RawFd>();
/// The length of a record with the maximum number of descriptors, rounded up to the alignment of a header.
const CONTROL_LEN: usize = (HEAD_LEN + SCM_MAX_FD * FD_LEN).next_multiple_of(8);

/// Room for control messages, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL_LEN]);

impl Control {
    const fn new() -> Self {
        Self([MaybeUninit::uninit(); CONTROL_LEN])
    }
}

/// The result of one `recvmsg`.
pub(crate) struct Received {
    /// Bytes written to the buffer; 0 if the peer closed the connection.
    pub(crate) bytes: usize,
    /// All received descriptors.
    pub(crate) fds: Vec<OwnedFd>,
    /// The kernel could not transfer all descriptors.
    pub(crate) fds_lost: bool,
}

/// The number of descriptors that this process may have open (`RLIMIT_NOFILE`).
pub(crate) fn most_descriptors() -> u64 {
    // No limit is treated as the largest one.
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Reads at most `buffer.len()` bytes and at most `most_fds` descriptors attached to them, without waiting.
/// The kernel closes further descriptors in this call, which may block for as long as their sender likes.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], most_fds: usize) -> io::Result<Received> {
    let mut room = Control::new();
    // Without room for a descriptor there must be no room for a header: the kernel would write an empty
    // record.
    let len = if most_fds == 0 { 0 } else { CONTROL_LEN.min(HEAD_LEN + most_fds * FD_LEN) };
    let mut control = RecvAncillaryBuffer::new(&mut room.0[..len]);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = retry_on_intr(|| net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    let mut fds = Vec::new();
    for record in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = record {
            fds.extend(rights);
        }
    }
    Ok(Received { bytes: got.bytes, fds, fds_lost: got.flags.contains(ReturnFlags::CTRUNC) })
}

/// Delivers out-of-band bytes (`MSG_OOB`) in order with the others. Otherwise they are dropped in a later
/// read, which closes the descriptors that came with them, and that may block for as long as their sender
/// likes.
pub(crate) fn keep_urgent_inline(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_oobinline(socket, true)?)
}

/// Sends some of `bytes`, with `fds` attached to the first of them. Does not block and raises no signal.
///
/// At most [`SCM_MAX_FD`] descriptors are sent; callers send far fewer.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut room = Control::new();
    let mut control = SendAncillaryBuffer::new(&mut room.0);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds[..fds.len().min(SCM_MAX_FD)])) {
        return Err(Errno::INVAL.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(retry_on_intr(|| net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))?)
}

/// Whether the peer has taken everything that was sent over a Unix socket, or has closed its end. Otherwise
/// the kernel holds the descriptors of the rest, and counts them for this process's user. True if the kernel
/// does not say.
pub(crate) fn is_taken(socket: BorrowedFd<'_>) -> bool {
    let mut left: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ` (`SIOCOUTQ`, unix(7)) writes one `int` to `left`, which outlives the call.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    asked < 0 || left == 0
}

/// Waits until `socket` is readable (or writable). Returns `false` if `deadline` passed first.
pub(crate) fn wait(socket: BorrowedFd<'_>, writable: bool, deadline: Instant) -> io::Result<bool> {
    let events = if writable { PollFlags::OUT } else { PollFlags::IN };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A duration that does not fit is longer than any deadline here.
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match poll(&mut [PollFd::from_borrowed_fd(socket, events)], Some(&timeout)) {
            Ok(0) if left == Duration::ZERO => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The maximum length of a path in a socket address, without its terminator.
pub(crate) const MAX_PATH: usize = 107;
/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A Unix stream socket, non-blocking and close-on-exec.
pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// A close-on-exec duplicate of the descriptor of this number.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers; for a number that is not open it returns an error.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created `fd`, and nothing else refers to it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `fd` close in programs that this process starts.
pub(crate) fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}

/// Why connections cannot be accepted from `fd`; `None` if they can.
pub(crate) fn not_listening(fd: BorrowedFd<'_>) -> Option<&'static str> {
    let Ok(kind) = sockopt::socket_type(fd) else { return Some("not a socket") };
    if kind != SocketType::STREAM || sockopt::socket_domain(fd) != Ok(AddressFamily::UNIX) {
        return Some("not a Unix stream socket");
    }
    (sockopt::socket_acceptconn(fd) != Ok(true)).then_some("a socket that does not listen")
}

/// Whether `fd` is a Unix stream socket that does not listen; it may be unconnected. Only kernel memory is
/// read.
pub(crate) fn is_stream(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_type(fd) == Ok(SocketType::STREAM)
        && sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_acceptconn(fd) == Ok(false)
}

/// Whether a Unix stream socket is connected, or was until its peer closed it. Only kernel memory is read.
pub(crate) fn has_peer(socket: BorrowedFd<'_>) -> bool {
    net::getpeername(socket).is_ok()
}

/// Makes the name that `socket` will get readable and writable by its owner only: the name inherits this
/// mode. Unlike a umask, this affects no other thread.
pub(crate) fn keep_to_owner(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fchmod(socket, Mode::RUSR | Mode::WUSR)?)
}

/// Binds `socket` to its name.
pub(crate) fn bind(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(net::bind(socket, &address(path)?)?)
}

/// Makes a bound socket accept connections.
pub(crate) fn listen(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(net::listen(socket, BACKLOG)?)
}

/// Makes a listening socket refuse connections, even while duplicates of it are open.
pub(crate) fn stop_listening(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(net::shutdown(socket, net::Shutdown::Both)?)
}

/// Connects a non-blocking `socket` without waiting. A symbolic link at the end of `path` is not followed.
pub(crate) fn connect(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let whole = address(path)?;
    if abstract_name(path).is_some() {
        return Ok(net::connect(socket, &whole)?);
    }
    // A user who may write to the directory may replace the name by a link to another user's socket at any
    // time. The name is therefore resolved once, and the resolved file is connected to.
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == FileType::Symlink {
        let problem = "it is a symbolic link, and links are not followed; name the socket itself";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    net::connect(socket, &address(&by_descriptor(&found))?).map_err(|error| through_proc(error.into()))
}

/// Whether the peer's user is root or this process's user; false if the kernel does not report it.
pub(crate) fn is_of_own_user_or_root(socket: BorrowedFd<'_>) -> bool {
    let own = rustix::process::geteuid();
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

/// The name after the `@` that marks an abstract socket in `ss(8)` and `/proc/net/unix`; `None` for a path.
pub(crate) fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@").filter(|name| !name.is_empty())
}

/// A path or an abstract name as a socket address. Zero bytes are refused.
fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_PATH || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such socket can exist"));
    }
    Ok(match abstract_name(path) {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(bytes)?,
    })
}

/// The directory of this process's descriptors; `/proc` may be missing in a container or after `chroot`.
const DESCRIPTORS: &str = "/proc/self/fd";

/// A path that refers to the file of a descriptor, whatever its name refers to.
pub(crate) fn by_descriptor(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("{DESCRIPTORS}/{}", file.as_raw_fd()))
}

/// The error of a call with a path of [`by_descriptor`]: [`SocketError::NoProc`] if `/proc` is missing.
pub(crate) fn through_proc(error: io::Error) -> io::Error {
    let absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    if absent && !Path::new(DESCRIPTORS).exists() {
        return io::Error::new(io::ErrorKind::Unsupported, SocketError::NoProc);
    }
    error
}

/// The number of the group with this name.
pub(crate) fn group(name: &str) -> Option<u32> {
    /// Buffer sizes, as powers of two, for the names of the group's members, which are not used.
    const ROOM: std::ops::RangeInclusive<u32> = 12..=20;
    let name = CString::new(name).ok()?;
    for shift in ROOM {
        let mut room = vec![0; 1 << shift];
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: `name` ends with a zero, `entry` and `found` have room for one value each, and `room` has
        // the given number of bytes; all outlive the call.
        let error = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found)
        };
        match error {
            libc::ERANGE => {}
            // SAFETY: without an error and with `found` set, the call has filled `entry`.
            0 if !found.is_null() => return Some(unsafe { entry.assume_init() }.gr_gid),
            _ => return None,
        }
    }
    None
}
