//! `recvmsg` and `sendmsg` with `SCM_RIGHTS`, and sockets with names. What `rustix` has no safe call for is the only unsafe
//! code of this room.

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

/// Most descriptors the kernel puts into one `SCM_RIGHTS` record (`SCM_MAX_FD`, `include/net/scm.h`).
pub(crate) const SCM_MAX_FD: usize = 253;
/// `CMSG_LEN(0)`: the header of a record.
const HEAD_LEN: usize = 16;
const FD_LEN: usize = size_of::<RawFd>();
/// One record with as many descriptors as there can be, rounded up to the alignment of a header.
const CONTROL_LEN: usize = (HEAD_LEN + SCM_MAX_FD * FD_LEN).next_multiple_of(8);

/// Room for control messages, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL_LEN]);

impl Control {
    const fn new() -> Self {
        Self([MaybeUninit::uninit(); CONTROL_LEN])
    }
}

/// What one `recvmsg` brought.
pub(crate) struct Received {
    /// Bytes written to the buffer; 0 when the peer closed.
    pub(crate) bytes: usize,
    /// Every descriptor that came, owned.
    pub(crate) fds: Vec<OwnedFd>,
    /// The kernel could not hand over all descriptors.
    pub(crate) fds_lost: bool,
}

/// Descriptors that this process may have open (`RLIMIT_NOFILE`).
pub(crate) fn most_descriptors() -> u64 {
    // No limit is as good as this one.
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Reads at most `buffer.len()` bytes and at most `most_fds` descriptors attached to them; does not wait for bytes. The
/// kernel closes descriptors beyond that in here, which may take as long as their sender likes.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], most_fds: usize) -> io::Result<Received> {
    let mut room = Control::new();
    // Without room for one descriptor no header either: the kernel would write an empty record.
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

/// Has a byte that is sent out of band (`MSG_OOB`) arrive like any other. Left out, it is dropped within some later call
/// that reads, and the descriptors that came with it are closed there, which may take as long as their sender likes.
pub(crate) fn keep_urgent_inline(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_oobinline(socket, true)?)
}

/// Sends some of `bytes` with `fds` on the first of them; does not block and raises no signal.
///
/// At most [`SCM_MAX_FD`] descriptors; the caller bounds them far below that.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut room = Control::new();
    let mut control = SendAncillaryBuffer::new(&mut room.0);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds[..fds.len().min(SCM_MAX_FD)])) {
        return Err(Errno::INVAL.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(retry_on_intr(|| net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))?)
}

/// Waits until `socket` can be read from (or written to); `false` when `deadline` passed first.
pub(crate) fn wait(socket: BorrowedFd<'_>, writable: bool, deadline: Instant) -> io::Result<bool> {
    let events = if writable { PollFlags::OUT } else { PollFlags::IN };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Longer than any deadline here where it does not fit.
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match poll(&mut [PollFd::from_borrowed_fd(socket, events)], Some(&timeout)) {
            Ok(0) if left == Duration::ZERO => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Longest path in a socket address, its terminator apart.
pub(crate) const MAX_PATH: usize = 107;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A Unix stream socket, non-blocking and close-on-exec.
pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// A duplicate, close-on-exec, of the descriptor of that number.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers; a number that is not open is answered by an error.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes `fd` in programs that this process starts.
pub(crate) fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}

/// Why connections cannot be accepted from `fd`; `None` when they can.
pub(crate) fn not_listening(fd: BorrowedFd<'_>) -> Option<&'static str> {
    let Ok(kind) = sockopt::socket_type(fd) else { return Some("not a socket") };
    if kind != SocketType::STREAM || sockopt::socket_domain(fd) != Ok(AddressFamily::UNIX) {
        return Some("not a Unix stream socket");
    }
    (sockopt::socket_acceptconn(fd) != Ok(true)).then_some("a socket that does not listen")
}

/// Whether `fd` is a Unix stream socket with another end. Nothing but the kernel's own memory is looked at.
pub(crate) fn is_connected_stream(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_type(fd) == Ok(SocketType::STREAM)
        && sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_acceptconn(fd) == Ok(false)
}

/// Makes the name that `socket` is about to get readable and writable by its owner only: the name inherits this mode.
/// Unlike a umask it concerns no other thread.
pub(crate) fn keep_to_owner(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fchmod(socket, Mode::RUSR | Mode::WUSR)?)
}

/// Gives `socket` its name.
pub(crate) fn bind(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(net::bind(socket, &address(path)?)?)
}

/// Lets others connect to a socket with a name.
pub(crate) fn listen(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(net::listen(socket, BACKLOG)?)
}

/// Has whoever connects to a listening socket be refused, also while copies of it are open.
pub(crate) fn stop_listening(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(net::shutdown(socket, net::Shutdown::Both)?)
}

/// Connects a non-blocking `socket`, at once or not at all. A symbolic link at the end of `path` is not followed.
pub(crate) fn connect(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let whole = address(path)?;
    if abstract_name(path).is_some() {
        return Ok(net::connect(socket, &whole)?);
    }
    // Whoever may write in the folder may put a link to somebody else's socket there, at any time: the name is looked up
    // once, and the very file that was found is connected to.
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == FileType::Symlink {
        let problem = "it is a symbolic link, and links are not followed; name the socket itself";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    Ok(net::connect(socket, &address(&by_descriptor(&found))?)?)
}

/// Whether this process's user or root has the other end; not so where the kernel does not say.
pub(crate) fn is_of_own_user_or_root(socket: BorrowedFd<'_>) -> bool {
    let own = rustix::process::geteuid();
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

/// The name behind the `@` with which `ss(8)` and `/proc/net/unix` mark an abstract socket; `None` for a path.
pub(crate) fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@").filter(|name| !name.is_empty())
}

/// A path, which ends at its first zero, or an abstract name as a socket address.
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

/// A path that leads to the very file of a descriptor, whatever has its name.
pub(crate) fn by_descriptor(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The number of a group, by its name.
pub(crate) fn group(name: &str) -> Option<u32> {
    /// For the names of a group's members, which nobody asked for; grows where a group has many.
    const ROOM: std::ops::RangeInclusive<u32> = 12..=20;
    let name = CString::new(name).ok()?;
    for shift in ROOM {
        let mut room = vec![0; 1 << shift];
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: `name` ends with a zero, `entry` and `found` are places for one value each, `room` has as many bytes
        // as is said; all outlive the call.
        let error = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found)
        };
        match error {
            libc::ERANGE => {}
            // SAFETY: without an error and with `found` set, `entry` was filled in.
            0 if !found.is_null() => return Some(unsafe { entry.assume_init() }.gr_gid),
            _ => return None,
        }
    }
    None
}
