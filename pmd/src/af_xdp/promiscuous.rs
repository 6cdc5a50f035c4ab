//! Promiscuous mode for as long as a port wants it: a membership of a packet socket, which the kernel ends with the
//! socket at the latest.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::netdev::Namespace;

/// A packet socket that receives nothing and may have the interface be promiscuous.
#[derive(Debug)]
pub(super) struct Promiscuous {
    socket: OwnedFd,
    index: i32,
}

impl Promiscuous {
    /// `None` without the right to open one: then the interface stays as it is.
    pub(super) fn new(namespace: &Namespace, index: u32) -> Option<Self> {
        let socket = namespace.run(open).ok()?.ok()?;
        Some(Self { socket, index: index.cast_signed() })
    }

    /// Asks for it, or no longer.
    pub(super) fn set(&self, on: bool) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: self.index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let option = if on { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
        let len = size_of::<libc::packet_mreq>() as libc::socklen_t;
        let fd = self.socket.as_raw_fd();
        // SAFETY: reads `len` bytes of `request`, which lives across the call.
        let result =
            unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const request).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Promiscuous {
    fn drop(&mut self) {
        // Not left to the close: a process that this one is just starting has a copy of the socket for a moment.
        let _ = self.set(false);
    }
}

fn open() -> io::Result<OwnedFd> {
    // Protocol 0: no frame is ever queued here.
    // SAFETY: takes integers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
