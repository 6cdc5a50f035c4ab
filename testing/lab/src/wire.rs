//! A raw socket on an interface, for tests: frames as the kernel sees them.

use std::io;

use linecard_mempool::Pool;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use crate::contract::Peer;
use linecard_netdev::packet_socket::Socket;
use linecard_pmd::config::PortConfig;

/// Size of the socket's buffers in bytes: tests send bursts, and the kernel drops what does not fit.
const WAITING: usize = 64 << 20;

/// Sends and receives complete frames on one interface, through a packet socket (`packet(7)`).
///
/// ```
/// use linecard_lab::Lab;
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
pub struct Wire(Socket);

impl Wire {
    /// Opens a non-blocking socket on the interface of that index in the calling thread's namespace.
    ///
    /// # Errors
    /// Missing permission, or no such interface.
    pub fn open(index: u32) -> io::Result<Self> {
        let socket = Socket::open()?;
        socket.set(libc::PACKET_IGNORE_OUTGOING, &1)?;
        // Root of a user namespace may not do that and gets net.core.rmem_max: then fewer frames can wait.
        if sockopt::set_socket_recv_buffer_size_force(&socket, WAITING).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, WAITING)?;
        }
        sockopt::set_socket_send_buffer_size(&socket, WAITING)?;
        socket.bind(index, libc::ETH_P_ALL as u16)?;
        Ok(Self(socket))
    }

    /// Sends a frame; false if the kernel has no room for it, or the interface is down.
    #[must_use]
    pub fn send(&self, frame: &[u8]) -> bool {
        send(&self.0, frame, SendFlags::empty()).is_ok()
    }

    /// Returns the next frame received on the interface, if there is one.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65_536 + 64];
        let (len, _) = recv(&self.0, &mut frame[..], RecvFlags::empty()).ok()?;
        frame.truncate(len);
        Some(frame)
    }
}

/// Needs no preparation: its interface is up as long as the test keeps it up.
impl Peer for Wire {
    fn start(&mut self, _: &PortConfig, _: &Pool) {}

    fn is_up(&self) -> bool {
        true
    }

    fn send(&mut self, _: usize, frame: &[u8]) -> bool {
        Self::send(self, frame)
    }

    fn receive(&mut self, _: usize) -> Option<Vec<u8>> {
        Self::receive(self)
    }

    fn stop(&mut self) {}
}
