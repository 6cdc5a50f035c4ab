//! The tun device (`linux/if_tun.h`): descriptors opened, attached and asked.
//!
//! What is asked of the kernel is answered by it: a failure of any of these is its error number. [`tap`](crate::tap) makes
//! sentences of them.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use linecard_net::vnet::HDR_LEN;

use crate::NAME_LEN;

/// The device that makes interfaces.
pub const DEVICE: &str = "/dev/net/tun";
/// `IFF_TUN_EXCL`: an interface that is there already is refused.
const EXCLUSIVE: libc::c_int = 0x8000;
/// What every queue of ours is: Ethernet frames, no protocol information, a virtio header first.
const SHAPE: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// `struct ifreq`, as far as tun uses it.
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

/// As `ioctl` takes them: musl's has an int for requests, and libc's constants of sockets have one type for all.
const GET_MAC: libc::Ioctl = libc::SIOCGIFHWADDR as libc::Ioctl;
const SET_MAC: libc::Ioctl = libc::SIOCSIFHWADDR as libc::Ioctl;

fn request(fd: BorrowedFd<'_>, what: libc::Ioctl, request: &mut Request) -> io::Result<()> {
    // SAFETY: the calls used here read and write at most an `ifreq` (40 bytes), which `request` is and which
    // outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut *request) })
}

/// For calls that take a pointer to an int.
fn pass(fd: BorrowedFd<'_>, what: libc::Ioctl, mut value: libc::c_int) -> io::Result<()> {
    // SAFETY: the calls used here read one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut value) })
}

/// For calls that take the number itself.
fn give(fd: BorrowedFd<'_>, what: libc::Ioctl, value: libc::c_uint) -> io::Result<()> {
    // SAFETY: the calls used here take an integer in the place of a pointer and touch no memory of ours.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), what, libc::c_ulong::from(value)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor of [`DEVICE`], non-blocking, in the calling thread's network namespace.
pub fn open() -> io::Result<OwnedFd> {
    let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
    Ok(options?.into())
}

/// How many queues an interface can have, which is settled when it is made.
///
/// ```
/// use linecard_netdev::tun::Queues;
/// assert_eq!((Queues::for_count(1), Queues::for_count(2)), (Queues::One, Queues::Many));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One: what `ip tuntap add` makes by default.
    One,
    /// Up to 256 (`IFF_MULTI_QUEUE`).
    Many,
}

impl Queues {
    /// The kind that has at least `count`.
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

/// Attaches a descriptor to the interface `name` (which may contain `%d`), making it if need be; returns its name.
pub fn attach(fd: BorrowedFd<'_>, name: &str, queues: Queues) -> io::Result<String> {
    join(fd, name, queues.flags())
}

/// The same for an interface that is not there yet; `ResourceBusy` when it is.
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

/// Puts a queue into service or takes it out; the interface lives while one of either kind is open.
pub fn serve(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    request(fd, libc::TUNSETQUEUE, &mut Request::new("", flags))
}

/// Lets the interface outlive its descriptors.
pub fn persist(fd: BorrowedFd<'_>) -> io::Result<()> {
    give(fd, libc::TUNSETPERSIST, 1)
}

/// What the kernel may leave to us (`TUN_F_…`); `InvalidInput` when it does not know all of it.
pub fn set_offload(fd: BorrowedFd<'_>, offload: u32) -> io::Result<()> {
    give(fd, libc::TUNSETOFFLOAD, offload)
}

/// The interface that a passed descriptor is attached to; why it is of no use, otherwise.
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

/// The hardware address of the interface behind a queue, in whatever namespace it is.
pub fn mac(fd: BorrowedFd<'_>) -> io::Result<[u8; 6]> {
    let mut ifreq = Request::new("", 0);
    request(fd, GET_MAC, &mut ifreq)?;
    Ok(*ifreq.rest.first_chunk().expect("22 bytes"))
}

/// Changes the hardware address of the interface behind a queue. Whoever may attach a queue may do this too, without a
/// capability, unlike through netlink.
pub fn set_mac(fd: BorrowedFd<'_>, mac: [u8; 6]) -> io::Result<()> {
    let mut ifreq = Request::new("", libc::c_int::from(crate::ETHER));
    ifreq.rest[..mac.len()].copy_from_slice(&mac);
    request(fd, SET_MAC, &mut ifreq)
}

/// Says whether somebody is at our end: the interface's carrier (Linux 5.0). The queue must be in service to have it on.
pub fn set_carrier(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    pass(fd, libc::TUNSETCARRIER, on.into())
}

/// Takes over a descriptor that was passed to this process by number.
///
/// # Errors
/// There is no such descriptor.
///
/// # Safety
/// Nobody else in this process uses the descriptor of that number, or closes it.
pub unsafe fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: takes integers.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: takes integers.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    // SAFETY: takes integers.
    check(unsafe { libc::fcntl(number, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    // SAFETY: the descriptor is open, and the caller says that it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
