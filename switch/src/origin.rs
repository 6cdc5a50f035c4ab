//! Sockets made anew after a restart, in the namespaces they were in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rustix::thread::LinkNameSpaceType;

use crate::api::SocketOrigin;

/// Listens at the abstract name in the namespace that `origin` names.
pub(crate) fn listen(origin: &SocketOrigin) -> io::Result<OwnedFd> {
    let namespace = File::open(&origin.netns)?;
    let name = origin.name.clone();
    // A thread of its own, which ends there: this one stays where it is.
    let made =
        std::thread::Builder::new().name("lc-netns".into()).spawn(move || -> io::Result<OwnedFd> {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let address = SocketAddr::from_abstract_name(name)?;
            Ok(UnixListener::bind_addr(&address)?.into())
        })?;
    made.join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that was to enter the namespace panicked")))
}
