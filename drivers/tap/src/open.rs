//! Getting at the interface: made, taken over, or passed to this process by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linecard_net::MacAddr;

use linecard_netdev::{Facts, Interface, Namespace, check_name, refusal, tun};
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

/// The name that the kernel completes with the first number that is free; DPDK's.
const DEFAULT_NAME: &str = "dtap%d";
/// Attributes of a tun interface (`linux/if_link.h`, `IFLA_TUN_…`).
const TUN_TYPE: u16 = 3;
const TUN_MULTI_QUEUE: u16 = 7;
const TUN_QUEUES: [u16; 2] = [8, 9];

/// What the arguments ask for.
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
    /// The same for an interface of that name.
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
        let fds = match args.value("fd") {
            None => Vec::new(),
            Some(text) => descriptors(args, text)?,
        };
        if !fds.is_empty() && (args.value("iface").is_some() || persist || remote.is_some()) {
            let problem = "'fd' cannot go with 'iface', 'persist' or 'remote'";
            return Err(
                args.problem(problem, "the one who opened the descriptor has said those; leave them out")
            );
        }
        check_name(args.name(), &iface)?;
        if iface.matches('%').count() > usize::from(iface.contains("%d")) {
            let remedy = "write %d at most once, where the kernel is to put a number";
            return Err(args.problem(format!("'iface={iface}' is not possible"), remedy));
        }
        let namespace = Namespace::of(args)?;
        args.finish()?;
        Ok(Self { namespace, iface, mac, persist, fds, remote })
    }
}

/// DPDK's fixed address: zero, `dtap`, and the port's number.
fn fixed(port: &str) -> [u8; 6] {
    let digits = port.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = digits.parse::<u64>().unwrap_or(0);
    [0, b'd', b't', b'a', b'p', number as u8]
}

fn descriptors(args: &DevArgs, text: &str) -> Result<Vec<i32>, Error> {
    let numbers: Vec<i32> = text.split(':').map_while(|piece| piece.parse().ok()).collect();
    let good = numbers.len() == text.split(':').count() && numbers.iter().all(|fd| *fd > 2);
    let twice = numbers.iter().enumerate().any(|(i, fd)| numbers[..i].contains(fd));
    if !good || twice {
        let remedy = "give the numbers of open descriptors, each once, as in fd=3:4";
        return Err(args.problem(format!("'fd={text}' is not possible"), remedy));
    }
    Ok(numbers)
}

/// An interface that is ours, with nothing in service yet.
pub(super) struct Opened {
    /// Its name.
    pub(super) name: String,
    /// To ask and to change it; `None` when it is in a namespace that we are not in.
    pub(super) interface: Option<Arc<Interface>>,
    pub(super) mac: [u8; 6],
    /// Keeps the interface alive between stop and start; none with passed descriptors.
    pub(super) keeper: Option<OwnedFd>,
    /// Passed descriptors.
    pub(super) passed: Vec<Arc<OwnedFd>>,
    /// It was up before we came.
    pub(super) was_up: bool,
    pub(super) facts: Facts,
}

/// Opens what `settings` ask for; nothing is left behind on failure.
pub(super) fn open(port: &str, settings: &Settings) -> Result<Opened, Error> {
    if settings.fds.is_empty() { make(port, settings) } else { passed(port, settings) }
}

fn make(port: &str, settings: &Settings) -> Result<Opened, Error> {
    let keeper = descriptor(port, &settings.namespace)?;
    let (name, fresh) = match tun::attach(keeper.as_fd(), &settings.iface, true) {
        Ok(name) => (name, true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
            let existing = Interface::find(port, &settings.namespace, &settings.iface)?;
            usable(port, &existing.facts()?)?;
            (attach(port, &keeper, &settings.iface)?, false)
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
    let was_up = !fresh && interface.facts()?.is_up();
    if let Some(mac) = settings.mac {
        interface.set_mac(mac)?;
    }
    let facts = interface.facts()?;
    let mac = facts.mac.unwrap_or_default();
    let interface = Some(Arc::new(interface));
    Ok(Opened { name, interface, mac, keeper: Some(keeper), passed: Vec::new(), was_up, facts })
}

/// A fresh descriptor of the tun device, in a namespace.
pub(super) fn descriptor(port: &str, namespace: &Namespace) -> Result<OwnedFd, Error> {
    namespace.enter(port, tun::open)?.map_err(|error| {
        let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENXIO | libc::ENODEV));
        let action = format!("opening {}", tun::DEVICE);
        if missing {
            let remedy = "load it with 'modprobe tun', or give the container --device /dev/net/tun";
            return Error::System { port: port.into(), action, source: error, remedy: remedy.into() };
        }
        refusal(port, &action, error)
    })
}

/// Attaches one more queue to an interface that is there.
pub(super) fn attach(port: &str, fd: &OwnedFd, name: &str) -> Result<String, Error> {
    tun::attach(fd.as_fd(), name, false).map_err(|error| match error.raw_os_error() {
        Some(libc::E2BIG) => Error::System {
            port: port.into(),
            action: format!("adding a queue to interface {name}"),
            source: error,
            remedy: "ask for fewer queues".into(),
        },
        _ => refusal(port, &format!("opening the interface {name}"), error),
    })
}

/// Whether an interface that somebody made before is one that we can take over.
fn usable(port: &str, facts: &Facts) -> Result<(), Error> {
    let name = &facts.name;
    let problem =
        |problem: String, remedy: String| Err(Error::Argument { device: port.into(), problem, remedy });
    if facts.driver != "tun" || facts.datum(TUN_TYPE) != Some(libc::IFF_TAP.cast_unsigned()) {
        let kind = match facts.driver.as_str() {
            "" => "no tap interface".to_owned(),
            "tun" => "a tun interface, not a tap interface".to_owned(),
            other => format!("a {other} interface, not a tap interface"),
        };
        return problem(format!("'{name}' is {kind}"), "choose another name with iface=".into());
    }
    if facts.datum(TUN_MULTI_QUEUE) == Some(0) {
        let remedy = format!("make it with 'ip tuntap add dev {name} mode tap multi_queue vnet_hdr'");
        return problem(format!("'{name}' is a tap interface of one queue only"), remedy);
    }
    if TUN_QUEUES.iter().any(|queues| facts.datum(*queues).is_some_and(|count| count > 0)) {
        let remedy = "end that program, or choose another name with iface=".into();
        return problem(format!("another program uses the interface '{name}'"), remedy);
    }
    Ok(())
}

/// Takes over a descriptor that the arguments name.
fn take(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the user said that this descriptor is meant for this port alone, and the arguments name it once.
    unsafe { tun::take(number) }
}

fn passed(port: &str, settings: &Settings) -> Result<Opened, Error> {
    let problem = |number: i32, problem: String| Error::Argument {
        device: port.into(),
        problem: format!("fd={number} cannot be used: {problem}"),
        remedy: "pass descriptors of /dev/net/tun, each attached to one tap interface by TUNSETIFF".into(),
    };
    let (mut name, mut passed) = (String::new(), Vec::new());
    for &number in &settings.fds {
        let fd = take(number).map_err(|error| problem(number, error.to_string()))?;
        let found = tun::attached(fd.as_fd()).map_err(|text| problem(number, text))?;
        if !name.is_empty() && found != name {
            return Err(problem(number, format!("it is a queue of {found}, the one before of {name}")));
        }
        tun::prepare(fd.as_fd()).map_err(|error| problem(number, error.to_string()))?;
        name = found;
        passed.push(Arc::new(fd));
    }
    let first = passed.first().ok_or_else(|| problem(0, "there is none".into()))?;
    let mac = tun::mac(first.as_fd().as_fd()).map_err(|error| problem(settings.fds[0], error.to_string()))?;
    // An interface of that name may be another one, in our namespace, than that of the descriptor.
    let interface = Interface::find(port, &settings.namespace, &name).ok();
    let facts = interface
        .as_ref()
        .and_then(|interface| interface.facts().ok())
        .filter(|facts| facts.mac == Some(mac));
    let interface = interface.filter(|_| facts.is_some()).map(Arc::new);
    if let Some(mac) = settings.mac {
        return Err(Error::Unsupported {
            port: port.into(),
            what: format!("an address ({}) for a passed descriptor", MacAddr(mac)),
            remedy: "set it with 'ip link set address' where the interface was made".into(),
        });
    }
    let facts = facts.unwrap_or_default();
    Ok(Opened { name, interface, mac, keeper: None, passed, was_up: true, facts })
}

/// Takes a queue out of service; a failure means that the interface is gone.
pub(super) fn retire(fd: &OwnedFd) -> io::Result<()> {
    tun::serve(fd.as_fd(), false)
}
