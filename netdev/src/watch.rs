//! Notifications of interface changes, by a route netlink socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::{Namespace, refusal};
use linecard_pmd::error::Error;

/// A descriptor that is readable after any change of any interface in a namespace: up, down, renamed, moved,
/// removed. It does not report which; query [`Interface::info`](crate::Interface::info).
///
/// ```
/// use linecard_netdev::{LinkWatch, Namespace};
/// let watch = LinkWatch::new("net_tap0", &Namespace::default())?;
/// assert!(!watch.drain(), "nothing changed since");
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Debug)]
pub struct LinkWatch(OwnedFd);

impl LinkWatch {
    /// Watches from now on, for the port `port`.
    ///
    /// # Errors
    /// The namespace cannot be entered, or no descriptor is left.
    pub fn new(port: &str, namespace: &Namespace) -> Result<Self, Error> {
        let opened = namespace.enter(port, || -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            let groups = libc::RTMGRP_LINK.cast_unsigned();
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        });
        opened?.map(Self).map_err(|error| refusal(port, "watching the interfaces", error))
    }

    /// Discards the pending notifications. Returns whether there were any.
    #[must_use]
    pub fn drain(&self) -> bool {
        let (mut buffer, mut any) = ([0; 4096], false);
        loop {
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::TRUNC) {
                Ok(_) => any = true,
                Err(rustix::io::Errno::INTR) => {}
                // More changes than the socket has room for; they count as notifications all the same.
                Err(rustix::io::Errno::NOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
