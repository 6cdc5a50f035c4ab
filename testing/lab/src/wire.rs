//! A raw socket on an interface: frames as the kernel sees them, for tests.

use std::io;

use linecard_mempool::Pool;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use crate::contract::Peer;
use linecard_netdev::packet_socket::Socket;
use linecard_pmd::config::PortConfig;

/// Bytes that may wait in the socket; tests send bursts, and the kernel drops what does not fit.
const WAITING: usize = 64 << 20;

/// Somebody who sends and receives whole frames on one interface, by a packet socket (`packet(7)`).
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
    /// A non-blocking socket on the interface of that index in the calling thread's namespace.
    ///
    /// # Errors
    /// No permission, or no such interface.
    pub fn open(index: u32) -> io::Result<Self> {
        let socket = Socket::open()?;
        socket.set(libc::PACKET_IGNORE_OUTGOING, &1)?;
        // Root of a user namespace may not, and has what net.core.rmem_max allows: fewer frames may wait then.
        if sockopt::set_socket_recv_buffer_size_force(&socket, WAITING).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, WAITING)?;
        }
        sockopt::set_socket_send_buffer_size(&socket, WAITING)?;
        socket.bind(index, libc::ETH_P_ALL as u16)?;
        Ok(Self(socket))
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

/// Its interface is up for as long as the test wants it to be, and nothing has to be made ready.
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
