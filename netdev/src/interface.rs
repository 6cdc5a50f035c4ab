//! An interface, found by name and identified by its index.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::info::InterfaceInfo;
use super::netlink::{ACK, DUMP, Message, Netlink, Request};
use super::{ETHER, LOOPBACK, NAME_LEN, Namespace, refusal};
use linecard_pmd::args::distance;
use linecard_pmd::control::Link;
use linecard_pmd::error::Error;

/// The most names that a message lists.
const LISTED: usize = 8;

/// An interface of a namespace, used on behalf of a port, from any thread. It is identified by its index, so
/// that a later renaming does not matter. If it is removed and created again under its name, it is found
/// [`again`](Self::again) when its port starts.
///
/// ```
/// use linecard_netdev::{Interface, Namespace};
/// let lo = Interface::find("net_af_xdp0", &Namespace::default(), "lo")?;
/// assert_eq!(lo.index(), lo.info()?.index);
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Debug)]
pub struct Interface {
    port: String,
    name: String,
    /// The link type; a later interface of the same name must have the same one.
    kind: u16,
    index: AtomicU32,
    netlink: Mutex<Netlink>,
    namespace: Namespace,
    /// Whether its removal was reported.
    told: AtomicBool,
    /// Whether the deletion of its namespace was reported.
    orphaned: AtomicBool,
}

impl Interface {
    /// Finds the interface `name` of `namespace`, for the port `port`.
    ///
    /// # Errors
    /// There is no such interface (the message lists similar names), or the kernel refuses the query.
    pub fn find(port: &str, namespace: &Namespace, name: &str) -> Result<Self, Error> {
        check_name(port, name)?;
        let mut netlink = namespace
            .enter(port, Netlink::open)?
            .map_err(|error| refusal(port, "opening a route netlink socket", error))?;
        let info = by_name(&mut netlink, name)
            .map_err(|error| refusal(port, &format!("looking for interface {name}"), error))?;
        match info {
            Some(info) => Ok(Self {
                port: port.into(),
                name: name.into(),
                kind: info.kind,
                index: AtomicU32::new(info.index),
                netlink: Mutex::new(netlink),
                namespace: namespace.clone(),
                told: AtomicBool::new(false),
                orphaned: AtomicBool::new(false),
            }),
            None => Err(missing(port, namespace, name, &mut netlink)),
        }
    }

    /// Like [`find`](Self::find), for drivers that need Ethernet frames.
    ///
    /// ```
    /// use linecard_netdev::{Interface, Namespace};
    /// let problem = Interface::find_ethernet("port", &Namespace::default(), "lo").expect_err("no Ethernet");
    /// assert!(problem.to_string().contains("'lo' is not an Ethernet interface"));
    /// ```
    ///
    /// # Errors
    /// As for [`find`](Self::find), and an interface of another link type.
    pub fn find_ethernet(port: &str, namespace: &Namespace, name: &str) -> Result<Self, Error> {
        Self::find_kind(port, namespace, name, &[ETHER], "link/ether")
    }

    /// Like [`find_ethernet`](Self::find_ethernet), but also accepts the loopback interface, whose frames
    /// have an Ethernet header with zero addresses.
    ///
    /// ```
    /// use linecard_netdev::{Interface, Namespace};
    /// assert!(Interface::find_framed("port", &Namespace::default(), "lo")?.info()?.is_loopback());
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`find_ethernet`](Self::find_ethernet).
    pub fn find_framed(port: &str, namespace: &Namespace, name: &str) -> Result<Self, Error> {
        Self::find_kind(port, namespace, name, &[ETHER, LOOPBACK], "link/ether or link/loopback")
    }

    fn find_kind(
        port: &str,
        namespace: &Namespace,
        name: &str,
        kinds: &[u16],
        shown: &str,
    ) -> Result<Self, Error> {
        let interface = Self::find(port, namespace, name)?;
        if kinds.contains(&interface.kind) {
            return Ok(interface);
        }
        Err(Error::Argument {
            device: port.into(),
            problem: format!("'{name}' is not an Ethernet interface (its link type is {})", interface.kind),
            remedy: format!("choose one that 'ip link' shows as {shown}"),
        })
    }

    /// Returns the properties of the interface when its port starts. If it was removed, the present interface
    /// of its name takes its place, so that an interface that is created again needs no new port.
    ///
    /// # Errors
    /// The interface was removed, and none or one of another link type has its name.
    pub fn again(&self) -> Result<InterfaceInfo, Error> {
        match self.read() {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            outcome => return outcome.map_err(|error| self.refused("reading", error)),
        }
        let found = by_name(&mut self.netlink(), &self.name);
        let info = match found {
            Ok(Some(info)) if info.kind == self.kind => info,
            Ok(_) => return Err(self.refused("reading", io::Error::from_raw_os_error(libc::ENODEV))),
            Err(error) => return Err(self.refused("reading", error)),
        };
        tracing::info!("{}: the interface {} was made again, and is used", self.port, self.name);
        self.index.store(info.index, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        Ok(info)
    }

    /// Returns the name it was found by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the index, which stays when the interface is renamed.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    /// Returns the present properties of the interface.
    ///
    /// # Errors
    /// The interface was removed.
    pub fn info(&self) -> Result<InterfaceInfo, Error> {
        self.read().map_err(|error| self.refused("reading", error))
    }

    fn read(&self) -> io::Result<InterfaceInfo> {
        let answer = self.netlink().ask(Request::link(libc::RTM_GETLINK, 0, self.index(), 0, 0))?;
        answer.first().and_then(InterfaceInfo::read).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Returns the link state, for [`PortControl::link`](linecard_pmd::PortControl::link): down if the
    /// interface was removed, which is reported once.
    #[must_use]
    pub fn link(&self) -> Link {
        let link = self.link_only();
        if !link.up && !self.exists() && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: the interface {} was removed, or moved to another namespace; make it again, then stop and start the port",
                self.port,
                self.name
            );
        }
        link
    }

    /// Returns the link state, for drivers that themselves report the removal of the interface.
    pub fn link_only(&self) -> Link {
        if self.namespace.is_deleted() && !self.orphaned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: the network namespace {} was deleted, and lives on for this port alone; close the port to end it",
                self.port,
                self.namespace
            );
        }
        if self.read().is_ok_and(|info| info.is_running()) { Link::UP } else { Link::DOWN }
    }

    /// Returns whether the interface still exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.read().is_ok()
    }

    /// Changes the MTU.
    ///
    /// # Errors
    /// The kernel refuses: unsuitable for the interface, no permission, or the interface was removed.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        let request = Request::link(libc::RTM_NEWLINK, ACK, self.index(), 0, 0);
        self.change(
            &format!("setting an MTU of {mtu} on"),
            request.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes()),
        )
    }

    /// Changes the number of packets that the kernel queues for the other end.
    ///
    /// # Errors
    /// The kernel refuses: no permission, or the interface was removed.
    pub fn set_queue_len(&self, packets: u32) -> Result<(), Error> {
        let request = Request::link(libc::RTM_NEWLINK, ACK, self.index(), 0, 0);
        self.change(
            "setting the queue length of",
            request.attribute(libc::IFLA_TXQLEN, &packets.to_ne_bytes()),
        )
    }

    /// Changes the hardware address.
    ///
    /// # Errors
    /// The kernel refuses: in use, not a unicast address, no permission, or the interface was removed.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        let request = Request::link(libc::RTM_NEWLINK, ACK, self.index(), 0, 0);
        self.change("setting the address of", request.attribute(libc::IFLA_ADDRESS, &mac))
    }

    /// Brings the interface up or down.
    ///
    /// # Errors
    /// The kernel refuses: no permission, or the interface was removed.
    pub fn set_up(&self, up: bool) -> Result<(), Error> {
        let bit = libc::IFF_UP as u32;
        let flags = if up { bit } else { 0 };
        let action = if up { "bringing up" } else { "taking down" };
        self.change(action, Request::link(libc::RTM_NEWLINK, ACK, self.index(), flags, bit))
    }

    /// Removes the interface, which must be virtual.
    ///
    /// # Errors
    /// The kernel refuses: no permission, hardware, or the interface was removed.
    pub fn remove(&self) -> Result<(), Error> {
        self.change("removing", Request::link(libc::RTM_DELLINK, ACK, self.index(), 0, 0))
    }

    fn change(&self, action: &str, request: Request) -> Result<(), Error> {
        self.ask(request).map(drop).map_err(|error| self.refused(action, error))
    }

    /// Sends any other request, in the interface's namespace.
    pub fn ask(&self, request: Request) -> io::Result<Vec<Message>> {
        self.netlink().ask(request)
    }

    /// Returns an error about this interface; `action` is followed by its name.
    pub fn refused(&self, action: &str, error: io::Error) -> Error {
        refusal(&self.port, &format!("{action} interface {}", self.name), error)
    }

    fn netlink(&self) -> MutexGuard<'_, Netlink> {
        // Unread answers of an interrupted request carry an old sequence number and are skipped.
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that `name` can be the name of an interface.
///
/// # Errors
/// The name is empty, too long, or has characters that the kernel rejects.
pub fn check_name(port: &str, name: &str) -> Result<(), Error> {
    let problem = if name.is_empty() {
        "the name of the interface is missing".to_owned()
    } else if name.len() > NAME_LEN {
        format!("'{name}' has {} bytes, the name of an interface at most {NAME_LEN}", name.len())
    } else if name == "."
        || name == ".."
        || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
    {
        format!("'{name}' cannot be the name of an interface")
    } else {
        return Ok(());
    };
    let remedy = format!("give one of at most {NAME_LEN} bytes without '/', ':' and blanks");
    Err(Error::Argument { device: port.into(), problem, remedy })
}

/// Returns the interface of that name, if there is one.
fn by_name(netlink: &mut Netlink, name: &str) -> io::Result<Option<InterfaceInfo>> {
    let request =
        Request::link(libc::RTM_GETLINK, 0, 0, 0, 0).attribute(libc::IFLA_IFNAME, &zero_ended(name));
    match netlink.ask(request) {
        Ok(answer) => Ok(answer.first().and_then(InterfaceInfo::read)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn zero_ended(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn missing(port: &str, namespace: &Namespace, name: &str, netlink: &mut Netlink) -> Error {
    let all = netlink.ask(Request::link(libc::RTM_GETLINK, DUMP, 0, 0, 0)).unwrap_or_default();
    let mut names: Vec<String> = all.iter().filter_map(InterfaceInfo::read).map(|info| info.name).collect();
    names.sort_by_cached_key(|known| (distance(name, known), known.clone()));
    let hint = match names.first() {
        Some(near) if distance(name, near) <= 2 => format!("did you mean '{near}'? "),
        _ => String::new(),
    };
    let more = if names.len() > LISTED { ", …" } else { "" };
    names.truncate(LISTED);
    let at = if namespace.is_own() { String::new() } else { format!(" in the namespace {namespace}") };
    Error::Argument {
        device: port.into(),
        problem: format!("there is no interface '{name}'{at}"),
        remedy: format!("{hint}there are: {}{more}", names.join(", ")),
    }
}
