//! The tun device (`linux/if_tun.h`): opens, attaches and queries descriptors.
//!
//! Every failure is the kernel's error number. [`tap`](crate::tap) turns these into sentences.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use linecard_net::vnet::HDR_LEN;

use crate::NAME_LEN;

/// The device that creates interfaces.
pub const DEVICE: &str = "/dev/net/tun";
/// `IFF_TUN_EXCL`: refuses an interface that exists already.
const EXCLUSIVE: libc::c_int = 0x8000;
/// The format of every queue: Ethernet frames, no protocol information, a virtio header first.
const SHAPE: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// `struct ifreq`, as far as the tun device uses it.
#[repr(C)]
struct Request {
    name: [u8; NAME_LEN + 1],
    flags: libc::c_short,
    rest: [u8; 22],
}

impl Request {
    fn new(name: &str, flags: libc::c_int) -> Self {
        let mut bytes = [0; NAME_LEN + 1];
        // Names are checked before; the last byte stays zero.
        bytes.iter_mut().take(NAME_LEN).zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self { name: bytes, flags: flags as libc::c_short, rest: [0; 22] }
    }

    fn name(&self) -> String {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

/// As `ioctl` takes them: musl uses an int for requests, and libc's socket constants have one type
/// everywhere.
const GET_MAC: libc::Ioctl = libc::SIOCGIFHWADDR as libc::Ioctl;
const SET_MAC: libc::Ioctl = libc::SIOCSIFHWADDR as libc::Ioctl;

fn request(fd: BorrowedFd<'_>, what: libc::Ioctl, request: &mut Request) -> io::Result<()> {
    // SAFETY: the requests used here read and write at most an `ifreq` (40 bytes); `request` is one and
    // outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut *request) })
}

/// Makes a request that takes a pointer to an int.
fn pass(fd: BorrowedFd<'_>, what: libc::Ioctl, mut value: libc::c_int) -> io::Result<()> {
    // SAFETY: the requests used here read one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut value) })
}

/// Makes a request that takes an integer by value.
fn give(fd: BorrowedFd<'_>, what: libc::Ioctl, value: libc::c_uint) -> io::Result<()> {
    // SAFETY: the requests used here take an integer instead of a pointer, and access no memory of ours.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), what, libc::c_ulong::from(value)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens [`DEVICE`], non-blocking, in the calling thread's network namespace.
pub fn open() -> io::Result<OwnedFd> {
    let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
    Ok(options?.into())
}

/// The number of queues that an interface can have, which is fixed when it is created.
///
/// ```
/// use linecard_netdev::tun::Queues;
/// assert_eq!((Queues::for_count(1), Queues::for_count(2)), (Queues::One, Queues::Many));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One, as `ip tuntap add` creates by default.
    One,
    /// Up to 256 (`IFF_MULTI_QUEUE`).
    Many,
}

impl Queues {
    /// Returns the kind that has at least `count`.
    #[must_use]
    pub const fn for_count(count: u16) -> Self {
        if count > 1 { Self::Many } else { Self::One }
    }

    const fn flags(self) -> libc::c_int {
        match self {
            Self::One => 0,
            Self::Many => libc::IFF_MULTI_QUEUE,
        }
    }
}

/// Attaches a descriptor to the interface `name` (which may contain `%d`), creating it if needed; returns its
/// name.
pub fn attach(fd: BorrowedFd<'_>, name: &str, queues: Queues) -> io::Result<String> {
    join(fd, name, queues.flags())
}

/// Creates the interface `name` and attaches a descriptor to it; `ResourceBusy` if it exists.
pub fn make(fd: BorrowedFd<'_>, name: &str, queues: Queues) -> io::Result<String> {
    join(fd, name, queues.flags() | EXCLUSIVE)
}

fn join(fd: BorrowedFd<'_>, name: &str, flags: libc::c_int) -> io::Result<String> {
    let mut ifreq = Request::new(name, SHAPE | flags);
    request(fd, libc::TUNSETIFF, &mut ifreq)?;
    prepare(fd)?;
    Ok(ifreq.name())
}

/// Sets the header's length and byte order.
pub fn prepare(fd: BorrowedFd<'_>) -> io::Result<()> {
    pass(fd, libc::TUNSETVNETHDRSZ, HDR_LEN.cast_signed())?;
    pass(fd, libc::TUNSETVNETLE, 1)
}

/// Attaches or detaches a queue. The interface exists while a queue of either kind is open.
pub fn serve(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    request(fd, libc::TUNSETQUEUE, &mut Request::new("", flags))
}

/// Lets the interface outlive its descriptors.
pub fn persist(fd: BorrowedFd<'_>) -> io::Result<()> {
    give(fd, libc::TUNSETPERSIST, 1)
}

/// Sets the offloads that the kernel may leave to us (`TUN_F_…`); `InvalidInput` if it does not know all of
/// them.
pub fn set_offload(fd: BorrowedFd<'_>, offload: u32) -> io::Result<()> {
    give(fd, libc::TUNSETOFFLOAD, offload)
}

/// Returns the interface that a passed descriptor is attached to, or why the descriptor is not usable.
pub fn attached(fd: BorrowedFd<'_>) -> Result<String, String> {
    let mut ifreq = Request::new("", 0);
    request(fd, libc::TUNGETIFF, &mut ifreq)
        .map_err(|error| format!("it is no queue of a tap interface ({error})"))?;
    let flags = libc::c_int::from(ifreq.flags) & 0xffff;
    if flags & SHAPE != SHAPE {
        return Err(format!("{} was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR", ifreq.name()));
    }
    Ok(ifreq.name())
}

/// Returns the hardware address of the interface behind a queue, in any namespace.
pub fn mac(fd: BorrowedFd<'_>) -> io::Result<[u8; 6]> {
    let mut ifreq = Request::new("", 0);
    request(fd, GET_MAC, &mut ifreq)?;
    Ok(*ifreq.rest.first_chunk().expect("22 bytes"))
}

/// Changes the hardware address of the interface behind a queue. Unlike with netlink, this needs no
/// capability, only the permission to attach a queue.
pub fn set_mac(fd: BorrowedFd<'_>, mac: [u8; 6]) -> io::Result<()> {
    let mut ifreq = Request::new("", libc::c_int::from(crate::ETHER));
    ifreq.rest[..mac.len()].copy_from_slice(&mac);
    request(fd, SET_MAC, &mut ifreq)
}

/// Sets the interface's carrier (Linux 5.0). The queue must be attached to turn it on.
pub fn set_carrier(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    pass(fd, libc::TUNSETCARRIER, on.into())
}

/// Takes over a descriptor that was passed to this process by number.
///
/// # Errors
/// There is no such descriptor.
///
/// # Safety
/// No other code in this process uses or closes the descriptor with that number.
pub unsafe fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers only.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: the call takes integers only.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the call takes integers only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    // SAFETY: the call takes integers only.
    check(unsafe { libc::fcntl(number, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    // SAFETY: the descriptor is open, and has no other user, as the caller promises.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
