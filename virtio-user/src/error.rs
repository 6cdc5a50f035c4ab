//! The reasons why a backend could not be used. Each error names the request and the answer.

use std::path::PathBuf;
use std::time::Duration;

/// An error between a port and its backend.
///
/// ```
/// let error = linecard_virtio_user::Error::Feature { name: "VIRTIO_F_VERSION_1" };
/// assert!(error.to_string().contains("VERSION_1"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No process listens on the socket.
    #[error("cannot connect to '{}': {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The socket is not usable.
    #[error(transparent)]
    Socket(#[from] linecard_wire::socket::UnusableSocket),
    /// The device does not exist at the moment.
    #[error("there is no backend: {what}")]
    Absent {
        /// The missing item.
        what: String,
    },
    /// A connection that was passed to the port (`fd=`) has ended.
    #[error("the connection that was passed (fd=) is over")]
    Over,
    /// The interface behind a device of the kernel was removed.
    #[error("the interface {interface} is gone")]
    Gone {
        /// Its name.
        interface: String,
    },
    /// The interface behind a kernel device is not usable.
    #[error("{problem}")]
    Interface {
        /// The reason.
        problem: String,
        /// The suggested remedy.
        remedy: String,
    },
    /// The kernel refused a request to one of its devices.
    #[error("{action}: {source}")]
    Kernel {
        /// The action that failed.
        action: String,
        /// The kernel's error.
        source: std::io::Error,
        /// The suggested remedy.
        remedy: &'static str,
    },
    /// A file that is no vhost device of the kernel.
    #[error("{name} is neither a vhost-net nor a vhost-vdpa device")]
    NotVhost {
        /// The file.
        name: String,
    },
    /// A vDPA device that is not a network device.
    #[error("{name} is a vDPA device of type {kind}, not a network device (type 1)")]
    DeviceKind {
        /// The device.
        name: String,
        /// Its device type (virtio 1.3, Device Types).
        kind: u32,
    },
    /// A PCI device is not usable.
    #[error("PCI device {address}: {problem}")]
    Pci {
        /// Its PCI address.
        address: String,
        /// The reason.
        problem: String,
        /// The suggested remedy.
        remedy: String,
    },
    /// The requested MTU exceeds the device's.
    #[error("an MTU of {asked} asked, the device has {max}")]
    Mtu {
        /// The requested MTU.
        asked: u16,
        /// The device's maximum.
        max: u16,
    },
    /// The requested ring size exceeds the device's.
    #[error("a queue_size of {asked} asked, the device takes {max}")]
    RingTooLarge {
        /// The requested number of descriptors.
        asked: u16,
        /// The device's maximum.
        max: u16,
    },
    /// The device cannot reach the addresses of this process's memory.
    #[error(
        "the device reaches addresses from {first:#x} to {last:#x}, which this process's memory is not within"
    )]
    Iova {
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
    },
    /// The device set DEVICE_NEEDS_RESET.
    #[error("the device wants a reset (status {status:#x})")]
    NeedsReset {
        /// Its status.
        status: u8,
    },
    /// The kernel reported an error on a ring.
    #[error("the kernel cannot use the memory of a ring")]
    Unusable,
    /// The backend missed a deadline.
    #[error("the backend did not answer {request} within {:.1} s", waited.as_secs_f64())]
    Silent {
        /// The request.
        request: &'static str,
        /// The time that passed: for one answer, or for the whole handshake if that time ran out.
        waited: Duration,
    },
    /// The backend answered with a message of another type.
    #[error("the backend answered {request} with message {got}")]
    Unasked {
        /// The request.
        request: &'static str,
        /// The request code of the answer.
        got: u32,
    },
    /// The backend sent a message without a request.
    #[error("the backend sent message {got} although nothing was asked")]
    Uninvited {
        /// The request code of the message.
        got: u32,
    },
    /// A device wrote an invalid acknowledgement on its control queue.
    #[error("the device answered {request} with {answer}, which is neither OK (0) nor ERR (1)")]
    ControlAnswer {
        /// The request.
        request: &'static str,
        /// The byte that the device wrote.
        answer: u8,
    },
    /// The backend refused a request.
    #[error("the backend refused {request} with code {code}")]
    Refused {
        /// The request.
        request: &'static str,
        /// The backend's error code.
        code: u64,
    },
    /// The backend does not offer a feature that the driver requires.
    #[error("the backend does not offer {name}")]
    Feature {
        /// Its name.
        name: &'static str,
    },
    /// The backend cleared FEATURES_OK or asked for a reset.
    #[error("the backend did not accept the features {features} (status {status:#x})")]
    Status {
        /// The chosen features.
        features: String,
        /// The status that the backend reported.
        status: u64,
    },
    /// The backend has fewer queue pairs than requested.
    #[error("{asked} queue pairs asked, the backend has {offered}")]
    Queues {
        /// The requested number.
        asked: u16,
        /// The backend's number.
        offered: u64,
    },
    /// A ring for which the transport has no number.
    #[error("vhost-user messages have no number for {ring}")]
    RingNumber {
        /// The ring.
        ring: crate::backend::RingId,
    },
    /// More memory segments than the backend can map.
    #[error("{segments} memory segments to share, the backend takes {max}")]
    Regions {
        /// The number of segments to share.
        segments: usize,
        /// The number that the backend can map.
        max: usize,
    },
    /// A ring size that the negotiated ring format does not allow.
    #[error("a queue_size of {asked} is for packed rings, and the backend only has split ones")]
    RingSize {
        /// The requested number of descriptors.
        asked: u16,
    },
    /// The backend broke the rules of a ring.
    #[error("the backend broke the rules of {ring}: {fault}")]
    Ring {
        /// The ring.
        ring: crate::backend::RingId,
        /// The violation.
        fault: linecard_virtio::PeerFault,
    },
    /// A message could not be transferred or decoded.
    #[error(transparent)]
    Wire(#[from] linecard_wire::Error),
    /// A ring could not be laid out in memory.
    #[error("a ring cannot be made: {0}")]
    Layout(String),
    /// The operating system refused an action.
    #[error("{action}: {source}")]
    System {
        /// The action.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The control thread does not finish an operation on the backend.
    #[error("the backend keeps the port's control thread waiting, for more than {} ms by now", waited.as_millis())]
    Stuck {
        /// The time that it had.
        waited: Duration,
    },
    /// The control thread has ended.
    #[error("the control thread ended")]
    NoThread,
    /// The user stopped the port.
    #[error("the port was stopped")]
    Stopped,
}

impl Error {
    /// Returns whether a retry may help soon: the backend is absent or restarting, not faulty.
    pub fn is_backend_gone(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Absent { .. } | Self::Over | Self::Gone { .. } => true,
            Self::Wire(error) => error.is_peer_gone(),
            _ => false,
        }
    }

    /// Returns the remedy to suggest to the user.
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

    /// Converts a refusal of the interface behind a device; the port adds its name later.
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

    /// Converts the error into one that names the port.
    pub(crate) fn of_port(&self, port: &str) -> linecard_pmd::Error {
        linecard_pmd::Error::Peer {
            port: port.to_owned(),
            problem: self.to_string(),
            remedy: self.remedy().to_owned(),
        }
    }
}
