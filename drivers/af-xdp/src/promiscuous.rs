//! Promiscuous mode while a port requests it: a membership of a packet socket, which ends at the latest when
//! the socket is closed.

use std::io;

use linecard_netdev::Namespace;
use linecard_netdev::packet_socket::Socket;

/// A packet socket that receives nothing and holds the promiscuous membership.
#[derive(Debug)]
pub(super) struct Promiscuous {
    socket: Socket,
    index: u32,
}

impl Promiscuous {
    /// `None` without the permission to open one; the interface then stays unchanged.
    pub(super) fn new(namespace: &Namespace, index: u32) -> Option<Self> {
        let socket = namespace.run(Socket::open).ok()?.ok()?;
        Some(Self { socket, index })
    }

    /// Adds or drops the membership.
    pub(super) fn set(&self, on: bool) -> io::Result<()> {
        self.socket.promiscuous(self.index, on)
    }
}

impl Drop for Promiscuous {
    fn drop(&mut self) {
        // Not left to the close: a child process that is being started holds a copy of the socket for a
        // moment.
        let _ = self.set(false);
    }
}
