//! Errors of the system, each as one sentence with a remedy.

use std::io;
use std::path::Path;

use super::channel::Refusal;
use linecard_pmd::error::Error;

/// The rights of a process that is not root.
const RIGHTS: &str = "run as root, or give the program its rights once: sudo setcap \
                      cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep PROGRAM; a process without rights can be handed \
                      sockets and a pinned map (fd=, map=)";

/// A port and its interface, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) port: &'a str,
    pub(super) iface: &'a str,
}

impl Context<'_> {
    /// Reports that `action` failed. The error determines the remedy; `remedy` is the fallback.
    fn failed(&self, action: String, source: io::Error, remedy: String) -> Error {
        if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
            return Error::System { port: self.port.into(), action, source, remedy: RIGHTS.into() };
        }
        if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) {
            return linecard_netdev::refusal(self.port, &action, source);
        }
        Error::System { port: self.port.into(), action, source, remedy }
    }

    /// Reports a failure to open a socket.
    pub(super) fn open(&self, source: io::Error) -> Error {
        let remedy = "use a kernel with CONFIG_XDP_SOCKETS, or net_af_packet";
        self.failed("opening an XDP socket".into(), source, remedy.into())
    }

    /// Reports a failure to load the driver's own program.
    pub(super) fn load(&self, source: io::Error) -> Error {
        let remedy = "use a kernel with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS, 5.4 or later";
        self.failed("loading the XDP program".into(), source, remedy.into())
    }

    /// Reports a failure to attach a program to the interface in `mode`.
    pub(super) fn attach(&self, mode: &str, source: io::Error) -> Error {
        let iface = self.iface;
        match source.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => Error::Argument {
                device: self.port.into(),
                problem: format!("another XDP program is on {iface}"),
                remedy: format!(
                    "end the program that put it there or take it off with 'ip link set dev {iface} xdp off', or have \
                     its map pinned and give map=/sys/fs/bpf/NAME"
                ),
            },
            _ => self.failed(
                format!("putting the XDP program onto {iface} ({mode} mode)"),
                source,
                format!("try mode=skb, an MTU of 1500, fewer queues on its peer ('ethtool -l {iface}'); see 'dmesg'"),
            ),
        }
    }

    /// Reports a failure to open an object pinned at `path`.
    pub(super) fn pinned(&self, what: &str, path: &Path, source: io::Error) -> Error {
        let shown = path.display();
        let problem = match source.kind() {
            io::ErrorKind::NotFound => format!("nothing is pinned at {shown}"),
            io::ErrorKind::InvalidInput => format!("{shown} is no pinned {what}"),
            _ => {
                let action = format!("opening the pinned {what} {shown}");
                let remedy = "give a name in a bpf file system, as in /sys/fs/bpf/NAME".to_owned();
                return self.failed(action, source, remedy);
            }
        };
        let remedy = match source.kind() {
            io::ErrorKind::NotFound => {
                format!("pin a {what} there with 'bpftool', as in 'bpftool … pin {shown}'")
            }
            _ => "give the name of one in a bpf file system, as in /sys/fs/bpf/NAME".into(),
        };
        Error::Argument { device: self.port.into(), problem, remedy }
    }

    /// Reports a failure to add a socket to a map of `entries`.
    pub(super) fn connect(&self, queue: u32, entries: u32, source: io::Error) -> Error {
        if queue >= entries {
            return Error::Argument {
                device: self.port.into(),
                problem: format!("the map has {entries} places and queue {queue} none"),
                remedy: "pin a larger one, or choose other queues with start_queue and queue_count".into(),
            };
        }
        self.failed(
            format!("putting the socket of queue {queue} into the map"),
            source,
            "choose another queue, or see who uses the map with 'bpftool map'".into(),
        )
    }

    /// Reports a failure to set up a socket for `queue`, with a umem of `bytes`.
    pub(super) fn socket(&self, queue: u32, bytes: usize, refusal: Refusal) -> Error {
        let mib = bytes >> 20;
        match refusal {
            Refusal::Register(source) if source.raw_os_error() == Some(libc::ENOBUFS) => Error::System {
                port: self.port.into(),
                action: format!("locking the {mib} MiB of the packet pool in memory"),
                source,
                remedy: "raise the limit ('ulimit -l unlimited'), give the program cap_ipc_lock, or ask for fewer \
                         packets"
                    .into(),
            },
            Refusal::Register(source) => self.failed(
                format!("registering the {mib} MiB of the packet pool"),
                source,
                "use a kernel of 5.4 or later, or net_af_packet; a passed socket must be fresh".into(),
            ),
            Refusal::Ring(source) => self.failed(
                format!("making the rings of queue {queue}"),
                source,
                "ask for smaller rings; a passed socket must be fresh, and serves one start".into(),
            ),
            Refusal::Bind(source) => self.bind(queue, source),
        }
    }

    fn bind(&self, queue: u32, source: io::Error) -> Error {
        let iface = self.iface;
        let argument =
            |problem: String, remedy: String| Error::Argument { device: self.port.into(), problem, remedy };
        match source.raw_os_error() {
            Some(libc::EBUSY) => argument(
                format!("queue {queue} of {iface} belongs to another XDP socket"),
                "end the program that has it, or choose another queue with start_queue".into(),
            ),
            Some(libc::EINVAL) => argument(
                format!("{iface} has no queue {queue} in use"),
                format!(
                    "choose queues that it has with start_queue and queue_count ('ethtool -l {iface}'), or give it \
                     more ('ethtool -L')"
                ),
            ),
            _ => self.failed(
                format!("binding an XDP socket to queue {queue} of {iface}"),
                source,
                "choose another interface, or net_af_packet".into(),
            ),
        }
    }
}
