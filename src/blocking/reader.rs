//! The receiving half of a blocking port.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SharedRunning;
use crate::mempool::{Burst, Packet};
use crate::pmd::{Adaptive, PortControl, RxQueue};

/// How long the reader polls after the last packet before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// The receiving half of a [`PacketPort`](super::PacketPort).
///
/// ```
/// use std::io::ErrorKind;
/// use std::time::Duration;
/// let (mut reader, mut writer) = linecard::blocking::open("net_ring0")?.split();
/// reader.set_timeout(Some(Duration::from_millis(1)));
/// assert_eq!(reader.read(&mut [0; 2048]).map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
/// writer.write(&[2; 60])?;
/// let mut start = [0; 14];
/// assert_eq!((reader.read(&mut start)?, reader.truncated()), (14, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PacketReader {
    queues: Vec<Box<dyn RxQueue>>,
    /// The queue that is polled first, so that a busy queue does not starve the others.
    next: usize,
    /// Packets that were received but not read yet.
    arrived: VecDeque<Packet>,
    adaptive: Adaptive,
    timeout: Option<Duration>,
    nonblocking: bool,
    truncated: u64,
    control: Arc<dyn PortControl>,
    /// Dropped after the queues.
    _running: Option<SharedRunning>,
}

impl PacketReader {
    pub(super) fn new(mut queues: Vec<Box<dyn RxQueue>>, control: Arc<dyn PortControl>) -> Self {
        queues.iter_mut().for_each(|queue| queue.prepare_arm());
        Self {
            queues,
            next: 0,
            arrived: VecDeque::new(),
            adaptive: Adaptive::new(SPIN, Duration::MAX),
            timeout: None,
            nonblocking: false,
            truncated: 0,
            control,
            _running: None,
        }
    }

    pub(super) fn keep_started(self, running: SharedRunning) -> Self {
        Self { _running: Some(running), ..self }
    }

    pub(super) fn into_queues(self) -> (Vec<Box<dyn RxQueue>>, Arc<dyn PortControl>) {
        (self.queues, self.control)
    }

    /// The port's name, address, MTU, link and counters.
    #[must_use]
    pub fn control(&self) -> &dyn PortControl {
        &*self.control
    }

    /// Copies the next frame to `buffer`, sleeping until one arrives, and returns the number of bytes copied.
    /// Bytes that do not fit into `buffer` are lost, as with `recv(2)`; [`truncated`](Self::truncated) counts
    /// such frames. A buffer of the port's MTU plus 18 bytes holds every frame of a port without offloads.
    ///
    /// If the peer has disconnected, the call sleeps until the peer is back and sends a packet.
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut) after the timeout, [`WouldBlock`](io::ErrorKind::WouldBlock) in
    /// non-blocking mode, [`Unsupported`](io::ErrorKind::Unsupported) for a port that was started without a
    /// receive queue.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let packet = self.read_packet()?;
        self.truncated += u64::from(packet.len() > buffer.len());
        Ok(packet.read_at(0, buffer))
    }

    /// Returns the next packet without a copy, with the port's metadata, whatever its length; sleeps until
    /// one arrives.
    ///
    /// ```
    /// let mut port = linecard::blocking::open("net_null0,size=128")?;
    /// let packet = port.read_packet()?;
    /// assert_eq!(packet.len(), 128);
    /// port.write_packet(packet)?; // sent as it is, without a copy
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_packet(&mut self) -> io::Result<Packet> {
        if let Some(packet) = self.receive() {
            return Ok(packet);
        }
        if self.queues.is_empty() {
            let problem = "the port has no receive queue; configure it with one";
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        }
        if self.nonblocking {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A deadline that `Instant` cannot represent counts as none.
        let end = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.adaptive.set_bound(left);
            let mut queues: Vec<&mut dyn RxQueue> =
                self.queues.iter_mut().map(|queue| &mut **queue as &mut dyn RxQueue).collect();
            self.adaptive.wait(0, &mut queues);
            if let Some(packet) = self.receive() {
                return Ok(packet);
            }
        }
    }

    /// Takes a packet that has already arrived; does not wait.
    fn receive(&mut self) -> Option<Packet> {
        if self.arrived.is_empty() {
            let mut packets = Burst::new();
            let count = self.queues.len();
            for queue in (0..count).map(|i| (self.next + i) % count) {
                let moved = self.queues[queue].rx_burst(&mut packets);
                if moved > 0 {
                    self.next = queue + 1;
                    self.adaptive.wait(moved, &mut []);
                    self.arrived.extend(packets.drain(..moved));
                    break;
                }
            }
        }
        self.arrived.pop_front()
    }

    /// With `true`, a read without a packet fails with [`WouldBlock`](io::ErrorKind::WouldBlock) instead of sleeping.
    pub fn set_nonblocking(&mut self, on: bool) {
        self.nonblocking = on;
    }

    /// Sets how long a read waits before it fails with [`TimedOut`](io::ErrorKind::TimedOut); with `None`,
    /// the default, forever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Returns the number of frames that were longer than the buffer of their [`read`](Self::read).
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Returns how often the reader slept, which equals how often it woke: about once for each packet that
    /// arrives alone, never for several packets in a row, and not at all while none arrive.
    #[must_use]
    pub fn sleeps(&self) -> u64 {
        self.adaptive.sleeps()
    }
}

impl fmt::Debug for PacketReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketReader")
            .field("port", &self.control.name())
            .field("queues", &self.queues.len())
            .field("arrived", &self.arrived.len())
            .finish_non_exhaustive()
    }
}
