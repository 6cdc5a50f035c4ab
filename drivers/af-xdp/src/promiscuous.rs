//! Promiscuous mode for as long as a port wants it: a membership of a packet socket, which the kernel ends with the
//! socket at the latest.

use std::io;

use linecard_netdev::Namespace;
use linecard_netdev::packet_socket::Socket;

/// A packet socket that receives nothing and may have the interface be promiscuous.
#[derive(Debug)]
pub(super) struct Promiscuous {
    socket: Socket,
    index: u32,
}

impl Promiscuous {
    /// `None` without the right to open one: then the interface stays as it is.
    pub(super) fn new(namespace: &Namespace, index: u32) -> Option<Self> {
        let socket = namespace.run(Socket::open).ok()?.ok()?;
        Some(Self { socket, index })
    }

    /// Asks for it, or no longer.
    pub(super) fn set(&self, on: bool) -> io::Result<()> {
        self.socket.promiscuous(self.index, on)
    }
}

impl Drop for Promiscuous {
    fn drop(&mut self) {
        // Not left to the close: a process that this one is just starting has a copy of the socket for a moment.
        let _ = self.set(false);
    }
}
