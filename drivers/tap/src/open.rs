//! Opens the interface: created, taken over, or passed to this process by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linecard_net::MacAddr;

use linecard_netdev::tun::Queues;
use linecard_netdev::{Interface, InterfaceInfo, Namespace, refusal, tap, tun};
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

/// DPDK's default name; the kernel completes it with the first free number.
const DEFAULT_NAME: &str = "dtap%d";
/// The requested settings.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) namespace: Namespace,
    iface: String,
    mac: Option<[u8; 6]>,
    persist: bool,
    fds: Vec<i32>,
    pub(super) remote: Option<String>,
}

impl Settings {
    /// Returns the same settings for another interface name.
    pub(super) fn named(&self, iface: &str) -> Self {
        Self { iface: iface.to_owned(), ..self.clone() }
    }

    pub(super) fn read(args: &DevArgs) -> Result<Self, Error> {
        let iface = args.value("iface").unwrap_or(DEFAULT_NAME).to_owned();
        let mac = match args.value("mac") {
            Some("fixed") => Some(fixed(args.name())),
            _ => args.mac("mac")?.map(<[u8; 6]>::from),
        };
        let persist = args.flag("persist")?.unwrap_or(false);
        let remote = args.value("remote").map(str::to_owned);
        let fds = tap::numbers(args, "fd")?;
        if !fds.is_empty() && (args.value("iface").is_some() || persist || remote.is_some()) {
            let problem = "'fd' cannot go with 'iface', 'persist' or 'remote'";
            return Err(
                args.problem(problem, "the one who opened the descriptor has said those; leave them out")
            );
        }
        if let Some(mac) = mac.filter(|_| !fds.is_empty()) {
            return Err(Error::Unsupported {
                port: args.name().into(),
                what: format!("an address ({}) for a passed descriptor", MacAddr(mac)),
                remedy: "set it with 'ip link set address' where the interface was made".into(),
            });
        }
        tap::check_template(args, &iface)?;
        let namespace = Namespace::of(args)?;
        args.finish()?;
        Ok(Self { namespace, iface, mac, persist, fds, remote })
    }
}

/// Returns DPDK's fixed address: zero, `dtap`, and the port's number.
fn fixed(port: &str) -> [u8; 6] {
    let digits = port.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = digits.parse::<u64>().unwrap_or(0);
    [0, b'd', b't', b'a', b'p', number as u8]
}

/// An opened interface without an attached queue.
pub(super) struct Opened {
    /// Its name.
    pub(super) name: String,
    /// Reads and changes the interface; `None` if it is in another network namespace.
    pub(super) interface: Option<Arc<Interface>>,
    pub(super) mac: [u8; 6],
    /// Keeps the interface alive between stop and start; none with passed descriptors.
    pub(super) keeper: Option<OwnedFd>,
    /// Passed descriptors.
    pub(super) passed: Vec<Arc<OwnedFd>>,
    /// Whether the interface was up before it was opened.
    pub(super) was_up: bool,
    pub(super) info: InterfaceInfo,
}

/// Opens the interface that `settings` describe. Leaves nothing behind on failure.
pub(super) fn open(port: &str, settings: &Settings) -> Result<Opened, Error> {
    if settings.fds.is_empty() { make(port, settings) } else { passed(port, settings) }
}

fn make(port: &str, settings: &Settings) -> Result<Opened, Error> {
    let keeper = tap::descriptor(port, &settings.namespace)?;
    let (name, fresh) = match tun::make(keeper.as_fd(), &settings.iface, Queues::Many) {
        Ok(name) => (name, true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
            let existing = Interface::find(port, &settings.namespace, &settings.iface)?;
            let queues = tap::usable(port, &existing.info()?, Queues::Many)?;
            (tap::attach(port, &keeper, &settings.iface, queues)?, false)
        }
        Err(error) => return Err(refusal(port, &format!("making the interface {}", settings.iface), error)),
    };
    tun::serve(keeper.as_fd(), false)
        .map_err(|error| refusal(port, &format!("keeping the interface {name}"), error))?;
    if settings.persist {
        tun::persist(keeper.as_fd())
            .map_err(|error| refusal(port, &format!("making {name} persistent"), error))?;
    }
    let interface = Interface::find(port, &settings.namespace, &name)?;
    let was_up = !fresh && interface.info()?.is_up();
    if let Some(mac) = settings.mac {
        interface.set_mac(mac)?;
    }
    let info = interface.info()?;
    let mac = info.mac.unwrap_or_default();
    let interface = Some(Arc::new(interface));
    Ok(Opened { name, interface, mac, keeper: Some(keeper), passed: Vec::new(), was_up, info })
}

/// Attaches one more queue to an existing interface.
pub(super) fn attach(port: &str, fd: &OwnedFd, name: &str) -> Result<String, Error> {
    tap::attach(port, fd, name, Queues::Many)
}

fn passed(port: &str, settings: &Settings) -> Result<Opened, Error> {
    // SAFETY: the user passed these descriptors for this port alone, and the arguments name each number once.
    let (name, passed) = unsafe { tap::passed(port, "fd", &settings.fds) }?;
    let passed: Vec<_> = passed.into_iter().map(Arc::new).collect();
    let mac = passed.first().map(|first| tun::mac(first.as_fd().as_fd())).transpose();
    let mac = mac.map_err(|error| refusal(port, &format!("reading the address of {name}"), error))?;
    let mac = mac.unwrap_or_default();
    // An interface of that name in our namespace may differ from that of the descriptor.
    let interface = Interface::find(port, &settings.namespace, &name).ok();
    let info =
        interface.as_ref().and_then(|interface| interface.info().ok()).filter(|info| info.mac == Some(mac));
    let interface = interface.filter(|_| info.is_some()).map(Arc::new);
    let info = info.unwrap_or_default();
    Ok(Opened { name, interface, mac, keeper: None, passed, was_up: true, info })
}

/// Detaches a queue; a failure means that the interface was removed.
pub(super) fn retire(fd: &OwnedFd) -> io::Result<()> {
    tun::serve(fd.as_fd(), false)
}
