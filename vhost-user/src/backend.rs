//! A backend: one socket, one frontend at a time, a number of queue pairs.

use std::path::PathBuf;
use std::sync::Arc;

use linecard_eal::gate::{Poller, gate};
use linecard_mempool::Pool;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::Features;
use linecard_wire::ProtocolFeatures;
use linecard_wire::socket::{Access, Listener};

use crate::control::{Control, PortThread};
use crate::error::Error;
use crate::features::{DEFAULT, MAX_QUEUE_PAIRS, OFFERED, PROTOCOL};
use crate::limits::Limits;
use crate::memory::sigbus;
use crate::memory::{MAX_REGIONS, MapLimits};
use crate::peer::Peer;
use crate::port::{Receive, RxLoss, Transmit, TxLoss};
use crate::session::Terms;
use crate::slot::Slot;

/// Who makes the connection.
///
/// ```
/// assert_ne!(linecard_vhost_user::Mode::Listen, linecard_vhost_user::Mode::Connect);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We make the socket, the frontend connects.
    Listen,
    /// The frontend makes the socket, we connect and connect again.
    Connect,
}

/// What a backend is made from.
///
/// ```
/// use linecard_vhost_user::{BackendConfig, Mode};
/// let config = BackendConfig { queue_pairs: 4, ..BackendConfig::new("net_vhost0", "/run/v.sock", Mode::Listen) };
/// assert_eq!(config.mtu, 1500);
/// ```
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// For messages and logs.
    pub name: String,
    /// Socket path; of no account where there is a [`listener`](Self::listener).
    pub path: PathBuf,
    /// Who connects.
    pub mode: Mode,
    /// A socket that listens already, instead of one to make at [`path`](Self::path). Its name stays when the backend ends.
    pub listener: Option<Arc<Listener>>,
    /// Whom a socket that we make lets in: its owner, unless said otherwise.
    pub access: Access,
    /// Queue pairs, 1 to [`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Virtio features to offer, of those that there are.
    pub features: Features,
    /// Lets the frontend read the configuration space (`VHOST_USER_PROTOCOL_F_CONFIG`): link, queue pairs, [`mac`](Self::mac)
    /// and [`mtu`](Self::mtu).
    ///
    /// Off unless set. QEMU keeps the configuration of its network cards itself and warns of every backend that offers
    /// its own ("vhost-user backend supports VHOST_USER_PROTOCOL_F_CONFIG but QEMU does not"); Cloud Hypervisor, DPDK's
    /// virtio-user and ours do not ask for it. crosvm does, and QEMU's generic vhost-user device requires it.
    pub config_space: bool,
    /// Address in the configuration space.
    pub mac: [u8; 6],
    /// MTU in the configuration space.
    pub mtu: u16,
    /// What a frontend may make the port take.
    pub limits: Limits,
    /// Survive a frontend that takes pages of shared memory away: it is dropped instead of this process.
    /// Installs a handler for SIGBUS that passes on what is not ours.
    pub survive_lost_pages: bool,
}

impl BackendConfig {
    /// One queue pair with all features but large packets from the frontend (`HOST_TSO4` and the like), no configuration space to read, an MTU of 1500, and the limits that a port has unless told otherwise.
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
            limits: Limits::default(),
            survive_lost_pages: true,
        }
    }

    /// As [`new`](Self::new), for a socket that somebody else made and passed to this process: see [`Listener::from_fd`].
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

/// A backend that a frontend may connect to. Dropping it ends the connection and removes the socket that it made.
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
    /// Ports of one control share its limits, also those that come later.
    _control: Control,
    queue_pairs: u16,
}

impl Backend {
    /// Makes the socket and lets frontends connect. Packets move once queues are taken.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is left behind.
    pub fn new(control: &Control, config: BackendConfig) -> Result<Self, Error> {
        let (asked, max) = (config.queue_pairs, MAX_QUEUE_PAIRS);
        if !(1..=max).contains(&asked) {
            return Err(Error::QueuePairs { asked, max });
        }
        if config.survive_lost_pages {
            sigbus::install().map_err(|e| Error::system("installing a handler for SIGBUS", e))?;
        }
        let mut protocol = PROTOCOL;
        protocol.set(ProtocolFeatures::CONFIG, config.config_space);
        let terms = Terms {
            queue_pairs: asked,
            features: (config.features & OFFERED) | Features::PROTOCOL_FEATURES,
            protocol,
            mac: config.mac,
            mtu: config.mtu,
            limits: MapLimits {
                total: config.limits.memory,
                regions: config.limits.regions.min(MAX_REGIONS),
            },
        };
        let thread = PortThread::start(control, &config, terms)?;
        Ok(Self { thread, _control: control.clone(), queue_pairs: asked })
    }

    /// What is known about the frontend.
    pub fn peer(&self) -> &Arc<Peer> {
        self.thread.peer()
    }

    /// Queue pairs.
    pub fn queue_pairs(&self) -> u16 {
        self.queue_pairs
    }

    /// The queue that receives what the frontend sends on pair `pair`, into packets of `pool`.
    ///
    /// A queue taken earlier for the same pair finds nothing any more.
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
    /// A queue taken earlier for the same pair finds no ring any more.
    ///
    /// # Errors
    /// [`Error::QueuePairs`], [`Error::ControlEnded`].
    pub fn transmit_queue(&self, pair: u16, stats: Arc<QueueStats<TxLoss>>) -> Result<Transmit, Error> {
        let gate = self.take_ring(pair, 0)?;
        Ok(Transmit::new(gate, stats, Arc::clone(self.peer()), usize::from(pair) * 2))
    }

    fn take_ring(&self, pair: u16, half: usize) -> Result<Poller<Slot>, Error> {
        if pair >= self.queue_pairs {
            return Err(Error::QueuePairs { asked: pair.saturating_add(1), max: self.queue_pairs });
        }
        let (poller, controller) = gate(Slot::new(Arc::clone(self.peer())));
        self.thread.attach(usize::from(pair) * 2 + half, controller)?;
        Ok(poller)
    }
}
