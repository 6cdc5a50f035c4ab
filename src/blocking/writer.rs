//! The sending half of a blocking port.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{SendError, SharedRunning};
use crate::mempool::{Burst, Packet, Pool};
use crate::pmd::{PortControl, TxQueue};

/// The shortest frame: an Ethernet header.
const SHORTEST: usize = 14;
/// Bytes of a frame besides its layer-3 packet: an Ethernet header and a VLAN tag.
const BESIDE: usize = 18;
/// How long the writer sleeps when a queue is full for the first time.
const FIRST_SLEEP: Duration = Duration::from_micros(100);
/// The longest sleep; each sleep is twice as long as the one before.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// The sending half of a [`PacketPort`](super::PacketPort).
///
/// ```
/// use std::io::ErrorKind;
/// let (reader, mut writer) = linecard::blocking::open("net_ring0")?.split();
/// writer.set_nonblocking(true);
/// let full = std::iter::repeat_with(|| writer.write(&[2; 60])).find_map(Result::err).expect("nobody reads");
/// assert_eq!(full.kind(), ErrorKind::WouldBlock);
/// # drop(reader);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PacketWriter {
    /// Only the first queue is used.
    queues: Vec<Box<dyn TxQueue>>,
    control: Arc<dyn PortControl>,
    pool: Pool,
    /// The packet being sent; empty between calls.
    out: Burst,
    timeout: Option<Duration>,
    nonblocking: bool,
    /// Dropped after the queues.
    _running: Option<SharedRunning>,
}

/// The state of waiting within one call.
struct Backoff {
    end: Option<Instant>,
    sleep: Duration,
}

impl PacketWriter {
    pub(super) fn new(queues: Vec<Box<dyn TxQueue>>, control: Arc<dyn PortControl>, pool: Pool) -> Self {
        Self { queues, control, pool, out: Burst::new(), timeout: None, nonblocking: false, _running: None }
    }

    pub(super) fn keep_started(self, running: SharedRunning) -> Self {
        Self { _running: Some(running), ..self }
    }

    pub(super) fn into_queues(self) -> Vec<Box<dyn TxQueue>> {
        self.queues
    }

    /// The port's name, address, MTU, link and counters.
    #[must_use]
    pub fn control(&self) -> &dyn PortControl {
        &*self.control
    }

    /// Sends one frame, whole or not at all, and returns its length; waits while the port has no room.
    ///
    /// `Ok` means that the port accepted the frame, not that it was delivered, as with any datagram. The
    /// port's [counters](crate::pmd::PortStats) include the packets that it dropped.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a frame that is too short or too long;
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) when there is no room and the link is down, so that
    /// waiting would not help; [`TimedOut`](io::ErrorKind::TimedOut) after the timeout;
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) in non-blocking mode;
    /// [`Unsupported`](io::ErrorKind::Unsupported) for a port without a transmit queue. Some have a
    /// [`SendError`] as inner error.
    pub fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        let max = usize::from(self.control.mtu()) + BESIDE;
        if !(SHORTEST..=max).contains(&frame.len()) {
            return Err(SendError::Length { len: frame.len(), max }.into());
        }
        let mut backoff = None;
        loop {
            // Packets return to the pool once the peer has received them.
            if let Some(packet) = self.pool.packet_of(frame, usize::MAX) {
                self.send(packet, backoff)?;
                return Ok(frame.len());
            }
            backoff = Some(self.wait(backoff)?);
        }
    }

    /// Sends a packet of any pool unchanged, with the offloads that it requests; waits while the port has no
    /// room. A packet that is not sent is dropped.
    ///
    /// # Errors
    /// As [`write`](Self::write), except that the port drops and counts a packet of a length that it does not
    /// accept.
    pub fn write_packet(&mut self, packet: Packet) -> io::Result<()> {
        self.send(packet, None)
    }

    fn send(&mut self, packet: Packet, mut backoff: Option<Backoff>) -> io::Result<()> {
        // `out` is empty and has room for one packet.
        let _ = self.out.push(packet);
        loop {
            let queue = self.queues.first_mut().ok_or(SendError::NoQueue);
            let sent = queue.map(|queue| {
                queue.tx_burst(&mut self.out);
                // The next call may be far away, so finish deferred work now.
                queue.reclaim();
                self.out.is_empty()
            });
            let waited = match sent {
                Ok(true) => return Ok(()),
                Ok(false) => self.wait(backoff),
                Err(error) => Err(error.into()),
            };
            match waited {
                Ok(waited) => backoff = Some(waited),
                Err(error) => {
                    self.out.clear();
                    return Err(error);
                }
            }
        }
    }

    /// Sleeps while the queue is full; fails in non-blocking mode, after the timeout, or when the link is
    /// down.
    fn wait(&mut self, before: Option<Backoff>) -> io::Result<Backoff> {
        if !self.control.link().up {
            return Err(SendError::Down.into());
        }
        if self.nonblocking {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut backoff = before.unwrap_or_else(|| Backoff {
            end: self.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            sleep: FIRST_SLEEP,
        });
        let left = backoff.end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(backoff.sleep.min(left));
        backoff.sleep = (backoff.sleep * 2).min(LONGEST_SLEEP);
        self.queues.first_mut().into_iter().for_each(|queue| queue.reclaim());
        Ok(backoff)
    }

    /// With `true`, a write without room fails with [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting.
    pub fn set_nonblocking(&mut self, on: bool) {
        self.nonblocking = on;
    }

    /// Sets how long a write waits for room before it fails with [`TimedOut`](io::ErrorKind::TimedOut); with
    /// `None`, the default, forever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }
}

impl fmt::Debug for PacketWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketWriter").field("port", &self.control.name()).finish_non_exhaustive()
    }
}
