//! One interface, found by name and followed by index.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::facts::Facts;
use super::netlink::{ACK, DUMP, Message, Netlink, Request};
use super::{NAME_LEN, Namespace, refusal};
use crate::args::distance;
use crate::control::Link;
use crate::error::Error;

/// Most names that a message lists.
const LISTED: usize = 8;

/// An interface of some namespace, on behalf of a port; usable from any thread. A later renaming does not matter: the
/// index names it.
///
/// ```
/// use linecard_pmd::netdev::{Interface, Namespace};
/// let lo = Interface::find("net_af_xdp0", &Namespace::default(), "lo")?;
/// assert_eq!(lo.index(), lo.facts()?.index);
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Debug)]
pub struct Interface {
    port: String,
    name: String,
    index: u32,
    netlink: Mutex<Netlink>,
    /// That it is gone was told.
    told: AtomicBool,
}

impl Interface {
    /// The interface `name` of `namespace`, for the port `port`.
    ///
    /// # Errors
    /// There is none (with the names that are near), or the kernel does not let us ask.
    pub fn find(port: &str, namespace: &Namespace, name: &str) -> Result<Self, Error> {
        check_name(port, name)?;
        let mut netlink = namespace
            .enter(port, Netlink::open)?
            .map_err(|error| refusal(port, "opening a route netlink socket", error))?;
        let request =
            Request::link(libc::RTM_GETLINK, 0, 0, 0, 0).attribute(libc::IFLA_IFNAME, &zero_ended(name));
        let facts = match netlink.ask(request) {
            Ok(answer) => answer.first().and_then(Facts::read),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(error) => return Err(refusal(port, &format!("looking for interface {name}"), error)),
        };
        match facts {
            Some(facts) => Ok(Self {
                port: port.into(),
                name: name.into(),
                index: facts.index,
                netlink: Mutex::new(netlink),
                told: AtomicBool::new(false),
            }),
            None => Err(missing(port, namespace, name, &mut netlink)),
        }
    }

    /// As [`find`](Self::find), for drivers that need Ethernet frames.
    ///
    /// ```
    /// use linecard_pmd::netdev::{Interface, Namespace};
    /// let problem = Interface::find_ethernet("port", &Namespace::default(), "lo").expect_err("no Ethernet");
    /// assert!(problem.to_string().contains("'lo' is not an Ethernet interface"));
    /// ```
    ///
    /// # Errors
    /// As [`find`](Self::find), and an interface of another kind.
    pub fn find_ethernet(port: &str, namespace: &Namespace, name: &str) -> Result<Self, Error> {
        let interface = Self::find(port, namespace, name)?;
        let facts = interface.facts()?;
        if facts.is_ethernet() {
            return Ok(interface);
        }
        Err(Error::Argument {
            device: port.into(),
            problem: format!("'{name}' is not an Ethernet interface (its link type is {})", facts.kind),
            remedy: "choose one that 'ip link' shows as link/ether".into(),
        })
    }

    /// The name it was found by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index, which stays when it is renamed.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What the kernel says about it now.
    ///
    /// # Errors
    /// It is gone.
    pub fn facts(&self) -> Result<Facts, Error> {
        self.read().map_err(|error| self.refused("reading", error))
    }

    fn read(&self) -> io::Result<Facts> {
        let answer = self.netlink().ask(Request::link(libc::RTM_GETLINK, 0, self.index, 0, 0))?;
        answer.first().and_then(Facts::read).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// The link state, for [`PortControl::link`](crate::PortControl::link); down when the interface is gone, which is
    /// told once.
    #[must_use]
    pub fn link(&self) -> Link {
        let link = self.link_only();
        if !link.up && !self.exists() && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: the interface {} was removed, or moved to another namespace; stop the port and open it anew",
                self.port,
                self.name
            );
        }
        link
    }

    /// The link state, for drivers that tell by themselves when the interface is gone.
    pub(crate) fn link_only(&self) -> Link {
        if self.read().is_ok_and(|facts| facts.is_running()) { Link::UP } else { Link::DOWN }
    }

    /// Whether it is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.read().is_ok()
    }

    /// Changes the MTU.
    ///
    /// # Errors
    /// The kernel refuses: too large or small for the interface, no permission, gone.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        let request = Request::link(libc::RTM_NEWLINK, ACK, self.index, 0, 0);
        self.change(
            &format!("setting an MTU of {mtu} on"),
            request.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes()),
        )
    }

    /// Changes how many packets the kernel queues for the other end.
    ///
    /// # Errors
    /// The kernel refuses: no permission, gone.
    pub fn set_queue_len(&self, packets: u32) -> Result<(), Error> {
        let request = Request::link(libc::RTM_NEWLINK, ACK, self.index, 0, 0);
        self.change(
            "setting the queue length of",
            request.attribute(libc::IFLA_TXQLEN, &packets.to_ne_bytes()),
        )
    }

    /// Changes the hardware address.
    ///
    /// # Errors
    /// The kernel refuses: in use, not a unicast address, no permission, gone.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        let request = Request::link(libc::RTM_NEWLINK, ACK, self.index, 0, 0);
        self.change("setting the address of", request.attribute(libc::IFLA_ADDRESS, &mac))
    }

    /// Brings it up or down.
    ///
    /// # Errors
    /// The kernel refuses: no permission, gone.
    pub fn set_up(&self, up: bool) -> Result<(), Error> {
        let bit = libc::IFF_UP as u32;
        let flags = if up { bit } else { 0 };
        let action = if up { "bringing up" } else { "taking down" };
        self.change(action, Request::link(libc::RTM_NEWLINK, ACK, self.index, flags, bit))
    }

    /// Removes it; only interfaces that were made in software can be.
    ///
    /// # Errors
    /// The kernel refuses: no permission, hardware, gone.
    pub fn remove(&self) -> Result<(), Error> {
        self.change("removing", Request::link(libc::RTM_DELLINK, ACK, self.index, 0, 0))
    }

    fn change(&self, action: &str, request: Request) -> Result<(), Error> {
        self.ask(request).map(drop).map_err(|error| self.refused(action, error))
    }

    /// Asks whatever else, in the interface's namespace.
    pub(crate) fn ask(&self, request: Request) -> io::Result<Vec<Message>> {
        self.netlink().ask(request)
    }

    /// An error about this interface: `action` is followed by its name.
    pub(crate) fn refused(&self, action: &str, error: io::Error) -> Error {
        refusal(&self.port, &format!("{action} interface {}", self.name), error)
    }

    fn netlink(&self) -> MutexGuard<'_, Netlink> {
        // Whatever an interrupted question left unread carries an old sequence number and is passed over.
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses what cannot be the name of an interface.
///
/// # Errors
/// Empty, too long, or with characters the kernel does not take.
pub(crate) fn check_name(port: &str, name: &str) -> Result<(), Error> {
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

fn zero_ended(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn missing(port: &str, namespace: &Namespace, name: &str, netlink: &mut Netlink) -> Error {
    let all = netlink.ask(Request::link(libc::RTM_GETLINK, DUMP, 0, 0, 0)).unwrap_or_default();
    let mut names: Vec<String> = all.iter().filter_map(Facts::read).map(|facts| facts.name).collect();
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
