//! The state of a port's peer, readable by any thread.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use linecard_eal::eventfd::EventFd;
use linecard_eal::notifier::SignalBudget;
use linecard_eal::wake::{Relay, Source};
use linecard_pmd::Link;
use linecard_pmd::link::LinkEvents;
use linecard_virtio::{Features, PeerFault};
use linecard_wire::ProtocolFeatures;

use crate::limits::Ledger;
use crate::session::Terms;

/// Logs a line about a peer, unless the limit for this second is reached.
macro_rules! tell {
    ($peer:expr, $level:ident, $($what:tt)+) => {
        if $peer.may_log() {
            tracing::$level!(port = $peer.name(), $($what)+);
        }
    };
}
pub(crate) use tell;

/// State and history of the peer of one backend.
///
/// The control thread writes it, and polling threads count faults and notifications; any thread may read it.
///
/// ```
/// use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
/// let control = Control::new();
/// let path = std::env::temp_dir().join(format!("peer-doc-{}", std::process::id()));
/// let backend = Backend::new(&control, BackendConfig::new("demo", &path, Mode::Listen))?;
/// assert!(!backend.peer().connected());
/// # Ok::<(), linecard_vhost_user::Error>(())
/// ```
pub struct Peer {
    name: String,
    waker: Arc<EventFd>,
    connected: AtomicBool,
    link: AtomicBool,
    features: AtomicU64,
    protocol: AtomicU64,
    mtu: AtomicU16,
    connects: AtomicU64,
    disconnects: AtomicU64,
    refusals: AtomicU64,
    faults: AtomicU64,
    notifications: AtomicU64,
    notification_errors: AtomicU64,
    /// The time budget for notifications, shared by all connections.
    pub(crate) signal_budget: Arc<SignalBudget>,
    /// Forwards kicks to sleeping pollers, by queue pair.
    pub(crate) relay: Relay,
    log: LogBudget,
    /// Stopped rings that the control thread has not logged yet.
    stops: ArrayQueue<Stop>,
    /// Limits the number of log lines.
    ledger: Ledger,
    /// The running rings, by ring index.
    rings: Mutex<Vec<Option<ShownRing>>>,
    /// Rings that the user has stopped.
    stopped: Vec<AtomicBool>,
    /// The recipients of link changes.
    link_events: Arc<LinkEvents>,
}

/// Why a polling thread stopped a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Fault(PeerFault),
    /// The peer removed a page of its memory.
    Quarantine,
}

/// The visible properties of a running ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownRing {
    /// The name of its data path.
    pub(crate) path: &'static str,
    /// Its number of descriptors.
    pub(crate) size: u16,
}

impl Peer {
    pub(crate) fn new(name: String, waker: Arc<EventFd>, terms: Terms, ledger: &Ledger) -> Self {
        let rings = usize::from(terms.queue_pairs) * 2;
        Self {
            waker,
            connected: AtomicBool::new(false),
            link: AtomicBool::new(false),
            features: AtomicU64::new(0),
            protocol: AtomicU64::new(0),
            mtu: AtomicU16::new(0),
            connects: AtomicU64::new(0),
            disconnects: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
            notification_errors: AtomicU64::new(0),
            signal_budget: Arc::new(SignalBudget::new(Arc::new(ledger.clone()))),
            relay: Relay::new(&name, terms.queue_pairs.into()),
            name,
            log: LogBudget::new(),
            stops: ArrayQueue::new(rings.max(1)),
            ledger: ledger.clone(),
            rings: Mutex::new(vec![None; rings]),
            stopped: (0..rings).map(|_| AtomicBool::new(false)).collect(),
            link_events: Arc::new(LinkEvents::new(Link::DOWN)),
        }
    }

    /// The name of the backend.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a frontend is connected.
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Whether packets can flow: a frontend is connected, and a queue pair runs and is enabled.
    pub fn link_up(&self) -> bool {
        self.link.load(Relaxed)
    }

    /// The negotiated virtio features; empty before the negotiation.
    pub fn features(&self) -> Features {
        Features::from_bits_retain(self.features.load(Relaxed))
    }

    /// The negotiated protocol features.
    pub fn protocol_features(&self) -> ProtocolFeatures {
        ProtocolFeatures::from_bits_retain(self.protocol.load(Relaxed))
    }

    /// The MTU that the frontend set, if any.
    pub fn mtu(&self) -> Option<u16> {
        Some(self.mtu.load(Relaxed)).filter(|mtu| *mtu > 0)
    }

    /// The data path of ring `index`, while it runs.
    pub fn path(&self, index: usize) -> Option<&'static str> {
        self.ring(index).map(|ring| ring.path)
    }

    /// The properties of ring `index`, while it runs.
    pub(crate) fn ring(&self, index: usize) -> Option<ShownRing> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied().flatten()
    }

    /// Whether the user has stopped the queue of ring `index`.
    pub(crate) fn is_stopped(&self, index: usize) -> bool {
        self.stopped.get(index).is_some_and(|stopped| stopped.load(Relaxed))
    }

    /// Notes whether the user has stopped the queue of ring `index`. Returns whether that changed.
    pub(crate) fn set_stopped(&self, index: usize, on: bool) -> bool {
        self.stopped.get(index).is_some_and(|stopped| stopped.swap(on, Relaxed) != on)
    }

    /// The recipients of changes of the [link](Self::link_up).
    pub fn link_events(&self) -> &Arc<LinkEvents> {
        &self.link_events
    }

    /// The link as the port reports it.
    pub(crate) fn shown_link(&self) -> Link {
        /// The nominal speed of a vhost port in DPDK.
        const SPEED_MBPS: u32 = 10_000;
        Link { up: self.link_up(), speed_mbps: Some(SPEED_MBPS), full_duplex: true }
    }

    /// Counters by name: connections, refused requests, faults, notifications.
    pub fn counters(&self) -> [(&'static str, u64); 6] {
        [
            ("connects", self.connects.load(Relaxed)),
            ("disconnects", self.disconnects.load(Relaxed)),
            ("refused_requests", self.refusals.load(Relaxed)),
            ("ring_faults", self.faults.load(Relaxed)),
            ("guest_notifications", self.notifications.load(Relaxed)),
            ("guest_notifications_error", self.notification_errors.load(Relaxed)),
        ]
    }

    pub(crate) fn set_connected(&self) {
        self.connected.store(true, Relaxed);
        self.connects.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_disconnected(&self) {
        self.connected.store(false, Relaxed);
        self.disconnects.fetch_add(1, Relaxed);
        self.set_negotiated(Features::empty(), ProtocolFeatures::empty());
        self.mtu.store(0, Relaxed);
    }

    pub(crate) fn set_negotiated(&self, features: Features, protocol: ProtocolFeatures) {
        self.features.store(features.bits(), Relaxed);
        self.protocol.store(protocol.bits(), Relaxed);
    }

    pub(crate) fn set_mtu(&self, mtu: u16) {
        self.mtu.store(mtu, Relaxed);
    }

    pub(crate) fn set_rings(&self, link: bool, rings: Vec<Option<ShownRing>>) {
        let changes = self.link.swap(link, Relaxed) != link;
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) = rings;
        if changes {
            self.link_events.tell(self.shown_link());
        }
    }

    pub(crate) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    /// Reports a stopped ring. Lines are written by the control thread: a polling thread would wait for whoever
    /// reads the log.
    pub(crate) fn report(&self, stop: Stop) {
        if self.stops.push(stop).is_err() {
            self.log.left_out.fetch_add(1, Relaxed);
        }
        self.wake_control();
    }

    /// Logs the rings that polling threads have stopped. Called by the control thread.
    pub(crate) fn tell_stops(&self) {
        while let Some(stop) = self.stops.pop() {
            match stop {
                Stop::Fault(fault) => tell!(self, warn, %fault, "ring stopped"),
                Stop::Quarantine => tell!(self, warn, "the peer took memory away; ring stopped"),
            }
        }
    }

    pub(crate) fn count_notification(&self, sent: bool) {
        let counter = if sent { &self.notifications } else { &self.notification_errors };
        counter.fetch_add(1, Relaxed);
    }

    /// Whether one more line about this peer may be logged. The peer causes these lines, so their number is
    /// limited.
    pub(crate) fn may_log(&self) -> bool {
        let most = self.ledger.log_lines().into();
        let (allowed, left_out) = self.log.allows(self.log.started.elapsed().as_secs(), most);
        if left_out > 0 {
            tracing::warn!(
                port = self.name(),
                left_out,
                "earlier lines are missing here: a second may have {most} (log_lines)"
            );
        }
        allowed
    }

    /// Sets the eventfd by which the frontend kicks ring `index`. Only the driver's transmit rings wake a
    /// poller.
    pub(crate) fn set_kick(&self, index: usize, kick: Option<Source>) {
        if index % 2 == 1 {
            self.relay.set(index / 2, kick);
        }
    }

    pub(crate) fn wake_control(&self) {
        self.waker.signal();
    }
}

/// The log lines of this second. Events are counted even if their lines are left out. Threads that log as a
/// second ends may write a few lines more.
struct LogBudget {
    started: Instant,
    second: AtomicU64,
    lines: AtomicU64,
    /// Lines that were left out and have not been reported yet.
    left_out: AtomicU64,
}

impl LogBudget {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether one more line may be logged in this `second`, and how many lines were left out before it.
    fn allows(&self, second: u64, most: u64) -> (bool, u64) {
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        let allowed = self.lines.fetch_add(1, Relaxed) < most;
        if !allowed {
            self.left_out.fetch_add(1, Relaxed);
        }
        (allowed, if allowed { self.left_out.swap(0, Relaxed) } else { 0 })
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name)
            .field("connected", &self.connected())
            .field("link_up", &self.link_up())
            .field("features", &self.features())
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_peer_fills_no_log() {
        let log = LogBudget::new();
        for (second, before) in [(0, 0), (1, 950), (7, 950)] {
            assert_eq!(log.allows(second, 50), (true, before), "and tells what it kept back");
            assert_eq!((0..999).filter(|_| log.allows(second, 50).0).count(), 49);
        }
    }

    /// The log lines that a thread has written.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(pub(crate) Arc<AtomicU64>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Relaxed);
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// `may_log` reads the limit from the port's own ledger.
    #[test]
    fn lines_about_a_peer_are_limited() {
        let (lines, began) = (Lines::default(), Instant::now());
        let peer = limited(3);
        tracing::subscriber::with_default(lines.clone(), || {
            (0..1000).for_each(|n| tell!(peer, warn, n, "refused"));
        });
        // Each second has three lines, and one that reports how many were left out.
        let most = 4 * (began.elapsed().as_secs() + 2);
        let count = lines.0.load(Relaxed);
        assert!((3..=most).contains(&count), "{count} lines, {most} at most");
    }

    /// A peer about which `log_lines` lines per second may be logged.
    fn limited(log_lines: u32) -> Peer {
        let limits = crate::limits::Limits { log_lines, ..crate::limits::Limits::default() };
        let process = crate::limits::Process::new(crate::limits::ProcessLimits::of_this_process());
        let ledger = Ledger::new(&process, "limited", 1, limits).expect("a thread");
        let waker = Arc::new(EventFd::new().expect("an eventfd"));
        Peer::new("limited".into(), waker, Terms::plain(), &ledger)
    }
}
