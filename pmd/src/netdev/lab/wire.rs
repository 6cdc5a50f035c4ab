//! A raw socket on an interface: frames as the kernel sees them, for tests.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

/// Bytes that may wait in the socket; tests send bursts, and the kernel drops what does not fit.
const WAITING: usize = 64 << 20;

/// Somebody who sends and receives whole frames on one interface, by a packet socket (`packet(7)`).
///
/// ```
/// use linecard_pmd::netdev::lab::Lab;
/// # fn main() {
/// let Some(lab) = Lab::new("doc example") else { return };
/// lab.veth("a", "b");
/// let (a, b) = (lab.wire("a"), lab.wire("b"));
/// assert!(a.send(&[0x55; 60]));
/// let frame = std::iter::repeat_with(|| b.receive()).flatten().next();
/// assert_eq!(frame, Some(vec![0x55; 60]));
/// # }
/// ```
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// A non-blocking socket on the interface of that index in the calling thread's namespace.
    ///
    /// # Errors
    /// No permission, or no such interface.
    pub fn open(index: u32) -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes integers. Without a protocol it receives nothing before it is bound.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        check(fd)?;
        // SAFETY: the kernel has just made `fd` for us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (on, len) = (1, size_of::<libc::c_int>() as libc::socklen_t);
        let option = libc::PACKET_IGNORE_OUTGOING;
        // SAFETY: the kernel reads one int, which outlives the call.
        let result = unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), len)
        };
        check(result)?;
        sockopt::set_socket_recv_buffer_size_force(&fd, WAITING)?;
        sockopt::set_socket_send_buffer_size(&fd, WAITING)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: all,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` outlives the call, which reads `len` bytes of it.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(Self(fd))
    }

    /// Sends a frame; false when the kernel has no room for it, or the interface is down.
    #[must_use]
    pub fn send(&self, frame: &[u8]) -> bool {
        send(&self.0, frame, SendFlags::empty()).is_ok()
    }

    /// The next frame that came in on the interface, if one is there.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65_536 + 64];
        let (len, _) = recv(&self.0, &mut frame[..], RecvFlags::empty()).ok()?;
        frame.truncate(len);
        Some(frame)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
