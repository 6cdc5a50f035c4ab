//! Why a backend could not be used, each with what was asked and what came.

use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong between a port and its backend.
///
/// ```
/// let error = linecard_virtio_user::Error::Feature { name: "VIRTIO_F_VERSION_1" };
/// assert!(error.to_string().contains("VERSION_1"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("cannot connect to '{}': {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] linecard_wire::socket::UnusableSocket),
    /// There is no such device, for the moment.
    #[error("there is no backend: {what}")]
    Absent {
        /// What is missing.
        what: String,
    },
    /// A connection that was passed to the port has served it.
    #[error("the connection that was passed (fd=) is over")]
    Over,
    /// The interface behind a device of the kernel was removed.
    #[error("the interface {interface} is gone")]
    Gone {
        /// Its name.
        interface: String,
    },
    /// The interface behind a device of the kernel cannot be had.
    #[error("{problem}")]
    Interface {
        /// Why not.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The kernel refused a request to one of its devices.
    #[error("{action}: {source}")]
    Kernel {
        /// What was tried.
        action: String,
        /// What the kernel answered.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A file that is no vhost device of the kernel.
    #[error("{name} is neither a vhost-net nor a vhost-vdpa device")]
    NotVhost {
        /// The file.
        name: String,
    },
    /// A vDPA device of another kind.
    #[error("{name} is a vDPA device of type {kind}, not a network device (type 1)")]
    DeviceKind {
        /// The device.
        name: String,
        /// Its type (virtio 1.3, Device Types).
        kind: u32,
    },
    /// A device on a PCI bus cannot be used.
    #[error("PCI device {address}: {problem}")]
    Pci {
        /// Where it is.
        address: String,
        /// Why not.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Longer packets than the device takes.
    #[error("an MTU of {asked} asked, the device has {max}")]
    Mtu {
        /// Asked.
        asked: u16,
        /// The device's.
        max: u16,
    },
    /// A ring with more descriptors than the device takes.
    #[error("a queue_size of {asked} asked, the device takes {max}")]
    RingTooLarge {
        /// Asked.
        asked: u16,
        /// The device's.
        max: u16,
    },
    /// Addresses of this process that the device cannot have.
    #[error(
        "the device reaches addresses from {first:#x} to {last:#x}, which this process's memory is not within"
    )]
    Iova {
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
    },
    /// The device cannot go on.
    #[error("the device wants a reset (status {status:#x})")]
    NeedsReset {
        /// Its status.
        status: u8,
    },
    /// The kernel gave up on a ring.
    #[error("the kernel cannot use the memory of a ring")]
    Unusable,
    /// The backend let a deadline pass.
    #[error("the backend did not answer {request} within {:.1} s", waited.as_secs_f64())]
    Silent {
        /// The request.
        request: &'static str,
        /// How long it had: for one answer, or for the whole handshake where that time ran out.
        waited: Duration,
    },
    /// The backend answered something that was not asked.
    #[error("the backend answered {request} with message {got}")]
    Unasked {
        /// What was asked.
        request: &'static str,
        /// Request code that came.
        got: u32,
    },
    /// The backend spoke although nothing was asked.
    #[error("the backend sent message {got} although nothing was asked")]
    Uninvited {
        /// Request code that came.
        got: u32,
    },
    /// A device answered on its control queue with what is no answer.
    #[error("the device answered {request} with {answer}, which is neither OK (0) nor ERR (1)")]
    ControlAnswer {
        /// The request.
        request: &'static str,
        /// The byte that it wrote.
        answer: u8,
    },
    /// The backend said no.
    #[error("the backend refused {request} with code {code}")]
    Refused {
        /// The request.
        request: &'static str,
        /// Its code.
        code: u64,
    },
    /// The backend lacks something this driver cannot do without.
    #[error("the backend does not offer {name}")]
    Feature {
        /// Its name.
        name: &'static str,
    },
    /// The backend cleared FEATURES_OK or asked for a reset.
    #[error("the backend did not accept the features {features} (status {status:#x})")]
    Status {
        /// What was chosen.
        features: String,
        /// The status it reported.
        status: u64,
    },
    /// Fewer queues than asked.
    #[error("{asked} queue pairs asked, the backend has {offered}")]
    Queues {
        /// Asked.
        asked: u16,
        /// Offered.
        offered: u64,
    },
    /// A ring that the transport has no number for.
    #[error("vhost-user messages have no number for {ring}")]
    RingNumber {
        /// Which one.
        ring: crate::backend::RingId,
    },
    /// More memory segments than the backend can map.
    #[error("{segments} memory segments to share, the backend takes {max}")]
    Regions {
        /// How many there are.
        segments: usize,
        /// How many it takes.
        max: usize,
    },
    /// A ring size that the negotiated ring format does not allow.
    #[error("a queue_size of {asked} is for packed rings, and the backend only has split ones")]
    RingSize {
        /// Asked.
        asked: u16,
    },
    /// A backend wrote nonsense into a ring.
    #[error("the backend broke the rules of {ring}: {fault}")]
    Ring {
        /// Which one.
        ring: crate::backend::RingId,
        /// What it did.
        fault: linecard_virtio::PeerFault,
    },
    /// The message itself could not be moved or read.
    #[error(transparent)]
    Wire(#[from] linecard_wire::Error),
    /// A ring could not be laid out.
    #[error("a ring cannot be made: {0}")]
    Layout(String),
    /// The operating system refused.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The control thread does not come to an end with what it does for the backend.
    #[error("the backend keeps the port's control thread waiting, for more than {} ms by now", waited.as_millis())]
    Stuck {
        /// How long it had.
        waited: Duration,
    },
    /// The control thread is gone.
    #[error("the control thread ended")]
    NoThread,
    /// The user stopped the port.
    #[error("the port was stopped")]
    Stopped,
}

impl Error {
    /// Whether trying again soon may help: the backend is absent or restarting, not wrong.
    pub fn is_backend_gone(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Absent { .. } | Self::Over | Self::Gone { .. } => true,
            Self::Wire(error) => error.is_peer_gone(),
            _ => false,
        }
    }

    /// What the user can do about it.
    fn remedy(&self) -> &str {
        match self {
            Self::Interface { remedy, .. } | Self::Pci { remedy, .. } => remedy,
            Self::Kernel { remedy, .. } => remedy,
            Self::Over => "open a port over another one",
            Self::Gone { .. } => "make it again; the port looks for it",
            Self::NotVhost { .. } => {
                "give path=/dev/vhost-net, /dev/vhost-vdpa-0, or the socket of a vhost-user backend"
            }
            Self::DeviceKind { .. } => "list the devices with 'vdpa dev show'",
            Self::Mtu { .. } => "give the port an MTU that the device has",
            Self::RingTooLarge { .. } => "give a smaller queue_size",
            Self::Iova { .. } => {
                "give memory less room for addresses, so that all of it lies below (a smaller -m, fewer ports), or use another device"
            }
            Self::NeedsReset { .. } => "the port resets it and connects again",
            Self::Unusable => "see 'dmesg' for what the kernel says; the port connects again",
            Self::Connect { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "run as the socket's owner, or have it give the right to write there"
            }
            Self::Connect { .. } => "start the backend first, or give server=1 to wait for it",
            Self::Socket(socket) => socket.remedy(),
            Self::Wire(linecard_wire::Error::Limit(_)) | Self::Stuck { .. } => {
                "end the backend, and see what it is"
            }
            Self::Silent { .. } => {
                "see whether the backend runs and is not overloaded, and that the socket is a vhost-user network backend's"
            }
            Self::Unasked { .. } | Self::Uninvited { .. } | Self::Wire(_) => {
                "check that the socket belongs to a vhost-user network backend"
            }
            Self::Refused { .. } | Self::Status { .. } => "see the backend's log for its reason",
            Self::Feature { .. } => "use a newer backend",
            Self::Absent { .. } => "start the backend first",
            Self::RingNumber { .. } => "give fewer queues=",
            Self::Queues { .. } => "give fewer queues=, or more queues to the backend",
            Self::Regions { .. } => "use fewer and larger segments (hugepages, or a larger -m)",
            Self::RingSize { .. } => "give a power of two",
            Self::Ring { .. } | Self::ControlAnswer { .. } => {
                "the backend is faulty; the port connects again"
            }
            Self::Layout(_) => "give a smaller queue_size",
            Self::System { .. } => "check the limits of this process (ulimit -a)",
            Self::NoThread | Self::Stopped => "start the port again",
        }
    }

    /// A refusal of the interface behind a device, which names the port already.
    pub(crate) fn of_interface(error: linecard_pmd::Error) -> Self {
        use linecard_pmd::Error as Port;
        match error {
            Port::Argument { problem, remedy, .. } => Self::Interface { problem, remedy },
            Port::System { action, source, remedy, .. } => {
                Self::Interface { problem: format!("{action}: {source}"), remedy }
            }
            other => Self::Interface { problem: other.to_string(), remedy: "see 'ip -d link'".to_owned() },
        }
    }

    /// The same as a port's error.
    pub(crate) fn of_port(&self, port: &str) -> linecard_pmd::Error {
        linecard_pmd::Error::Peer {
            port: port.to_owned(),
            problem: self.to_string(),
            remedy: self.remedy().to_owned(),
        }
    }
}
