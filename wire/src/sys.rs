//! `recvmsg` and `sendmsg` with `SCM_RIGHTS`, and sockets with names: the only unsafe code of this room.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Most descriptors the kernel puts into one `SCM_RIGHTS` record (`SCM_MAX_FD`, `include/net/scm.h`).
pub(crate) const SCM_MAX_FD: usize = 253;
/// `CMSG_SPACE(SCM_MAX_FD * 4)`, rounded up: 16 bytes of header and the descriptors.
const CONTROL_LEN: usize = 16 + SCM_MAX_FD * 4 + 12;
const FD_LEN: usize = size_of::<RawFd>();
/// `CMSG_LEN(0)`: the header of a record.
const HEAD_LEN: usize = 16;

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

/// Reads at most `buffer.len()` bytes and at most `most_fds` descriptors attached to them; does not wait for bytes. The
/// kernel closes descriptors beyond that in here, which may take as long as their sender likes.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], most_fds: usize) -> io::Result<Received> {
    let mut control = Control::new();
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = empty_header();
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_LEN.min(HEAD_LEN + most_fds * FD_LEN);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let got = retry(|| {
        // SAFETY: `header` points at `vector` (the whole of `buffer`) and `control`, both alive and
        // exclusively borrowed until the call returns.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) }
    })?;
    let mut fds = Vec::new();
    collect_fds(&header, &mut fds);
    Ok(Received { bytes: got, fds, fds_lost: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Has a byte that is sent out of band (`MSG_OOB`) arrive like any other. Left out, it is dropped within some later call
/// that reads, and the descriptors that came with it are closed there, which may take as long as their sender likes.
pub(crate) fn keep_urgent_inline(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (on, len): (libc::c_int, _) = (1, size_of::<libc::c_int>() as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_OOBINLINE);
    // SAFETY: reads `len` bytes of `on`.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes ownership of every descriptor in the control area that the kernel filled.
fn collect_fds(header: &libc::msghdr, out: &mut Vec<OwnedFd>) {
    // SAFETY: `header` was filled by `recvmsg`, its control area is alive in the caller's frame.
    let mut record = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !record.is_null() {
        // SAFETY: non-null records from CMSG_FIRSTHDR/NXTHDR lie wholly inside the control area.
        let head = unsafe { record.read() };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the record lies wholly inside the control area, and its data follow its header there.
            let data = unsafe { libc::CMSG_DATA(record) }.cast::<RawFd>();
            // SAFETY: pure arithmetic on a constant (it is `unsafe` only in its signature).
            let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = head.cmsg_len.saturating_sub(overhead) / FD_LEN;
            for index in 0..count {
                // SAFETY: the kernel wrote `count` descriptors after the record's header.
                let at = unsafe { data.add(index) };
                // SAFETY: the kernel wrote `count` descriptors from here on; the area need not be aligned for the type.
                let raw = unsafe { at.read_unaligned() };
                // SAFETY: the kernel has just installed `raw` in this process for us; nobody else owns it.
                out.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: `record` is a valid record of `header`, see above.
        record = unsafe { libc::CMSG_NXTHDR(header, record) };
    }
}

/// Sends some of `bytes` with `fds` on the first of them; does not block and raises no signal.
///
/// At most [`SCM_MAX_FD`] descriptors; the caller bounds them far below that.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let mut control = Control::new();
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut header = empty_header();
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        attach(&mut header, &mut control, &fds[..fds.len().min(SCM_MAX_FD)]);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    retry(|| {
        // SAFETY: `header` points at `vector` (the whole of `bytes`, only read) and at the part of
        // `control` that `attach` initialised; all outlive the call.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) }
    })
}

/// Writes one `SCM_RIGHTS` record with `fds` into `control` and points `header` at it.
fn attach(header: &mut libc::msghdr, control: &mut Control, fds: &[RawFd]) {
    let len = (fds.len() * FD_LEN) as u32;
    control.0.fill(MaybeUninit::new(0));
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: pure arithmetic (it is `unsafe` only in its signature).
    header.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as usize;
    // SAFETY: the control area is alive, aligned for `cmsghdr`, and longer than one header.
    let record = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: pure arithmetic (it is `unsafe` only in its signature).
    let cmsg_len = unsafe { libc::CMSG_LEN(len) } as usize;
    let head = libc::cmsghdr { cmsg_len, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    // SAFETY: `record` is the start of the control area, which has room for a header.
    unsafe { record.write(head) };
    // SAFETY: `record` is a valid record; its data follows inside the control area.
    let data = unsafe { libc::CMSG_DATA(record) };
    // SAFETY: `fds` has at most SCM_MAX_FD entries and `control` room for that many after the header;
    // the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, len as usize) };
}

/// A header with nothing in it.
fn empty_header() -> libc::msghdr {
    // SAFETY: `msghdr` is plain C data of integers and pointers, for which all zeros is valid.
    unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() }
}

/// Calls `f` again while a signal interrupts it; turns a negative result into the system's error.
fn retry(mut f: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(f()) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Waits until `socket` is readable (or writable) or `deadline` passes; `false` when time ran out.
pub(crate) fn wait(socket: BorrowedFd<'_>, writable: bool, deadline: Instant) -> io::Result<bool> {
    let events = if writable { libc::POLLOUT } else { libc::POLLIN };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that a poll never spins through the last millisecond.
        let timeout = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
        // SAFETY: `entry` is one valid pollfd, alive and exclusively borrowed until the call returns.
        let ready = unsafe { libc::poll(&raw mut entry, 1, timeout) };
        match ready {
            0 if timeout == 0 => return Ok(false),
            0 => {}
            n if n > 0 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Longest path in a socket address, its terminator apart.
pub(crate) const MAX_PATH: usize = 107;
/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 16;
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

/// A Unix stream socket, non-blocking and close-on-exec.
pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes integers, returns a new descriptor or -1.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
    // SAFETY: takes integers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })
}

/// A number that the kernel keeps about a socket (`socket(7)`, "Socket options").
pub(crate) fn socket_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let (fd, to) = (socket.as_raw_fd(), (&raw mut value).cast());
    // SAFETY: writes at most `len` bytes to `value` and the length to `len`; both outlive the call.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, to, &raw mut len) })?;
    Ok(value)
}

/// Makes the name that `socket` is about to get readable and writable by its owner only: the name inherits this mode.
/// Unlike a umask it concerns no other thread.
pub(crate) fn keep_to_owner(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::fchmod(socket.as_raw_fd(), 0o600) })
}

/// Gives `socket` its name.
pub(crate) fn bind(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let address = address(path)?;
    // SAFETY: `address` outlives the call, which reads `ADDRESS_LEN` bytes of it.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) })
}

/// Lets others connect to a socket with a name.
pub(crate) fn listen(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })
}

/// Connects a non-blocking `socket`, at once or not at all.
pub(crate) fn connect(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let address = address(path)?;
    // SAFETY: reads ADDRESS_LEN bytes of `address`, which lives across the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) })
}

/// A path as a socket address, which ends at its first zero.
fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; MAX_PATH + 1] };
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_PATH || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such socket can exist"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(address)
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

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
