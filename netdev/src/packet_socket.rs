//! Packet sockets (`packet(7)`): the calls that rustix lacks. Errors are the kernel's error numbers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};

/// A packet socket of one interface; closing it removes its ring, its fanout membership and its promiscuous mode.
///
/// ```
/// use linecard_netdev::packet_socket::Socket;
/// match Socket::open() {
///     Ok(socket) => assert_eq!(socket.statistics()?, (0, 0), "nothing before it is bound"),
///     Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// The argument of a `setsockopt`: plain C structures without padding that matters. Implemented only here.
///
/// ```
/// fn takes<T: linecard_netdev::packet_socket::Plain>(_: T) {}
/// takes(1_i32);
/// ```
pub trait Plain: Copy + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for c_int {}
impl sealed::Sealed for libc::tpacket_req {}
impl sealed::Sealed for libc::tpacket_req3 {}
impl sealed::Sealed for libc::packet_mreq {}
impl sealed::Sealed for libc::sock_fprog {}

impl Plain for c_int {}
impl Plain for libc::tpacket_req {}
impl Plain for libc::tpacket_req3 {}
impl Plain for libc::packet_mreq {}
impl Plain for libc::sock_fprog {}

/// The flags type of `sendmmsg`: musl declares it unsigned, unlike POSIX.
#[cfg(target_env = "musl")]
type Flags = libc::c_uint;
#[cfg(not(target_env = "musl"))]
type Flags = c_int;

/// `MSG_DONTWAIT` as [`Flags`].
const DONTWAIT: Flags = libc::MSG_DONTWAIT as Flags;

fn outcome(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace. It receives nothing until it is bound.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes three integers.
        let fd = outcome(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: a new descriptor without another owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sets an option of packet sockets.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn set<T: Plain>(&self, option: c_int, value: &T) -> io::Result<()> {
        self.set_at(libc::SOL_PACKET, option, value)
    }

    /// Sets an option of any level.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn set_at<T: Plain>(&self, level: c_int, option: c_int, value: &T) -> io::Result<()> {
        let (value, len) = (std::ptr::from_ref(value).cast::<c_void>(), size_of::<T>() as socklen_t);
        // SAFETY: `value` is borrowed for the call and has `len` bytes, which the kernel only reads.
        outcome(unsafe { libc::setsockopt(self.as_raw_fd(), level, option, value, len) }).map(drop)
    }

    /// Reads an option as `u32`s, as many as the kernel has and `value` holds.
    fn get<const N: usize>(&self, option: c_int) -> io::Result<[u32; N]> {
        let mut value = [0_u32; N];
        let mut len = size_of_val(&value) as socklen_t;
        let to = value.as_mut_ptr().cast::<c_void>();
        // SAFETY: `value` has `len` bytes and is valid with any content; both outlive the call.
        outcome(unsafe { libc::getsockopt(self.as_raw_fd(), libc::SOL_PACKET, option, to, &raw mut len) })?;
        Ok(value)
    }

    /// Returns the frames for this socket, including dropped ones, and the dropped frames, both since the
    /// last call.
    pub fn statistics(&self) -> io::Result<(u32, u32)> {
        // `tpacket_stats_v3`, which begins with the older `tpacket_stats`.
        let [packets, drops, _] = self.get::<3>(libc::PACKET_STATISTICS)?;
        Ok((packets, drops))
    }

    /// Receives frames of `protocol` (0: none) from the interface `index`, and sends to it.
    pub fn bind(&self, index: u32, protocol: u16) -> io::Result<()> {
        // SAFETY: all zeros is a valid address structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = index as c_int;
        let len = size_of_val(&address) as socklen_t;
        // SAFETY: `address` has `len` bytes and outlives the call.
        outcome(unsafe { libc::bind(self.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
    }

    /// Joins the fanout group `id`, or a new one; returns its id. Members are numbered in the order in which
    /// they join.
    pub fn fanout(&self, kind: u32, id: Option<u16>) -> io::Result<u16> {
        let flags = if id.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
        let value = (kind | flags) << 16 | u32::from(id.unwrap_or(0));
        self.set(libc::PACKET_FANOUT, &(value as c_int))?;
        match id {
            Some(id) => Ok(id),
            None => self.get::<1>(libc::PACKET_FANOUT).map(|[value]| value as u16),
        }
    }

    /// Blocks all frames until [`attend`](Self::attend).
    pub fn ignore(&self) -> io::Result<()> {
        // One instruction: accept 0 bytes.
        let mut program =
            libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
        let filter = libc::sock_fprog { len: 1, filter: &raw mut program };
        self.set_at(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    /// Ends the effect of [`ignore`](Self::ignore).
    pub fn attend(&self) -> io::Result<()> {
        self.set_at(libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0)
    }

    /// Adds or drops this socket's request for promiscuous mode of the interface.
    pub fn promiscuous(&self, index: u32, on: bool) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: index as c_int,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.set(if on { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP }, &request)
    }

    /// Allows `bytes` bytes in flight for sending, or fewer if the user may not set that many.
    pub fn send_buffer(&self, bytes: usize) {
        self.buffer([libc::SO_SNDBUFFORCE, libc::SO_SNDBUF], bytes);
    }

    /// Keeps frames that do not fit into the ring whole: up to `bytes` bytes of them, or fewer if the user
    /// may not set that many.
    pub fn keep_large(&self, bytes: usize) -> io::Result<()> {
        /// `PACKET_COPY_THRESH` of `linux/if_packet.h`; any number turns it on.
        const COPY: c_int = 7;
        self.buffer([libc::SO_RCVBUFFORCE, libc::SO_RCVBUF], bytes);
        self.set(COPY, &1)
    }

    fn buffer(&self, [force, ask]: [c_int; 2], bytes: usize) {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        if self.set_at(libc::SOL_SOCKET, force, &bytes).is_err() {
            // Limited by net.core.wmem_max and rmem_max; a smaller buffer only holds less at a time.
            let _ = self.set_at(libc::SOL_SOCKET, ask, &bytes);
        }
    }

    /// Sends messages without blocking; returns how many were accepted, or the error of the first.
    ///
    /// # Safety
    /// The memory that the messages point to stays readable until this returns.
    #[inline]
    pub unsafe fn send(&self, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
        let (fd, count) = (self.as_raw_fd(), messages.len() as libc::c_uint);
        // SAFETY: `count` messages, borrowed until the call returns; the caller promises that their memory is
        // readable.
        let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count, DONTWAIT) };
        outcome(sent).map(|sent| sent as usize)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
