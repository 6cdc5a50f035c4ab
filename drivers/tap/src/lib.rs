//! `net_tap`: a network interface of the kernel's own stack, with this port at its other end.
//!
//! `net_tap0,iface=NAME,mac=ADDRESS|fixed,persist,remote=IFACE,netns=NAME|/path,fd=3:4` — as DPDK's driver of that name:
//!
//! | argument | meaning | default |
//! |---|---|---|
//! | `iface` | the interface's name; the kernel replaces `%d` by a number | `dtap%d` |
//! | `mac` | its address; `fixed` is `00:64:74:61:70:` and the port's number | the kernel's choice |
//! | `persist` | keeps the interface when the program ends | it vanishes on any exit |
//! | `remote` | what the interface `remote` receives arrives here, what this port sends leaves there | none |
//! | `netns` | the namespace in which the interface is created (a name, or a path) | the process's |
//! | `fd` | queues that a privileged process opened and passed on: no privilege is needed | none |
//!
//! Every queue is a descriptor of `/dev/net/tun` with a virtio header before each frame, which leaves
//! checksums and segmentation to the other side, in both directions. Offloads that are not requested are
//! performed by the kernel (receive) or by this driver (transmit).
//!
//! ```
//! use linecard_pmd::Driver;
//! use linecard_net_tap::TapDriver;
//! assert_eq!(TapDriver.name(), "net_tap");
//! ```

mod control;
mod file;
mod handover;
mod open;
mod remote;
mod rx;
mod tx;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use linecard_mempool::Pool;

use self::file::File;
pub use rx::RxLoss;
pub use tx::TxLoss;

use control::{TapControl, Trouble};
use handover::Ownership;
use linecard_net::ether::LONGEST_FRAME;
use linecard_netdev::tun::Queues;
use linecard_netdev::{Interface, refusal, tap, tun};
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::error::Error;
use linecard_pmd::handover::{HandOver, HandedOver};
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::offload::{AcceptedOffloads, Offloads, RxOffloads};
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
use linecard_pmd::stats::PortCounters;
use open::{Opened, Settings};
use remote::Redirections;

const DRIVER: &str = "net_tap";
/// The kernel allows 256 queues for an interface; one of them keeps it alive while the port is stopped.
const MAX_QUEUES: u16 = 255;
/// The bytes of an Ethernet header and two VLAN tags.
const OVERHEAD: usize = 14 + 8;
const TSO: u32 = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// The driver of `net_tap` devices.
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_tap::TapDriver;
/// assert!(TapDriver.summary().contains("iface="));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TapDriver;

impl Driver for TapDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn keeps_packets(&self) -> bool {
        false
    }

    fn summary(&self) -> &'static str {
        "an interface of this kernel: iface=NAME (dtap%d), mac=ADDRESS|fixed, persist, remote=IFACE, \
         netns=NAME|/path, fd=N[:N...]"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        // The arguments are valid whether or not the namespace exists.
        Settings::read(&args.clone().without("netns")).map(drop)
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let settings = Settings::read(args)?;
        let port = args.name().to_owned();
        let (opened, remote) = establish(&port, &settings)?;
        Ok(Box::new(Tap { name: port, settings, remote, opened, ownership: Ownership::default() }))
    }

    fn succeed(
        &self,
        _: &ProbeContext,
        args: &DevArgs,
        handed: HandedOver,
    ) -> Result<Box<dyn Device>, Error> {
        let settings = Settings::read(args)?;
        let name = args.name().to_owned();
        let (opened, ownership) = handover::open(&name, &settings, handed)?;
        Ok(Box::new(Tap { name, settings, remote: None, opened, ownership }))
    }
}

/// Opens the interface, and connects it to the remote one if requested.
fn establish(port: &str, settings: &Settings) -> Result<(Opened, Option<Redirections>), Error> {
    let mut opened = open::open(port, settings)?;
    let remote = match (&settings.remote, &opened.interface) {
        (Some(remote), Some(interface)) => {
            let (joined, mac) = Redirections::join(port, &settings.namespace, interface, remote)?;
            opened.mac = mac;
            Some(joined)
        }
        _ => None,
    };
    Ok((opened, remote))
}

/// The reasons why this user has no tap interfaces.
///
/// ```
/// use linecard_net_tap::NoTap;
/// let closed = NoTap::Device(std::io::ErrorKind::PermissionDenied.into());
/// assert_eq!(closed.to_string(), "/dev/net/tun cannot be opened: permission denied");
/// ```
#[derive(Debug, thiserror::Error)]
pub enum NoTap {
    /// The device does not exist, or this user may not open it.
    #[error("/dev/net/tun cannot be opened: {0}")]
    Device(std::io::Error),
    /// The device opens, but this user may not create interfaces.
    #[error("no interface can be made: {0}")]
    Interface(std::io::Error),
}

/// Creates an interface in this process's namespace, and removes it again. Capabilities and security modules
/// allow no other check.
///
/// ```
/// use linecard_net_tap::{NoTap, try_interface};
/// match try_interface() {
///     Ok(()) => println!("net_tap can be opened"),
///     Err(NoTap::Device(error) | NoTap::Interface(error)) => println!("it cannot: {error}"),
/// }
/// ```
///
/// # Errors
/// [`NoTap`].
pub fn try_interface() -> Result<(), NoTap> {
    let fd = tun::open().map_err(NoTap::Device)?;
    // The interface vanishes with its descriptor.
    tun::make(fd.as_fd(), "lcdoctor%d", Queues::Many).map(drop).map_err(NoTap::Interface)
}

struct Tap {
    name: String,
    settings: Settings,
    /// Dropped before the interface, to which it refers.
    remote: Option<Redirections>,
    opened: Opened,
    ownership: Ownership,
}

impl Device for Tap {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> DeviceInfo {
        let passed = u16::try_from(self.opened.passed.len()).unwrap_or(MAX_QUEUES).min(MAX_QUEUES);
        let queues = if passed == 0 { MAX_QUEUES } else { passed };
        let (min, max) = self.opened.info.mtu_limits;
        let limit = |value: u32, other: u16| match u16::try_from(value) {
            Ok(0) => other,
            Ok(value) => value,
            Err(_) => u16::MAX,
        };
        DeviceInfo::new(DRIVER, self.opened.mac)
            .max_rx_queues(queues)
            .max_tx_queues(queues)
            .default_depth(1024)
            .mtu(limit(min, 68)..=limit(max, u16::MAX - 14))
            .offloads(Offloads::VIRTIO)
    }

    fn check(&self, config: &PortConfig) -> Result<(), Error> {
        if config.rx_queues == config.tx_queues {
            return Ok(());
        }
        Err(Error::Unsupported {
            port: self.name.clone(),
            what: format!("{} receive with {} transmit queues", config.rx_queues, config.tx_queues),
            remedy: "a queue of a tap interface is both; ask for as many of each".into(),
        })
    }

    fn start(mut self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        if let Err(error) = self.follow() {
            return Err(StartError { device: self, error });
        }
        match self.queues(config).and_then(|fds| self.port(config, pool, fds)) {
            Ok(parts) => {
                self.ownership.queues.clear();
                let StartedQueues { fds, rx, tx, control } = parts;
                Ok(Port { rx, tx, control, running: Box::new(Started { tap: self, fds }) })
            }
            Err(error) => {
                self.opened.passed.iter().for_each(|fd| drop(open::retire(fd)));
                Err(StartError { device: self, error })
            }
        }
    }
}

/// The parts of a started port.
struct StartedQueues {
    fds: Vec<Arc<OwnedFd>>,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    control: Arc<TapControl>,
}

impl Tap {
    /// Creates the interface again if it was removed meanwhile, or takes over the present one of its name.
    /// Passed descriptors stay with the interface that was removed.
    fn follow(&mut self) -> Result<(), Error> {
        let gone = self.opened.interface.as_ref().is_some_and(|interface| !interface.exists());
        if !gone || self.opened.keeper.is_none() {
            return Ok(());
        }
        // Its redirection on the remote interface must be removed before another one is added.
        self.remote = None;
        let settings = self.settings.named(&self.opened.name);
        (self.opened, self.remote) = establish(&self.name, &settings)?;
        tracing::info!("{}: the interface {} was gone, and is there again", self.name, self.opened.name);
        Ok(())
    }

    /// Returns an attached descriptor for each queue pair.
    fn queues(&mut self, config: &PortConfig) -> Result<Vec<Arc<OwnedFd>>, Error> {
        let count = usize::from(config.rx_queues);
        // Kept for another attempt until the port has started.
        let left = &self.ownership.queues;
        if left.len() == count {
            return Ok(left.clone());
        }
        if self.ownership.are_elsewhere() {
            return Err(Error::Argument {
                device: self.name.clone(),
                problem: format!("{count} queues are asked for, and {} were handed over", left.len()),
                remedy: "ask for as many".into(),
            });
        }
        if self.opened.passed.is_empty() {
            let fresh = || -> Result<_, Error> {
                let fd = tap::descriptor(&self.name, &self.settings.namespace)?;
                open::attach(&self.name, &fd, &self.opened.name)?;
                Ok(Arc::new(fd))
            };
            return (0..count).map(|_| fresh()).collect();
        }
        for (i, fd) in self.opened.passed.iter().enumerate() {
            // Fails for queues that are already in that state, and for an interface of one queue.
            let _ = tun::serve(fd.as_fd(), i < count);
        }
        Ok(self.opened.passed[..count].to_vec())
    }

    fn port(&self, config: &PortConfig, pool: &Pool, fds: Vec<Arc<OwnedFd>>) -> Result<StartedQueues, Error> {
        let (rx_accepts, tx_takes) = self.offloads(config.offloads.rx, &fds)?;
        let counters = PortCounters::<RxLoss, TxLoss>::new(config.rx_queues, config.tx_queues);
        let trouble = Arc::new(Trouble::new(&self.name));
        let longest = if rx_accepts.tso4 { LONGEST_FRAME } else { usize::from(config.mtu) + OVERHEAD };
        let shared = !self.opened.passed.is_empty();
        let file = |fd: &Arc<OwnedFd>| File::new(Arc::clone(fd), shared);
        let receive = |(i, fd): (usize, &Arc<OwnedFd>)| {
            rx::queue(rx::RxParts {
                file: file(fd),
                pool: pool.clone(),
                stats: counters.rx(i),
                trouble: Arc::clone(&trouble),
                accepted: rx_accepts,
                longest,
            })
        };
        let rx: Option<Vec<_>> = fds.iter().enumerate().map(receive).collect();
        let rx = rx.ok_or_else(|| self.too_small(pool, longest))?;
        let transmit = |(i, fd): (usize, &Arc<OwnedFd>)| -> Box<dyn TxQueue> {
            let trouble = Arc::clone(&trouble);
            Box::new(tx::Tx::new(file(fd), pool.clone(), counters.tx(i), trouble, tx_takes))
        };
        let tx = fds.iter().enumerate().map(transmit).collect();
        let identity = Identity::new(&self.name, self.opened.mac, config.mtu);
        let paths = format!("rx {}, tx write", rx.first().map_or("off", |queue| queue.path()));
        let control = Arc::new(TapControl {
            local: LocalControl::new(identity, counters).with_paths(paths),
            interface: self.opened.interface.clone(),
            trouble,
            features: describe(rx_accepts),
            missed: Mutex::new(0),
        });
        if let Some(interface) = &control.interface {
            self.shape(interface, config)?;
        }
        control.forget();
        Ok(StartedQueues { fds, rx, tx, control })
    }

    /// Sets the offloads that the kernel may leave to us; returns those, and those that the kernel accepts.
    fn offloads(
        &self,
        rx: RxOffloads,
        fds: &[Arc<OwnedFd>],
    ) -> Result<(AcceptedOffloads, AcceptedOffloads), Error> {
        let large = rx.contains(RxOffloads::TCP_LRO);
        let csum = large || rx.intersects(RxOffloads::CHECKSUM);
        let (mut uso, bits) = (true, if csum { libc::TUN_F_CSUM } else { 0 } | if large { TSO } else { 0 });
        for fd in fds {
            // Kernels before 6.2 do not support UDP segmentation; this call finds out.
            uso = uso && tun::set_offload(fd.as_fd(), libc::TUN_F_CSUM | TSO | USO).is_ok();
            let bits = if large && uso { bits | USO } else { bits };
            tun::set_offload(fd.as_fd(), bits).map_err(|error| {
                refusal(&self.name, &format!("setting the offloads of interface {}", self.opened.name), error)
            })?;
        }
        let (uso4, uso6) = (large && uso, large && uso);
        let rx = AcceptedOffloads { csum, tso4: large, tso6: large, ecn: large, uso4, uso6 };
        Ok((rx, AcceptedOffloads { csum: true, tso4: true, tso6: true, ecn: true, uso4: uso, uso6: uso }))
    }

    /// Applies the configuration to the interface, and brings it up.
    fn shape(&self, interface: &Interface, config: &PortConfig) -> Result<(), Error> {
        let (info, ours) = (interface.info()?, self.opened.keeper.is_some());
        // The process that passed descriptors has set up the interface, and we may lack the permission.
        if ours {
            if info.mtu != u32::from(config.mtu) {
                interface.set_mtu(config.mtu.into())?;
            }
            interface.set_queue_len(config.rx_depth.into())?;
        } else if info.mtu > u32::from(config.mtu) {
            return Err(Error::Mtu {
                port: self.name.clone(),
                asked: config.mtu,
                min: u16::try_from(info.mtu).unwrap_or(u16::MAX),
                max: *self.info().mtu.end(),
            });
        }
        if ours && !info.is_up() { interface.set_up(true) } else { Ok(()) }
    }

    fn too_small(&self, pool: &Pool, longest: usize) -> Error {
        Error::Argument {
            device: self.name.clone(),
            problem: format!(
                "a frame of {longest} bytes does not fit into buffers of {} bytes with {} before them",
                pool.data_room(),
                pool.headroom()
            ),
            remedy:
                "make the pool with larger buffers and a headroom of at least 12, or ask for a smaller MTU"
                    .into(),
        }
    }
}

/// Returns the readable form of the offloads negotiated with the kernel.
fn describe(accepted: AcceptedOffloads) -> String {
    let words = [
        (true, "vnet_hdr"),
        (accepted.csum, "csum"),
        (accepted.tso4, "tso4"),
        (accepted.tso6, "tso6"),
        (accepted.ecn, "ecn"),
        (accepted.uso4, "uso"),
    ];
    words.iter().filter(|(has, _)| *has).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

struct Started {
    tap: Box<Tap>,
    fds: Vec<Arc<OwnedFd>>,
}

impl Running for Started {
    fn hand_over(&self) -> Option<&dyn HandOver> {
        self.can_change_hands().then_some(self)
    }

    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        drop((rx, tx));
        let Self { tap, fds } = *self;
        if tap.ownership.are_elsewhere() {
            return tap;
        }
        // A queue that a thread still holds receives nothing from here on.
        fds.iter().for_each(|fd| drop(open::retire(fd)));
        if let Some(interface) = &tap.opened.interface
            && !tap.opened.was_up
            && interface.exists()
        {
            let _ = interface.set_up(false);
        }
        tap
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
