//! Capture of all packets of a port to a file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use linecard_pmd::port::Port;

use super::Dump;
use crate::pcap::encode::{self, Format};
use crate::{CaptureError, Hub, Options, Session, Stream, Totals};

/// How often the thread of a [`PortDump`] checks for packets. In that time, a queue fills its ring of 4 MiB
/// at 16 Gbit/s.
const LOOK: Duration = Duration::from_millis(2);
/// The number of packets written before the thread checks for the end: more may arrive all the time.
const TURN: usize = 4096;

/// Writes all packets of a started port from now on to a capture file: those that it receives, sends, and
/// drops, the latter with the reason as a comment (pcapng). Use the returned port instead of the given one.
///
/// The polling threads copy frames into one ring per queue and never wait; another thread writes them to the
/// file. Frames that it does not write in time are left out and counted.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver]);
/// # let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// use linecard_capture as capture;
/// # let path = std::env::temp_dir().join(format!("dump-port-doc-{}.pcapng", std::process::id()));
/// let (dump, mut port) = capture::dump_port(&path, port)?;
/// let mut packets = Burst::new();
/// port.rx[0].rx_burst(&mut packets);
/// port.tx[0].tx_burst(&mut packets);
/// let totals = dump.finish()?;
/// assert_eq!((totals.seen, totals.lost), (128, 0));
/// assert_eq!(capture::read(&path)?.count(), 128);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The file cannot be written, or memory is short, or no thread can be started. The port is stopped then.
pub fn dump_port(path: impl AsRef<Path>, port: Port) -> Result<(PortDump, Port), CaptureError> {
    dump_port_with(path, port, &Options::default())
}

/// As [`dump_port`], for the packets and the snapshot length that `options` selects.
///
/// # Errors
/// As [`dump_port`], or if an option is not possible.
pub fn dump_port_with(
    path: impl AsRef<Path>,
    port: Port,
    options: &Options,
) -> Result<(PortDump, Port), CaptureError> {
    let (hub, path) = (Hub::new(), path.as_ref());
    let port = hub.watch(0, port);
    Ok((hub.dump(0, path, Format::of(path), options)?, port))
}

impl Hub {
    /// Writes the packets of a watched port to a capture file. For a port that no hub watches, see
    /// [`dump_port`].
    ///
    /// # Errors
    /// The file cannot be written, the port does not exist or is already being captured, an option is not
    /// possible, memory is short, or no thread can be started.
    pub fn dump(
        &self,
        id: u16,
        path: &Path,
        format: Format,
        options: &Options,
    ) -> Result<PortDump, CaptureError> {
        let (session, mut stream) = self.open(id, options)?;
        let name = self.ports().into_iter().find(|(number, ..)| *number == id);
        let name = name.map_or_else(String::new, |(_, name, ..)| name);
        let mut file = Dump::make(path, format, &name, options.snaplen)?;
        let (over, end) = channel();
        let packets = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&packets);
        let thread = std::thread::Builder::new().name(format!("lc-dump {name}"));
        let thread = thread
            .spawn(move || {
                follow(&mut file, session, &mut stream, (&end, &count)).and_then(|totals| file.end(totals))
            })
            .map_err(|e| {
                CaptureError::system("no thread can be started for a capture file", e, "end others")
            })?;
        Ok(PortDump { thread: Some(thread), over: Some(over), packets })
    }
}

/// Writes arriving packets until `end` is disconnected or the port stops; returns the totals.
fn follow(
    file: &mut Dump,
    session: Session,
    stream: &mut Stream,
    (end, packets): (&Receiver<()>, &AtomicU64),
) -> Result<Totals, CaptureError> {
    while session.alive() {
        let came = drain(file, stream, TURN, u64::MAX)?;
        let wait = if came == 0 { LOOK } else { Duration::ZERO };
        if came < TURN {
            file.flush()?;
        }
        packets.store(file.written(), Ordering::Relaxed);
        if end.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
    }
    // The queues may continue to fill the rings.
    let (totals, until) = (session.totals(), encode::now());
    drop(session);
    drain(file, stream, usize::MAX, until)?;
    Ok(totals)
}

/// Writes the packets in the rings, at most `most` and none captured after `until`; returns how many there
/// were.
fn drain(file: &mut Dump, stream: &mut Stream, most: usize, until: u64) -> Result<usize, CaptureError> {
    let mut count = 0;
    while count < most
        && let Some(frame) = stream.next()?
        && frame.time <= until
    {
        file.frame(&frame)?;
        count += 1;
    }
    Ok(count)
}

/// A port whose packets are written to a file; from [`dump_port`], which has an example. Dropping it ends the
/// file too.
#[derive(Debug)]
#[must_use = "dropped, it ends the file"]
pub struct PortDump {
    /// `Some` until the end.
    thread: Option<JoinHandle<Result<Totals, CaptureError>>>,
    over: Option<Sender<()>>,
    packets: Arc<AtomicU64>,
}

impl PortDump {
    /// Ends the file. It contains all packets that passed before, except the lost ones. The port continues
    /// without it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<Totals, CaptureError> {
        self.end()
    }

    /// The number of packets in the file so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Whether it still writes: it ends when the port is stopped, or if the file cannot be written.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn end(&mut self) -> Result<Totals, CaptureError> {
        self.over = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            // The panic was reported when it happened.
            _ => Err(CaptureError::Refused("the thread that writes the capture file panicked".into())),
        }
    }
}

impl Drop for PortDump {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // To learn of errors, call `finish`.
            let _ = self.end();
        }
    }
}
