//! Returns the number of receive queues that an interface uses (`linux/ethtool.h`), as `ethtool -l` shows it.
//! Route netlink reports only how many its driver supports.

use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use linecard_netdev::NAME_LEN;

/// `ETHTOOL_GCHANNELS` and `SIOCETHTOOL` (`linux/sockios.h`).
const GET_CHANNELS: u32 = 0x3c;
const ETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    /// The maximum receive, transmit, other and combined channels.
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ifreq` with its pointer.
#[repr(C)]
struct Request {
    name: [u8; NAME_LEN + 1],
    data: *mut Channels,
    rest: [u64; 2],
}

/// Returns the receive queues that the interface uses, in the calling thread's network namespace; `None` if
/// its driver does not report them.
pub(super) fn receive(interface: &str) -> Option<u32> {
    // Any socket of the namespace accepts the request.
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
    let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
    let mut request = Request { name: [0; NAME_LEN + 1], data: &raw mut channels, rest: [0; 2] };
    request.name.iter_mut().take(NAME_LEN).zip(interface.bytes()).for_each(|(to, from)| *to = from);
    // SAFETY: `request` is an `ifreq` whose pointer leads to an `ethtool_channels`; both are exclusively ours
    // and outlive the call, which writes within them.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    (answer == 0).then(|| channels.rx + channels.combined)
}
