//! The arguments of a port over the kernel's vhost-net, and its connection to the devices.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use linecard_netdev::{tap as shared, tun};
use linecard_pmd::{DevArgs, Error as PmdError};

use super::ioctl::Vhost;
use super::net::VhostNet;
use super::tap::{DEFAULT_NAME, Settings, Tap};
use super::{cannot_open, refused};
use crate::backend::{Backend, Connect, ConnectTimeouts, Waiter};
use crate::error::Error;

/// A vhost-net device, and the settings of the interface behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetOptions {
    path: PathBuf,
    /// The numbers of vhost-net descriptors that were passed.
    fds: Vec<i32>,
    tap: Settings,
}

impl NetOptions {
    /// Reads the arguments about the device and the interface.
    pub(super) fn parse(args: &DevArgs, path: PathBuf, queues: u16) -> Result<Self, PmdError> {
        let (tap_fds, fds) = (shared::numbers(args, "tap_fd")?, shared::numbers(args, "vhost_fd")?);
        let iface = args.value("iface");
        if iface.is_some() && !tap_fds.is_empty() {
            let problem = "'tap_fd' cannot go with 'iface'";
            return Err(args.problem(problem, "the descriptors have an interface already; leave iface out"));
        }
        for (key, passed) in [("tap_fd", &tap_fds), ("vhost_fd", &fds)] {
            if !passed.is_empty() && passed.len() != usize::from(queues) {
                let problem = format!("{} descriptors in '{key}' for {queues} queue pairs", passed.len());
                return Err(args
                    .problem(problem, format!("give one descriptor for each, or queues={}", passed.len())));
            }
        }
        if tap_fds.iter().any(|fd| fds.contains(fd)) {
            return Err(args.problem("a descriptor is in 'tap_fd' and in 'vhost_fd'", "give each once"));
        }
        if args.flag("packed_vq")? == Some(true) {
            let problem = format!("packed_vq=1: {} has split rings only", path.display());
            return Err(args.problem(problem, "leave packed_vq out"));
        }
        let iface = iface.unwrap_or(DEFAULT_NAME).to_owned();
        shared::check_template(args, &iface)?;
        let mac = args.mac("mac")?.map(|mac| mac.0);
        let tap = Settings { port: args.name().to_owned(), iface, mac, queues, fds: tap_fds };
        Ok(Self { path, fds, tap })
    }

    /// Creates or takes over the interface, which exists from now on.
    pub(super) fn open(self) -> Result<Arc<dyn Connect>, Error> {
        let passed = match self.fds.as_slice() {
            [] => None,
            fds => Some(fds.iter().map(|fd| take(*fd)).collect::<Result<Vec<_>, _>>()?),
        };
        if passed.is_none() {
            // Before creating an interface that would be useless.
            drop(device(&self.path)?);
        }
        let tap = Mutex::new(Arc::new(Tap::open(&self.tap)?));
        Ok(Arc::new(Kernel { path: self.path, passed, settings: self.tap, tap }))
    }
}

fn take(fd: i32) -> Result<Arc<Vhost>, Error> {
    // SAFETY: the user passed this descriptor for this port alone, and the arguments name each number once.
    let taken =
        unsafe { tun::take(fd) }.map_err(|error| refused(&format!("taking over vhost_fd={fd}"), error))?;
    checked(Vhost::from(taken), &format!("vhost_fd={fd}")).map(Arc::new)
}

/// Opens the device at `path`, and checks that it is a vhost device.
fn device(path: &std::path::Path) -> Result<Vhost, Error> {
    let device = Vhost::open(path).map_err(|error| cannot_open(path, error))?;
    checked(device, &format!("'{}'", path.display()))
}

fn checked(device: Vhost, name: &str) -> Result<Vhost, Error> {
    match device.features() {
        Ok(_) => Ok(device),
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
            Err(Error::NotVhost { name: name.to_owned() })
        }
        Err(error) => Err(refused(&format!("reading the features of {name}"), error)),
    }
}

/// A port's connection to its kernel devices.
#[derive(Debug)]
struct Kernel {
    path: PathBuf,
    /// Devices that were passed, instead of those of `path`.
    passed: Option<Vec<Arc<Vhost>>>,
    settings: Settings,
    /// The interface, which persists between connections.
    tap: Mutex<Arc<Tap>>,
}

impl Kernel {
    /// Returns the interface, or its successor of the same name after it was removed.
    fn tap(&self) -> Result<Arc<Tap>, Error> {
        let mut tap = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        if !tap.is_there() {
            *tap = Arc::new(tap.again(&self.settings)?);
        }
        Ok(tap.clone())
    }
}

impl Connect for Kernel {
    /// Does not wait: the kernel provides the device or it does not.
    fn connect(&self, _: &Arc<Waiter>, _: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        let tap = self.tap()?;
        let devices = match &self.passed {
            Some(passed) => passed.clone(),
            None => (0..tap.len()).map(|_| device(&self.path).map(Arc::new)).collect::<Result<_, _>>()?,
        };
        Ok(Box::new(VhostNet::greet(&self.settings.port, devices, tap)?))
    }
}
