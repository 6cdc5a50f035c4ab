//! `net_vduse`: a network device of the local kernel that this process implements (VDUSE, Linux 5.15).
//!
//! ```text
//!   vdpa dev add name NAME mgmtdev vduse      attaches the device to a kernel driver:
//!
//!     virtio_vdpa + virtio_net   an ordinary interface: local sockets, without the copy of a tap interface
//!     vhost_vdpa                 /dev/vhost-vdpa-N, for a virtual machine or for `net_virtio_user,path=`
//! ```
//!
//! `net_vduse0,name=NAME[,mac=…][,mtu=1500][,queue_size=1024][,packed=0|1][,tso=0|1][,state=FILE]`. A port is
//! a vhost-user backend ([`linecard_vhost_user`]) with a thread as its frontend, which carries out the
//! kernel's requests. Packets use the data paths of `net_vhost`, over split and packed rings. The state of
//! the rings is kept in a file: after a crash, the next process continues with the same driver, which sees no
//! reset and loses no buffer of its rings.

mod frontend;
mod kernel;
mod record;
mod relay;
mod shared;
mod sys;
#[cfg(test)]
mod tests;
mod thread;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use linecard_mempool::Pool;
use linecard_pmd::{
    DevArgs, Device, DeviceInfo, Driver, Error, Port, PortConfig, ProbeContext, Running, RxQueue, StartError,
    TxQueue,
};
use linecard_vhost_user::{BackendConfig, Listener, VhostDriver};
use linecard_virtio::Features;

use crate::frontend::Frontend;
use crate::kernel::{Plan, Vduse};
use crate::record::Record;
use crate::relay::{Connect, Relay};
use crate::thread::Relaying;

const DRIVER: &str = "net_vduse";
/// The directory of sockets and records, in the runtime directory.
const FOLDER: &str = "vduse";
const MTU: std::ops::RangeInclusive<u16> = 68..=65_535;
/// Features that a backend offers to its frontend and a kernel device cannot have: they belong to vhost-user
/// itself, or the kernel rejects them (network devices with several queue pairs).
const NOT_OF_DEVICES: Features =
    Features::PROTOCOL_FEATURES.union(Features::LOG_ALL).union(Features::NET_MQ).union(Features::ANY_LAYOUT);
/// Additional features of the device: addresses that the kernel translates, and its configuration.
const OF_DEVICES: Features =
    Features::ACCESS_PLATFORM.union(Features::NET_MAC).union(Features::NET_STATUS).union(Features::NET_MTU);

/// The driver of `net_vduse` ports.
///
/// ```
/// use linecard_pmd::{Driver, Registry};
/// use linecard_vhost_user::VhostDriver;
///
/// static VHOST: VhostDriver = VhostDriver::new();
/// static VDUSE: linecard_net_vduse::VduseDriver = linecard_net_vduse::VduseDriver::new(&VHOST);
/// let registry = Registry::new(&[&VHOST, &VDUSE]);
/// assert_eq!(registry.find("net_vduse0")?.name(), "net_vduse");
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
pub struct VduseDriver {
    vhost: &'static VhostDriver,
}

impl VduseDriver {
    /// Creates the driver. Its ports are backends of `vhost`, and share the limits of that driver's ports.
    #[must_use]
    pub const fn new(vhost: &'static VhostDriver) -> Self {
        Self { vhost }
    }
}

impl Driver for VduseDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn keeps_packets(&self) -> bool {
        false
    }

    fn summary(&self) -> &'static str {
        "a network device of the kernel by VDUSE: name=NAME[,mac=ADDRESS][,mtu=68..65535][,queue_size=1..32768][,packed=0|1][,tso=0|1][,state=FILE]"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        Settings::read(args).map(drop)
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let settings = Settings::read(args)?;
        let failed = |what: &str, error: io::Error| {
            args.problem(format!("{what}: {error}"), "see the message before it")
        };
        let (listener, mut connect) = meeting_point(args.name())
            .map_err(|error| args.problem(format!("no socket for its backend: {error}"), ROOM))?;
        let features = BackendConfig::new("", "", linecard_vhost_user::Mode::Listen).features;
        let config = BackendConfig::listening(args.name(), listener)
            .features(
                features
                    .difference(Features::RING_PACKED)
                    .with(Features::RING_PACKED, settings.packed)
                    .with(Features::HOST_SEGMENTS, settings.tso),
            )
            .mtu(settings.plan.mtu)
            .trusted_memory(true);
        let inner = self.vhost.device(config)?;
        let refused = |refusal: frontend::Refusal| args.problem(refusal.to_string(), "report it");
        let mut frontend = connect().map_err(refused)?;
        let plan = Plan { features: offered(frontend.offered), ..settings.plan };
        let len = frontend.record_len(plan.max_size).map_err(refused)?;
        let record = record(settings.state, &plan, len);
        let kernel = Vduse::open(&plan).map_err(|(path, error)| unusable(args, &path, &error))?;
        let was_there = kernel.was_there;
        let mut relay =
            Relay::new(kernel, (connect, frontend), record).map_err(|error| failed("eventfd", error))?;
        if was_there {
            relay.resume().map_err(|failure| {
                let problem = format!("the driver that '{}' has cannot be served: {failure}", plan.name);
                args.problem(problem, format!("reset it with `vdpa dev del {}`", plan.name))
            })?;
        }
        let relay = Relaying::start(args.name(), relay).map_err(|error| failed("a thread", error))?;
        Ok(Box::new(VduseDevice { inner, relay }))
    }
}

const ROOM: &str = "look at the rights of its folder and at the number of open files";

/// The settings in the arguments.
struct Settings {
    plan: Plan,
    packed: bool,
    tso: bool,
    state: Option<PathBuf>,
}

impl Settings {
    fn read(args: &DevArgs) -> Result<Self, Error> {
        let name = args.required("name")?;
        let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name == "control"
            || name.starts_with('.')
            || name.len() >= sys::NAME_MAX
            || !name.chars().all(usable)
        {
            let remedy = "use up to 255 letters, digits, '-', '_' and '.', and not 'control'";
            return Err(args.problem(format!("'name={name}' is no name of a device"), remedy));
        }
        let plan = Plan {
            name: name.into(),
            features: Features::empty(),
            mac: args.mac("mac")?.map_or_else(|| address(name), Into::into),
            mtu: args.number("mtu", MTU)?.unwrap_or(1500),
            max_size: args.number("queue_size", 1..=32_768)?.unwrap_or(1024),
        };
        let packed = args.flag("packed")?.unwrap_or(true);
        let tso = args.flag("tso")?.unwrap_or(false);
        let state = args.value("state").map(PathBuf::from);
        args.finish()?;
        Ok(Self { plan, packed, tso, state })
    }
}

/// Returns a device's default address: locally administered, and the same for the same name.
fn address(name: &str) -> [u8; 6] {
    // FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    [0x02, a, b, c, d, e]
}

/// Returns the features that the device offers to its driver.
fn offered(backend: Features) -> Features {
    backend.difference(NOT_OF_DEVICES).union(OF_DEVICES)
}

/// Creates a socket for the port's backend in a directory that only this user can enter, and a function that
/// connects the port's relay to it.
fn meeting_point(port: &str) -> io::Result<(Listener, Connect)> {
    let folder = linecard_eal::runtime::create(FOLDER).map_err(io::Error::other)?;
    let path = folder.join(format!("{port}.{}", std::process::id()));
    let listener = Listener::bind(&path).map_err(|error| io::Error::other(error.to_string()))?;
    let connect = move || {
        let socket = linecard_wire::socket::connect(&path);
        let failed = |source| linecard_wire::Error::System { action: "connecting", source };
        Frontend::greet(socket.map_err(failed)?)
    };
    Ok((listener, Box::new(connect)))
}

/// Opens the file with the state of the rings. Without one, the port works until its process fails.
fn record(path: Option<PathBuf>, plan: &Plan, len: u64) -> Option<Record> {
    let path = match path {
        Some(path) => path,
        None => linecard_eal::runtime::folder(FOLDER).join(format!("{}.rings", plan.name)),
    };
    Record::open(&path, len, plan.max_size)
        .inspect_err(|error| {
            tracing::warn!(file = %path.display(), %error, "where the rings stand is not kept: after a crash the driver has to be reset");
        })
        .ok()
}

/// Returns an error for a device that the kernel does not provide.
fn unusable(args: &DevArgs, path: &Path, error: &io::Error) -> Error {
    let remedy = match error.kind() {
        ErrorKind::NotFound => {
            "load the kernel's module: `modprobe vduse` (Linux 5.15 or newer, CONFIG_VDPA_USER)"
        }
        ErrorKind::PermissionDenied => "give this user the file, or run as root",
        ErrorKind::ResourceBusy => {
            "another process serves this device: use another name, or end that process"
        }
        ErrorKind::InvalidInput => {
            "the kernel refuses such a device: look at its log, and leave arguments out"
        }
        _ => "look at the kernel's log",
    };
    args.problem(format!("{}: {error}", path.display()), remedy)
}

/// A device whose port is not started: its driver sees no carrier.
struct VduseDevice {
    inner: Box<dyn Device>,
    relay: Relaying,
}

impl Device for VduseDevice {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn info(&self) -> DeviceInfo {
        self.inner.info().driver(DRIVER)
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let Self { inner, relay } = *self;
        match inner.start(config, pool) {
            Ok(Port { rx, tx, control, running: inner }) => {
                relay.set_link(true);
                Ok(Port { rx, tx, control, running: Box::new(Started { inner, relay }) })
            }
            Err(StartError { device: inner, error }) => {
                Err(StartError { device: Box::new(Self { inner, relay }), error })
            }
        }
    }
}

struct Started {
    inner: Box<dyn Running>,
    relay: Relaying,
}

impl Running for Started {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        let Self { inner, relay } = *self;
        relay.set_link(false);
        Box::new(VduseDevice { inner: inner.stop(rx, tx), relay })
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
