//! News of interfaces: a route netlink socket that the kernel tells of every change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::{Namespace, refusal};
use linecard_pmd::error::Error;

/// A descriptor that can be read when something changed about an interface of a namespace, whichever it is: brought up,
/// taken down, renamed, moved, removed. It does not say what; ask with [`Interface::info`](crate::Interface::info).
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
    /// The namespace cannot be entered; no descriptors left.
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

    /// Forgets the news so far; whether there was any.
    #[must_use]
    pub fn drain(&self) -> bool {
        let (mut buffer, mut any) = ([0; 4096], false);
        loop {
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::TRUNC) {
                Ok(_) => any = true,
                Err(rustix::io::Errno::INTR) => {}
                // More changes than the socket has room for: it was told all the same.
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
