//! The ports of a program that can be captured, and their captures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{self, Made, Producer, RingExtent};
use super::point::{Counts, Dropped, Mailbox, Sink, Sinks};
use super::protocol::{Options, Totals};
use super::queues::{WatchedRx, WatchedTx};
use super::record::CELL;
use super::stream::Stream;
use super::{CaptureError, Server};
use crate::pcap::encode::Direction;
use linecard_pmd::handover::HandOver;
use linecard_pmd::port::{Device, Port, Running, RxQueue, TxQueue};

/// One side of a queue, with its mailbox.
struct Side {
    mailbox: Arc<Mailbox>,
    direction: Direction,
    queue: u16,
}

struct Watched {
    id: u16,
    /// Tells this port from an earlier or later one with the same `id`.
    registration: u64,
    name: String,
    sides: Vec<Side>,
    /// The session that captures the port.
    session: Option<u64>,
}

#[derive(Default)]
struct State {
    ports: Vec<Watched>,
}

/// The ports of a program that can be captured. A clone is another handle to the same ports.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
/// use linecard_capture::{Hub, Options};
/// let hub = Hub::new();
/// let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let mut port = hub.watch(0, port);
///
/// let (session, mut stream) = hub.open(0, &Options::default().snaplen(60))?;
/// let mut packets = Burst::new();
/// port.rx[0].rx_burst(&mut packets);
/// let frame = stream.next().expect("not garbled").expect("one of 64");
/// assert_eq!((frame.len, frame.data.len()), (64, 60));
/// assert_eq!(session.totals().seen, 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<State>>);

impl Hub {
    /// Creates a hub without ports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code can panic while a change is incomplete.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a capture point in front of each queue of a started port. Clients refer to the port by `id`; a port
    /// that had this number before is removed. When the port stops, it is removed from the hub, and its captures
    /// end.
    #[must_use]
    pub fn watch(&self, id: u16, port: Port) -> Port {
        let (port, rx, tx) = self.watch_queues(id, port);
        let rx = rx.into_iter().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect();
        let tx = tx.into_iter().map(|tx| Box::new(tx) as Box<dyn TxQueue>).collect();
        Port { rx, tx, ..port }
    }

    /// As [`watch`](Self::watch), but returns the queues separately and unboxed, for loops in which one more
    /// virtual call per burst matters. The returned port has no queues.
    #[must_use]
    pub fn watch_queues(&self, id: u16, port: Port) -> (Port, Vec<WatchedRx>, Vec<WatchedTx>) {
        let Port { rx, tx, control, running } = port;
        let mut sides = Vec::new();
        let mut side = |direction, queue: usize| {
            let mailbox = Arc::new(Mailbox::default());
            let queue = u16::try_from(queue).unwrap_or(u16::MAX);
            sides.push(Side { mailbox: Arc::clone(&mailbox), direction, queue });
            mailbox
        };
        let rx = rx.into_iter().enumerate();
        let rx = rx.map(|(i, inner)| WatchedRx::new(inner, &side(Direction::In, i))).collect();
        let tx = tx.into_iter().enumerate();
        let tx = tx.map(|(i, inner)| WatchedTx::new(inner, &side(Direction::Out, i))).collect();
        let name = control.name().to_owned();
        static REGISTRATIONS: AtomicU64 = AtomicU64::new(0);
        let number = REGISTRATIONS.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        for replaced in state.ports.extract_if(.., |port| port.id == id) {
            replaced.sides.iter().for_each(|side| side.mailbox.send(None));
        }
        state.ports.push(Watched { id, registration: number, name, sides, session: None });
        state.ports.sort_by_key(|port| port.id);
        drop(state);
        let registration = Registration { number, hub: self.clone() };
        let running = Box::new(WatchedRunning { inner: running, registration });
        (Port { rx: Vec::new(), tx: Vec::new(), control, running }, rx, tx)
    }

    /// The number, the name, and the numbers of receive and transmit queues of each port.
    #[must_use]
    pub fn ports(&self) -> Vec<(u16, String, usize, usize)> {
        let count = |port: &Watched, way| port.sides.iter().filter(|side| side.direction == way).count();
        let of = |port: &Watched| {
            (port.id, port.name.clone(), count(port, Direction::In), count(port, Direction::Out))
        };
        self.lock().ports.iter().map(of).collect()
    }

    /// Listens for `linecard capture` on a Unix socket that only its owner can use; see [`Server`].
    ///
    /// # Errors
    /// The socket or its thread cannot be created.
    pub fn serve(&self, path: &std::path::Path) -> Result<Server, CaptureError> {
        Server::start(self.clone(), path)
    }

    /// Captures a port in this process, until the session is dropped.
    ///
    /// # Errors
    /// The port does not exist or is already being captured, an option is not possible, or memory is short.
    pub fn open(&self, id: u16, options: &Options) -> Result<(Session, Stream), CaptureError> {
        let (session, made) = self.begin(id, options)?;
        let stream = Stream::attach(&made.file, &made.places);
        let stream = stream
            .map_err(|e| CaptureError::system("the capture's memory cannot be mapped", e, "free memory"))?;
        Ok((session, stream))
    }

    /// Creates rings and sends them to the polling threads.
    pub(super) fn begin(&self, id: u16, options: &Options) -> Result<(Session, SharedRings), CaptureError> {
        static SESSIONS: AtomicU64 = AtomicU64::new(0);
        options.check()?;
        let mut state = self.lock();
        let known: Vec<_> = state.ports.iter().map(|port| format!("{} ({})", port.id, port.name)).collect();
        let Some(port) = state.ports.iter_mut().find(|port| port.id == id) else {
            let known = if known.is_empty() {
                "no port is watched".into()
            } else {
                format!("known: {}", known.join(", "))
            };
            return Err(CaptureError::Refused(format!("there is no port {id}; {known}")));
        };
        if port.session.is_some() {
            let text = format!("port {id} ({}) is being captured already; end that capture first", port.name);
            return Err(CaptureError::Refused(text));
        }
        let wanted = |side: &&Side| match side.direction {
            Direction::In => options.received,
            _ => options.sent,
        };
        let cells = (options.ring / CELL).next_power_of_two();
        let each: Vec<usize> =
            port.sides.iter().filter(wanted).flat_map(|_| [cells, (cells / 4).max(CELL)]).collect();
        let Made { file, producers, places } = memory::make(&each).map_err(|e| {
            CaptureError::system("memory for a capture cannot be had", e, "ask for smaller rings")
        })?;
        let mut counts = Vec::new();
        let filter = options.filter.clone().map(Arc::new);
        let mut producers = producers.into_iter();
        for side in port.sides.iter().filter(wanted) {
            let mut sink = |ring: Producer| {
                let own = Arc::new(Counts::default());
                counts.push(Arc::clone(&own));
                Sink {
                    ring,
                    filter: filter.clone(),
                    snaplen: options.snaplen as usize,
                    counts: own,
                    direction: side.direction,
                    queue: side.queue,
                }
            };
            if let (Some(passed), Some(dropped)) = (producers.next(), producers.next()) {
                side.mailbox.send(Some(Sinks { passed: sink(passed), dropped: Dropped::new(sink(dropped)) }));
            }
        }
        let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
        port.session = Some(session);
        let shared = SharedRings { file, places, name: port.name.clone() };
        Ok((Session { hub: self.clone(), port: id, session, counts }, shared))
    }

    /// Frees rings that polling threads have returned.
    pub(super) fn collect(&self) {
        self.lock().ports.iter().flat_map(|port| &port.sides).for_each(|side| side.mailbox.collect());
    }

    fn forget(&self, registration: u64) {
        self.lock().ports.retain(|port| port.registration != registration);
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ports()).finish()
    }
}

/// The data that the reader of a capture needs.
pub(super) struct SharedRings {
    pub(super) file: std::os::fd::OwnedFd,
    pub(super) places: Vec<RingExtent>,
    pub(super) name: String,
}

/// A capture of one port, which ends when this is dropped. The queues return their rings with their next
/// burst.
///
/// ```
/// use linecard_capture::{Hub, Options};
/// let none = Hub::new().open(0, &Options::default().snaplen(0)).err().expect("too short");
/// assert_eq!(none.to_string(), "a snapshot of 0 bytes is not possible; 1 to 262144 are");
/// ```
pub struct Session {
    hub: Hub,
    port: u16,
    session: u64,
    counts: Vec<Arc<Counts>>,
}

impl Session {
    /// The number of frames so far, and of lost copies.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.counts.iter().fold(Totals::default(), |sum, counts| Totals {
            seen: sum.seen + counts.seen.value(),
            lost: sum.lost + counts.lost.value(),
        })
    }

    /// Whether the port is still running.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.hub.lock().ports.iter().any(|port| port.id == self.port && port.session == Some(self.session))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("port", &self.port).field("totals", &self.totals()).finish()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        // Another port may have this number by now.
        let own = |port: &&mut Watched| port.id == self.port && port.session == Some(self.session);
        if let Some(port) = state.ports.iter_mut().find(own) {
            port.session = None;
            port.sides.iter().for_each(|side| side.mailbox.send(None));
        }
    }
}

/// A started port that is watched.
struct WatchedRunning {
    inner: Box<dyn Running>,
    registration: Registration,
}

impl Running for WatchedRunning {
    fn hand_over(&self) -> Option<&dyn HandOver> {
        self.inner.hand_over()
    }

    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        let Self { inner, registration } = *self;
        drop(registration);
        // These contain the driver's queues; a port may be stopped without its queues.
        drop((rx, tx));
        inner.stop(Vec::new(), Vec::new())
    }
}

/// Removes the port from the hub when dropped.
struct Registration {
    number: u64,
    hub: Hub,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.forget(self.number);
    }
}
