//! Blocking `read` and `write` of packets on any port, like those of a tun device, for programs that need no
//! framework.
//!
//! ```
//! let mut port = linecard::blocking::open("net_ring0")?; // what it sends, it receives
//! let frame = [2; 60];
//! port.write(&frame)?;
//! let mut buffer = [0; 2048];
//! let length = port.read(&mut buffer)?; // sleeps until a packet comes
//! assert_eq!(&buffer[..length], &frame);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! Each call moves one Ethernet frame without its frame check sequence. `examples/blocking_echo.rs` answers
//! pings.
//!
//! | | |
//! |---|---|
//! | memory of your own, more queues, offloads | [`PacketPort::new`] with a port opened by [`open`](crate::open), by [`ports`](crate::ports) or in steps |
//! | one thread that reads and one that writes | [`PacketPort::split`] |
//! | non-blocking calls, timeouts | [`set_nonblocking`](PacketPort::set_nonblocking), [`set_read_timeout`](PacketPort::set_read_timeout), [`set_write_timeout`](PacketPort::set_write_timeout) |
//! | packets without a copy | [`read_packet`](PacketPort::read_packet), [`write_packet`](PacketPort::write_packet) |
//!
//! **Sleeping.** A reader polls for 50 µs after its last packet and then sleeps in the kernel until the port
//! wakes it. An idle reader uses no processor time. [`wake`](crate::pmd::wake) lists the drivers that wake a
//! reader; the others (`net_null`, a `net_pcap` at the end of its file, `net_impair` while it delays packets)
//! are polled 10 000 times a second. A transmit queue gives no wake-up: when the port is full, a writer
//! retries after 100 µs, then 200 µs, up to once per millisecond.
//!
//! **Datagrams, not a stream.** The types here deliberately do not implement [`std::io::Read`] and
//! [`std::io::Write`], which describe byte streams: a `BufReader` would join frames, `read_exact` would take
//! the rest of a frame for its next bytes, `write!` would send each piece of its text as a frame, and `Ok(0)`
//! would mean the end. The methods have the same names, return [`std::io::Result`], and behave as those of
//! [`UnixDatagram`](std::os::unix::net::UnixDatagram).
//!
//! **No `try_clone`.** A queue belongs to one thread; this is why a burst takes no lock. Two writing threads
//! share a [`PacketWriter`] behind a `Mutex`, or use one port each.
//!
//! **Throughput.** Writing sends bursts of one packet; reading takes up to 64 packets from the port at a
//! time. A program that needs millions of packets per second uses bursts, as shown in [the crate
//! documentation](crate).

mod reader;
mod writer;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use self::reader::PacketReader;
pub use self::writer::PacketWriter;
use crate::eal::memory::{Memory, MemoryConfig};
use crate::mempool::{self, Packet, Pool, PoolConfig};
use crate::pmd::{self, Port, PortConfig, PortControl, ProbeContext, Running, configure};

/// Packets in the pool of [`open`]: more than the rings of any driver hold at their default sizes.
const PACKETS: u32 = 4096;

/// Keeps a port started while only its halves exist.
type SharedRunning = Arc<Mutex<Box<dyn Running>>>;

/// Why a frame was not sent, other than a lack of time or room. It is the inner error of an [`io::Error`].
///
/// ```
/// use linecard::blocking::SendError;
/// let mut port = linecard::blocking::open("net_ring0")?;
/// let error = port.write(&[0; 5]).expect_err("shorter than an Ethernet header");
/// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
/// let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SendError>());
/// assert!(matches!(inner, Some(SendError::Length { len: 5, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): the frame's length is outside of the port's limits.
    #[error("a frame of {len} bytes cannot be sent; the port takes 14 to {max}, by its MTU")]
    Length {
        /// Bytes of the frame.
        len: usize,
        /// The maximum length in bytes: the port's MTU, the Ethernet header and a VLAN tag.
        max: usize,
    },
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the transmit queue is full, and no peer is connected that
    /// would make room.
    #[error("the frame was not sent, because the port's link is down; send it again when the peer is back")]
    Down,
    /// [`Unsupported`](io::ErrorKind::Unsupported): the port was started without a transmit queue.
    #[error("the port has no transmit queue; configure it with one")]
    NoQueue,
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match error {
            SendError::Length { .. } => io::ErrorKind::InvalidInput,
            SendError::Down => io::ErrorKind::NetworkDown,
            SendError::NoQueue => io::ErrorKind::Unsupported,
        };
        Self::new(kind, error)
    }
}

/// Opens the device that `arguments` names, as [`linecard::open`](crate::open) does, with a pool of its own:
/// 4096 packets, on hugepages if some are free.
///
/// ```
/// let port = linecard::blocking::open("net_null0,size=128")?;
/// assert_eq!(port.control().name(), "net_null0");
/// let refused = linecard::blocking::open("net_nil0").err().expect("there is none");
/// assert!(refused.to_string().starts_with("no driver for device 'net_nil0'"));
/// # Ok::<(), linecard::pmd::Error>(())
/// ```
///
/// # Errors
/// No driver has this name, the driver rejects the arguments, the device cannot be opened, or memory is
/// short.
pub fn open(arguments: &str) -> Result<PacketPort, pmd::Error> {
    let short = |source| pmd::Error::Memory { port: arguments.to_owned(), source };
    let memory = Memory::new(MemoryConfig::default()).map_err(short)?;
    let domain = memory.domain("packets").map_err(short)?;
    let config = PoolConfig::default().packets(PACKETS);
    let pool = Pool::new(&domain, config).map_err(|error| match error {
        mempool::Error::Memory { source, .. } => short(source),
        other => pmd::Error::Argument {
            device: arguments.to_owned(),
            problem: other.to_string(),
            remedy: "use PacketPort::new with a pool of your own".to_owned(),
        },
    })?;
    let context = ProbeContext::new(memory, domain, crate::WAIT);
    let device = crate::drivers().probe(&context, arguments)?;
    let port = configure(device, PortConfig::default())?.start(&pool)?;
    Ok(PacketPort::new(port, &pool))
}

/// A started port with `read` and `write`; see the example of the [module](self). `PacketPort` and its halves
/// are `Send`, but not `Sync`.
pub struct PacketPort {
    reader: PacketReader,
    writer: PacketWriter,
    running: Box<dyn Running>,
}

impl PacketPort {
    /// Reads from all receive queues of `port` and writes to its first transmit queue. Written frames are
    /// copied to packets of `pool`.
    ///
    /// ```
    /// use linecard::blocking::PacketPort;
    /// use linecard::prelude::*;
    /// let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
    /// let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
    /// let port = linecard::open(&eal, &pool, "net_null0,size=128")?;
    /// let mut port = PacketPort::new(port, &pool);
    /// assert_eq!(port.read(&mut [0; 2048])?, 128);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(port: Port, pool: &Pool) -> Self {
        let Port { rx, tx, control, running } = port;
        let reader = PacketReader::new(rx, Arc::clone(&control));
        Self { reader, writer: PacketWriter::new(tx, control, pool.clone()), running }
    }

    /// The port's name, address, MTU, link and counters.
    #[must_use]
    pub fn control(&self) -> &dyn PortControl {
        self.reader.control()
    }

    /// See [`PacketReader::read`].
    ///
    /// # Errors
    /// As [`PacketReader::read`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }

    /// See [`PacketReader::read_packet`].
    ///
    /// # Errors
    /// As [`PacketReader::read`].
    pub fn read_packet(&mut self) -> io::Result<Packet> {
        self.reader.read_packet()
    }

    /// See [`PacketWriter::write`].
    ///
    /// # Errors
    /// As [`PacketWriter::write`].
    pub fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.writer.write(frame)
    }

    /// See [`PacketWriter::write_packet`].
    ///
    /// # Errors
    /// As [`PacketWriter::write`].
    pub fn write_packet(&mut self, packet: Packet) -> io::Result<()> {
        self.writer.write_packet(packet)
    }

    /// With `true`, reads and writes never wait: they fail with [`WouldBlock`](io::ErrorKind::WouldBlock)
    /// instead.
    pub fn set_nonblocking(&mut self, on: bool) {
        self.reader.set_nonblocking(on);
        self.writer.set_nonblocking(on);
    }

    /// Sets how long a read waits before it fails with [`TimedOut`](io::ErrorKind::TimedOut); with `None`,
    /// the default, forever.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.reader.set_timeout(timeout);
    }

    /// Sets how long a write waits for room before it fails with [`TimedOut`](io::ErrorKind::TimedOut); with
    /// `None`, the default, forever.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.writer.set_timeout(timeout);
    }

    /// Splits the port into halves for two threads. The port stops when the second half is dropped.
    ///
    /// ```
    /// let (mut reader, mut writer) = linecard::blocking::open("net_ring0")?.split();
    /// let thread = std::thread::spawn(move || reader.read(&mut [0; 2048]));
    /// writer.write(&[2; 60])?;
    /// assert_eq!(thread.join().expect("it ends")?, 60);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn split(self) -> (PacketReader, PacketWriter) {
        let Self { reader, writer, running } = self;
        let running: SharedRunning = Arc::new(Mutex::new(running));
        (reader.keep_started(Arc::clone(&running)), writer.keep_started(running))
    }

    /// Returns the port, to be polled, stopped, or configured again. Packets that were received but not read
    /// are dropped.
    #[must_use]
    pub fn into_port(self) -> Port {
        let Self { reader, writer, running } = self;
        let (rx, control) = reader.into_queues();
        Port { rx, tx: writer.into_queues(), control, running }
    }
}

impl std::fmt::Debug for PacketPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reader, writer, .. } = self;
        f.debug_struct("PacketPort").field("reader", reader).field("writer", writer).finish_non_exhaustive()
    }
}
