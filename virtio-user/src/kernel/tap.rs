//! The tap interface of a vhost-net port: created, taken over, or passed by descriptor. Its queues stay open
//! as long as the port, so that the interface and its addresses outlive a stop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linecard_netdev::tun::Queues;
use linecard_netdev::{Interface, Namespace, refusal, tap, tun};
use linecard_pmd::Error as PmdError;
use linecard_virtio::Features;

use crate::error::Error;

/// DPDK's default name; the kernel completes it with the first free number.
pub(super) const DEFAULT_NAME: &str = "tap%d";

/// The requested interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) port: String,
    pub(super) iface: String,
    pub(super) mac: Option<[u8; 6]>,
    /// The number of queues to open.
    pub(super) queues: u16,
    /// The numbers of descriptors that were passed instead.
    pub(super) fds: Vec<i32>,
}

/// The origin of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The port created it, and it is removed with the port.
    Made,
    /// It existed before.
    TakenOver,
    /// Its descriptors were passed to this process.
    Passed,
}

/// An interface and its queues.
#[derive(Debug)]
pub(super) struct Tap {
    name: String,
    /// `None` when the interface is in another network namespace.
    interface: Option<Interface>,
    queues: Vec<OwnedFd>,
    kind: Queues,
    origin: Origin,
    mac: [u8; 6],
}

impl Tap {
    /// Opens the interface that `settings` describe, with queue 0 attached and without a carrier. Leaves
    /// nothing behind on failure.
    pub(super) fn open(settings: &Settings) -> Result<Self, Error> {
        let opened = if settings.fds.is_empty() { make(settings) } else { passed(settings) };
        let mut tap = opened.map_err(Error::of_interface)?;
        tap.set_carrier(false);
        tap.settle(settings).map_err(Error::of_interface)?;
        Ok(tap)
    }

    /// Opens the interface again after it was removed. An interface that the port created is created again
    /// under its name; for another one, the port waits.
    pub(super) fn again(&self, settings: &Settings) -> Result<Self, Error> {
        let gone = || Error::Gone { interface: self.name.clone() };
        let found = || Interface::find(&settings.port, &Namespace::default(), &self.name).is_ok();
        if self.origin == Origin::Passed || (self.origin == Origin::TakenOver && !found()) {
            return Err(gone());
        }
        let tap = Self::open(&Settings { iface: self.name.clone(), ..settings.clone() })?;
        Ok(Self { origin: self.origin, ..tap })
    }

    /// Sets the address, detaches all queues but the first, and sets an interface of ours up.
    fn settle(&mut self, settings: &Settings) -> Result<(), PmdError> {
        let Some(first) = self.queues.first() else { return Ok(()) };
        let refused = |action: &str, error| {
            refusal(&settings.port, &format!("{action} the interface {}", self.name), error)
        };
        if let Some(mac) = settings.mac {
            tun::set_mac(first.as_fd(), mac).map_err(|error| refused("setting the address of", error))?;
        }
        self.mac = tun::mac(first.as_fd()).map_err(|error| refused("reading the address of", error))?;
        for queue in 1..self.queues.len() {
            self.serve(queue, false).map_err(|error| refused("keeping a queue of", error))?;
        }
        match &self.interface {
            Some(interface) if self.origin == Origin::Made => interface.set_up(true),
            _ => Ok(()),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Returns the number of queues.
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    /// Returns one of the queues.
    pub(super) fn queue(&self, queue: usize) -> Option<BorrowedFd<'_>> {
        self.queues.get(queue).map(AsFd::as_fd)
    }

    /// Attaches or detaches a queue. Queue 0 stays attached: requests to the interface go through it.
    pub(super) fn serve(&self, queue: usize, on: bool) -> io::Result<()> {
        match self.queues.get(queue) {
            Some(fd) if queue > 0 && self.kind == Queues::Many => tun::serve(fd.as_fd(), on),
            _ => Ok(()),
        }
    }

    /// Sets the carrier, which shows the kernel's stack whether the port is running. Passed descriptors are
    /// not changed, since their owner may use them again.
    pub(super) fn set_carrier(&self, on: bool) {
        if self.origin != Origin::Passed
            && let Some(first) = self.queues.first()
        {
            // Linux before 5.0 does not support this, and always reports a carrier.
            let _ = tun::set_carrier(first.as_fd(), on);
        }
    }

    /// Returns whether the interface behind the queues still exists, in any namespace.
    pub(super) fn is_there(&self) -> bool {
        self.queues.first().is_some_and(|first| tun::attached(first.as_fd()).is_ok())
    }

    /// Returns whether the interface is up; `None` if it is in another namespace and cannot be asked.
    pub(super) fn is_up(&self) -> Option<bool> {
        let info = self.interface.as_ref()?.info().ok()?;
        Some(info.is_up())
    }

    /// Returns the offloads that the interface supports in both directions.
    pub(super) fn offloads(&self) -> Features {
        const SEGMENTS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let known = |bits| self.queue(0).is_some_and(|first| tun::set_offload(first, bits).is_ok());
        // Kernels before 6.2 do not support UDP segmentation; this call finds out.
        let uso = known(SEGMENTS | USO);
        let without = |features: Features, uso_features| features.with(uso_features, uso);
        let _ = known(0);
        without(
            Features::NET_CSUM
                | Features::NET_GUEST_CSUM
                | Features::NET_HOST_TSO4
                | Features::NET_HOST_TSO6
                | Features::NET_HOST_ECN
                | Features::NET_GUEST_TSO4
                | Features::NET_GUEST_TSO6
                | Features::NET_GUEST_ECN,
            Features::NET_HOST_USO | Features::NET_GUEST_USO4 | Features::NET_GUEST_USO6,
        )
    }

    /// Sets the offloads that the kernel's stack may leave to the port. The other direction needs no setting:
    /// the header requests them.
    pub(super) fn set_offloads(&self, features: Features) -> io::Result<()> {
        let bits = [
            (Features::NET_GUEST_CSUM, libc::TUN_F_CSUM),
            (Features::NET_GUEST_TSO4, libc::TUN_F_TSO4),
            (Features::NET_GUEST_TSO6, libc::TUN_F_TSO6),
            (Features::NET_GUEST_ECN, libc::TUN_F_TSO_ECN),
            (Features::NET_GUEST_USO4, libc::TUN_F_USO4),
            (Features::NET_GUEST_USO6, libc::TUN_F_USO6),
        ];
        let bits =
            bits.iter().filter(|(feature, _)| features.contains(*feature)).fold(0, |all, (_, bit)| all | bit);
        self.queue(0).map_or(Ok(()), |first| tun::set_offload(first, bits))
    }

    /// Sets the interface to the port's MTU. If that fails, an interface with a smaller MTU is accepted. An
    /// interface in another namespace is left to its owner.
    pub(super) fn set_mtu(&self, mtu: u16) -> Result<(), Error> {
        let Some(interface) = &self.interface else { return Ok(()) };
        let Ok(info) = interface.info() else { return Ok(()) };
        if info.mtu == u32::from(mtu) {
            return Ok(());
        }
        match interface.set_mtu(mtu.into()) {
            Err(error) if info.mtu > u32::from(mtu) => Err(Error::of_interface(error)),
            _ => Ok(()),
        }
    }
}

fn make(settings: &Settings) -> Result<Tap, PmdError> {
    let (port, here) = (settings.port.as_str(), Namespace::default());
    let first = tap::descriptor(port, &here)?;
    let wanted = Queues::for_count(settings.queues);
    let (name, kind, origin) = match tun::make(first.as_fd(), &settings.iface, wanted) {
        Ok(name) => (name, wanted, Origin::Made),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
            let existing = Interface::find(port, &here, &settings.iface)?;
            let kind = tap::usable(port, &existing.info()?, wanted)?;
            (tap::attach(port, &first, &settings.iface, kind)?, kind, Origin::TakenOver)
        }
        Err(error) => return Err(not_made(settings, wanted, error)),
    };
    let mut queues = vec![first];
    for _ in 1..settings.queues {
        let queue = tap::descriptor(port, &here)?;
        tap::attach(port, &queue, &name, kind)?;
        queues.push(queue);
    }
    let interface = Interface::find(port, &here, &name)?;
    Ok(Tap { name, interface: Some(interface), queues, kind, origin, mac: [0; 6] })
}

fn not_made(settings: &Settings, wanted: Queues, error: io::Error) -> PmdError {
    let action = format!("making the interface {}", settings.iface);
    if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
        return refusal(&settings.port, &action, error);
    }
    let name = if settings.iface.contains('%') { "lc0" } else { &settings.iface };
    let many = if wanted == Queues::Many { " multi_queue" } else { "" };
    let remedy = format!(
        "have root make it once, 'ip tuntap add dev {name} mode tap vnet_hdr{many} user USER', and give iface={name}; or pass descriptors with tap_fd="
    );
    PmdError::System { port: settings.port.clone(), action, source: error, remedy }
}

fn passed(settings: &Settings) -> Result<Tap, PmdError> {
    let port = settings.port.as_str();
    // SAFETY: the user passed these descriptors for this port alone, and the arguments name each number once.
    let (name, queues) = unsafe { tap::passed(port, "tap_fd", &settings.fds) }?;
    let mac = queues.first().and_then(|first| tun::mac(first.as_fd()).ok());
    // An interface of that name in our namespace may differ from that of the descriptor.
    let interface = Interface::find(port, &Namespace::default(), &name).ok();
    let ours = |interface: &Interface| interface.info().is_ok_and(|info| info.mac == mac);
    let interface = interface.filter(ours);
    // With a single queue, there is none to detach.
    let kind = Queues::for_count(u16::try_from(queues.len()).unwrap_or(u16::MAX));
    Ok(Tap { name, interface, queues, kind, origin: Origin::Passed, mac: mac.unwrap_or_default() })
}
