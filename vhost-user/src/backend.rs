//! A backend: one socket, one frontend at a time, a number of queue pairs.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::gate::{Poller, gate};
use linecard_mempool::Pool;
use linecard_pmd::handover::Keep;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::Features;
use linecard_wire::socket::{Access, Listener};

use crate::control::{Asker, Asking, Control, Endpoint, PortThread, Start, Step, is_busy};
use crate::datapath::prepare_clock;
use crate::error::Error;
use crate::features::{DEFAULT, MAX_QUEUE_PAIRS, OFFERED, protocol};
use crate::handover::HandOver;
use crate::limits::Limits;
use crate::memory::sigbus;
use crate::memory::{MAX_REGIONS, MapLimits};
use crate::peer::Peer;
use crate::port::{Receive, RxLoss, Transmit, TxLoss};
use crate::session::snapshot::Snapshot;
use crate::session::{REQUESTS, Terms};
use crate::slot::VringSlot;

/// The side that makes the connection.
///
/// ```
/// assert_ne!(linecard_vhost_user::Mode::Listen, linecard_vhost_user::Mode::Connect);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The backend creates the socket, and the frontend connects.
    Listen,
    /// The frontend creates the socket. The backend connects, and reconnects after a disconnect.
    Connect,
}

/// The configuration of a backend.
///
/// ```
/// use linecard_vhost_user::{BackendConfig, Mode};
/// let config = BackendConfig::new("net_vhost0", "/run/v.sock", Mode::Listen).queue_pairs(4);
/// assert_eq!(config.mtu, 1500);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackendConfig {
    /// The name in messages and logs.
    pub name: String,
    /// The socket path; unused if there is a [`listener`](Self::listener).
    pub path: PathBuf,
    /// The side that connects.
    pub mode: Mode,
    /// A listening socket to use instead of a new one at [`path`](Self::path). Its name remains when the backend ends.
    pub listener: Option<Arc<Listener>>,
    /// Who may connect to a socket that the backend creates. The default is its owner.
    pub access: Access,
    /// Queue pairs, 1 to [`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Virtio features to offer, as far as they are supported. With [`ACCESS_PLATFORM`](Features::ACCESS_PLATFORM), a frontend may
    /// let an IOMMU translate addresses, and the backend requests the translations.
    pub features: Features,
    /// Lets the frontend read the configuration space (`VHOST_USER_PROTOCOL_F_CONFIG`): link, queue pairs,
    /// [`mac`](Self::mac) and [`mtu`](Self::mtu). Off by default.
    ///
    /// QEMU manages the configuration of its network cards itself and warns about a backend that offers its own ("vhost-user
    /// backend supports VHOST_USER_PROTOCOL_F_CONFIG but QEMU does not"). Cloud Hypervisor and the virtio-user drivers of DPDK and
    /// Linecard do not use it. crosvm does, and QEMU's generic vhost-user device requires it.
    pub config_space: bool,
    /// The MAC address in the configuration space.
    pub mac: [u8; 6],
    /// The MTU in the configuration space.
    pub mtu: u16,
    /// Keeps a descriptor for each memory region, which [`hand_over`](Backend::hand_over) needs and which
    /// counts towards the port's limit. Off by default.
    pub hand_over: bool,
    /// Records, once per burst, the position of packed rings that do not show it themselves (in-order rings on which the frontend
    /// sends), so that a later process can [recover](Backend::recover) the port. Off by default.
    pub records: bool,
    /// Accepts memory from any file unchecked, such as one of a kernel device. Only for a frontend in this
    /// process: another process's file may block each access. Off by default.
    pub trusted_memory: bool,
    /// Limits on the resources that a frontend may make the port use.
    pub limits: Limits,
    /// Survives a frontend that removes pages of shared memory: its connection ends instead of this process.
    /// Installs a handler for SIGBUS that forwards signals with other causes.
    pub survive_lost_pages: bool,
}

linecard_eal::setters!(BackendConfig {
    name: impl Into<String> as into,
    path: impl Into<PathBuf> as into,
    mode: Mode,
    listener: impl Into<Option<Arc<Listener>>> as into,
    access: Access,
    queue_pairs: u16,
    features: Features,
    config_space: bool,
    mac: [u8; 6],
    mtu: u16,
    hand_over: bool,
    records: bool,
    trusted_memory: bool,
    limits: Limits,
    survive_lost_pages: bool,
});

impl BackendConfig {
    /// One queue pair, MTU 1500, default limits, no readable configuration space; all features except
    /// [`HOST_SEGMENTS`](Features::HOST_SEGMENTS) and [`ACCESS_PLATFORM`](Features::ACCESS_PLATFORM).
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, mode: Mode) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            mode,
            listener: None,
            access: Access::default(),
            queue_pairs: 1,
            features: DEFAULT,
            config_space: false,
            mac: [0x56, 0x48, 0x4f, 0x53, 0x54, 0],
            mtu: 1500,
            hand_over: false,
            records: false,
            trusted_memory: false,
            limits: Limits::default(),
            survive_lost_pages: true,
        }
    }

    /// As [`new`](Self::new), for a listening socket that another process created and passed: see [`Listener::from_fd`].
    ///
    /// ```
    /// use std::os::unix::net::{UnixListener, UnixStream};
    /// use linecard_vhost_user::{Backend, BackendConfig, Control, Listener};
    /// let path = std::env::temp_dir().join(format!("backend-doc-listener-{}", std::process::id()));
    /// let bound_in_a_pod = UnixListener::bind(&path)?;
    /// let listener = Listener::from_fd(bound_in_a_pod.into())?;
    /// let backend = Backend::new(&Control::new(), BackendConfig::listening("pod0", listener))?;
    /// let frontend = UnixStream::connect(&path)?;
    /// drop(backend);
    /// assert!(path.exists());
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listening(name: impl Into<String>, listener: Listener) -> Self {
        let path = listener.path().map(PathBuf::from).unwrap_or_default();
        Self { listener: Some(Arc::new(listener)), ..Self::new(name, path, Mode::Listen) }
    }
}

/// The longest time for which a step of a hand-over waits while the frontend blocks the port's thread: preparing, and
/// building the rings.
pub(crate) const PREPARING: Duration = Duration::from_secs(2);
const BEGINNING: Duration = Duration::from_secs(1);

/// The error of a successor whose port's thread did not answer for `time`.
pub(crate) fn blocked(error: Error, time: Duration) -> Error {
    match error {
        Error::HandOver { .. } if is_busy(&error) => {
            let reason = format!("its frontend made the port wait for more than {} ms", time.as_millis());
            Error::TakeOver { reason }
        }
        error => error,
    }
}

/// A backend that a frontend may connect to. Dropping it closes the connection and removes the socket that it created.
///
/// ```
/// use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
/// let control = Control::new();
/// let path = std::env::temp_dir().join(format!("backend-doc-{}", std::process::id()));
/// let backend = Backend::new(&control, BackendConfig::new("demo", &path, Mode::Listen))?;
/// assert!(path.exists());
/// drop(backend);
/// assert!(!path.exists());
/// # Ok::<(), linecard_vhost_user::Error>(())
/// ```
#[derive(Debug)]
pub struct Backend {
    thread: PortThread,
    /// Keeps the shared limits alive, for ports created later too.
    _control: Control,
    queue_pairs: u16,
    hand_over: bool,
}

impl Backend {
    /// Creates the socket and accepts frontends. Packets flow once queues are taken.
    ///
    /// # Errors
    /// Any [`Error`]; no socket or thread is left then.
    pub fn new(control: &Control, config: BackendConfig) -> Result<Self, Error> {
        Self::open(control, config, Start::Fresh)
    }

    /// Continues where a predecessor [handed over](Self::hand_over): its frontend stays connected, and its
    /// rings run when this returns. Packets flow once queues are taken. The predecessor's listening socket
    /// and its name are reused, unless `config` has a [`listener`](BackendConfig::listener) or connects.
    ///
    /// # Errors
    /// [`Error::TakeOver`] if the predecessor negotiated more than `config` allows or its state cannot be
    /// read; any other. The frontend's connection is then closed.
    pub fn take_over(control: &Control, config: BackendConfig, handed: HandOver) -> Result<Self, Error> {
        let state = handed.state.clone();
        let backend = Self::open(control, config, Start::Left(handed))?;
        backend.settled()?;
        backend.begin(&state)?;
        backend.resume()?;
        Ok(backend)
    }

    /// Ends this backend and passes its frontend, rings and socket to a successor in any process. Received
    /// packets stay with their owners. Queues of this backend may be polled meanwhile and return nothing; the
    /// frontend's packets wait until the successor's queues are polled.
    ///
    /// Waits, for at most a second, until the frontend is between two requests and no thread is inside a burst.
    ///
    /// # Errors
    /// [`Error::HandOver`]: the port continues unchanged. [`Error::ControlEnded`].
    pub fn hand_over(&mut self) -> Result<HandOver, Error> {
        let held = self.hold()?;
        match self.freeze() {
            Ok(state) => {
                self.release()?;
                Ok(HandOver::new(state, held.descriptors))
            }
            Err(error) => {
                self.resume()?;
                Err(error)
            }
        }
    }

    /// First step of a hand-over that can still be cancelled, in the predecessor: the frontend's requests
    /// wait from now on, packets still flow, and the successor [prepares](Self::prepare) with the result.
    ///
    /// ```text
    ///   predecessor   hold ─────────────► freeze ─────────────────► release   (or resume, as if nothing had been)
    ///                   └─► prepare ───────┘ └─► begin ──────────────┘
    ///   successor            (maps memory)        (rings)  resume
    /// ```
    ///
    /// ```
    /// use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
    ///
    /// let path = std::env::temp_dir().join(format!("hold-doc-{}", std::process::id()));
    /// let config = BackendConfig::new("port0", &path, Mode::Listen).hand_over(true);
    /// let old = Backend::new(&Control::new(), config.clone())?;
    ///
    /// // A successor that gives up: the old one goes on.
    /// let new = Backend::prepare(&Control::new(), config.clone(), old.hold()?)?;
    /// drop(new);
    /// old.resume()?;
    ///
    /// let new = Backend::prepare(&Control::new(), config, old.hold()?)?;
    /// new.begin(&old.freeze()?)?;
    /// // The point of no return: the one resumes, the other has gone.
    /// new.resume()?;
    /// old.release()?;
    /// drop(old);
    /// assert!(path.exists());
    /// # Ok::<(), linecard_vhost_user::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::HandOver`]: the port continues unchanged. [`Error::ControlEnded`].
    pub fn hold(&self) -> Result<HandOver, Error> {
        self.start_holding()?.outcome()
    }

    pub(crate) fn start_holding(&self) -> Result<Asking, Error> {
        self.thread.ask(Step::Hold)
    }

    /// Whether the backend was configured for a hand-over.
    pub(crate) fn can_hand_over(&self) -> bool {
        self.hand_over
    }

    /// Second step: queues return nothing from now on. Returns the port's final state, for [`begin`](Self::begin).
    ///
    /// # Errors
    /// As [`hold`](Self::hold); the port stays held.
    pub fn freeze(&self) -> Result<Vec<u8>, Error> {
        self.thread.directly(Endpoint::freeze)
    }

    /// Cancels a hand-over, in a predecessor; completes it, in a successor that has [begun](Self::begin).
    ///
    /// # Errors
    /// [`Error::ControlEnded`].
    pub fn resume(&self) -> Result<(), Error> {
        self.resume_soon()?.outcome().map(drop)
    }

    /// As [`resume`](Self::resume), but requests may still wait when this returns; packets flow.
    pub(crate) fn resume_soon(&self) -> Result<Asking, Error> {
        self.thread.directly(|endpoint| {
            endpoint.let_in();
            Some(Ok(()))
        })?;
        self.thread.ask(Step::Resume)
    }

    /// Asks for the outcome of preparing. It waits for the frontend for at most two seconds.
    pub(crate) fn start_settling(&self) -> Result<Asking, Error> {
        self.thread.ask(Step::Settle)
    }

    fn settled(&self) -> Result<(), Error> {
        self.start_settling()?.outcome().map(drop).map_err(|error| blocked(error, PREPARING))
    }

    /// Last step in a predecessor: ends its rings and closes its sockets without notifying the frontend. The port has then ended.
    ///
    /// # Errors
    /// [`Error::ControlEnded`].
    pub fn release(&self) -> Result<(), Error> {
        self.thread.ask(Step::Release)?.outcome().map(drop)
    }

    /// First step in a successor: maps the memory of a predecessor that [holds](Self::hold) its port. If this
    /// backend is dropped before it resumes, the predecessor can continue.
    ///
    /// # Errors
    /// As [`take_over`](Self::take_over), but the frontend is not affected.
    pub fn prepare(control: &Control, config: BackendConfig, held: HandOver) -> Result<Self, Error> {
        let backend = Self::start_preparing(control, config, held)?;
        backend.settled()?;
        Ok(backend)
    }

    /// As [`prepare`](Self::prepare), but returns at once: [`start_settling`](Self::start_settling) asks for the outcome.
    pub(crate) fn start_preparing(
        control: &Control,
        config: BackendConfig,
        held: HandOver,
    ) -> Result<Self, Error> {
        prepare_clock();
        Self::open(control, config, Start::Held(held))
    }

    /// Second step in a successor: builds the rings at the positions in `state`, which the predecessor's
    /// [`freeze`](Self::freeze) returned. Queues return nothing until [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`Error::TakeOver`].
    pub fn begin(&self, state: &[u8]) -> Result<(), Error> {
        self.begun(Some(state))
    }

    fn begun(&self, state: Option<&[u8]>) -> Result<(), Error> {
        let outcome = self.start_beginning(state)?.outcome_by(Instant::now() + BEGINNING);
        outcome.map(drop).map_err(|error| blocked(error, BEGINNING))
    }

    /// Asks for [`begin`](Self::begin), or, without a state, for [`recover`](Self::recover). The port's own thread
    /// does it, because reading and writing the rings waits for whatever the frontend does to their pages.
    pub(crate) fn start_beginning(&self, state: Option<&[u8]>) -> Result<Asking, Error> {
        let snapshot = state.map(Snapshot::from_bytes).transpose();
        let snapshot = snapshot.map_err(|reason| Error::TakeOver { reason: reason.into() })?;
        self.thread.ask(Step::Begin(snapshot.map(Box::new)))
    }

    /// Gives up the predecessor's frontend, as soon as it lets go of the port's thread. The port then goes on with the
    /// listening socket alone.
    pub(crate) fn forsake(&self) -> Result<(), Error> {
        self.thread.ask(Step::Forsake).map(drop)
    }

    /// As [`resume`](Self::resume), as soon as the frontend lets go of the port's thread.
    pub(crate) fn resume_later(&self) -> Result<(), Error> {
        self.thread.ask(Step::Resume).map(drop)
    }

    /// As [`begin`](Self::begin), if the predecessor was killed: positions are read from the rings and their records.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn recover(&self) -> Result<(), Error> {
        self.begun(None)
    }

    /// Stores in `place`, now and after each change, the state that [`prepare`](Self::prepare) and [`recover`](Self::recover) need
    /// in a later process. In the middle of a request, storing begins afterwards.
    ///
    /// # Errors
    /// [`Error::HandOver`]: the backend was not configured for it. [`Error::ControlEnded`].
    pub fn keep_in(&self, place: Arc<dyn Keep>) -> Result<(), Error> {
        if !self.hand_over {
            let reason = "it keeps no descriptors of its frontend's memory";
            return Err(Error::HandOver { reason, remedy: "open it with hand_over set" });
        }
        self.start_keeping(place)?.outcome().map(drop)
    }

    pub(crate) fn start_keeping(&self, place: Arc<dyn Keep>) -> Result<Asking, Error> {
        self.thread.ask(Step::KeepIn(place))
    }

    /// A hand-over of only the listening socket, for a port whose thread is blocked by its frontend.
    pub(crate) fn listener_alone(&self) -> Result<HandOver, Error> {
        let Some(listener) = self.thread.listener() else {
            return Ok(HandOver::new(Snapshot::default().to_bytes(), Vec::new()));
        };
        let fd = listener
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::system("duplicating a descriptor", e))?;
        let mut snapshot = Snapshot::default();
        snapshot.session.listener = 1;
        snapshot.session.set_name(listener.name());
        Ok(HandOver::new(snapshot.to_bytes(), vec![fd]))
    }

    /// Keeps the socket's name in place for a successor that received the [listener alone](Self::listener_alone).
    pub(crate) fn leave_name(&self) {
        if let Some(listener) = self.thread.listener() {
            listener.leave_name();
        }
    }

    fn open(control: &Control, config: BackendConfig, start: Start) -> Result<Self, Error> {
        let (asked, max) = (config.queue_pairs, MAX_QUEUE_PAIRS);
        if !(1..=max).contains(&asked) {
            return Err(Error::QueuePairs { asked, max });
        }
        if config.survive_lost_pages {
            sigbus::install().map_err(|e| Error::system("installing a handler for SIGBUS", e))?;
        }
        let terms = Terms {
            queue_pairs: asked,
            features: (config.features & OFFERED) | Features::PROTOCOL_FEATURES,
            protocol: protocol(config.config_space, config.features),
            mac: config.mac,
            mtu: config.mtu,
            limits: MapLimits {
                total: config.limits.memory,
                regions: config.limits.regions.min(MAX_REGIONS),
            },
            hand_over: config.hand_over,
            records: config.records,
            trusted_memory: config.trusted_memory,
            requests: REQUESTS,
        };
        let thread = PortThread::start(control, &config, terms, start)?;
        Ok(Self { thread, _control: control.clone(), queue_pairs: asked, hand_over: config.hand_over })
    }

    /// The state of the frontend.
    pub fn peer(&self) -> &Arc<Peer> {
        self.thread.peer()
    }

    /// A handle for requests about single rings.
    pub(crate) fn asker(&self) -> Asker {
        self.thread.asker()
    }

    /// The number of queue pairs.
    pub fn queue_pairs(&self) -> u16 {
        self.queue_pairs
    }

    /// The queue that receives the frontend's packets on pair `pair`, into packets of `pool`.
    ///
    /// A queue taken earlier for the same pair returns nothing any more.
    ///
    /// # Errors
    /// [`Error::QueuePairs`], [`Error::ControlEnded`].
    pub fn receive_queue(
        &self,
        pair: u16,
        pool: &Pool,
        stats: Arc<QueueStats<RxLoss>>,
    ) -> Result<Receive, Error> {
        let gate = self.take_ring(pair, 1)?;
        Ok(Receive::new(gate, pool.clone(), stats, Arc::clone(self.peer()), usize::from(pair) * 2 + 1))
    }

    /// The queue that sends to the frontend on pair `pair`.
    ///
    /// A queue taken earlier for the same pair sends nothing any more.
    ///
    /// # Errors
    /// [`Error::QueuePairs`], [`Error::ControlEnded`].
    pub fn transmit_queue(&self, pair: u16, stats: Arc<QueueStats<TxLoss>>) -> Result<Transmit, Error> {
        let gate = self.take_ring(pair, 0)?;
        Ok(Transmit::new(gate, stats, Arc::clone(self.peer()), usize::from(pair) * 2))
    }

    fn take_ring(&self, pair: u16, half: usize) -> Result<Poller<VringSlot>, Error> {
        if pair >= self.queue_pairs {
            return Err(Error::QueuePairs { asked: pair.saturating_add(1), max: self.queue_pairs });
        }
        let (poller, controller) = gate(VringSlot::new(Arc::clone(self.peer())));
        self.thread.attach(usize::from(pair) * 2 + half, controller)?;
        Ok(poller)
    }
}
