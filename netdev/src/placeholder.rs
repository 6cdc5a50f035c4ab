//! Interfaces that carry a name and addresses but no packets, and the IP addresses of interfaces.

use std::net::IpAddr;

use super::interface::{check_name, zero_ended};
use super::netlink::{ACK, DUMP, Message, Netlink, Request, u32_at};
use super::{Interface, Namespace, refusal};
use linecard_pmd::error::Error;

/// The bytes of an `ifaddrmsg` (`linux/if_addr.h`): family, prefix, flags, scope, index.
const IFADDR: usize = 8;
/// `IFA_F_NODAD`: no other station can have the address, and none could be asked.
const NODAD: u8 = 0x02;

/// The properties of a placeholder, or of a tap interface whose queue is passed on.
///
/// ```
/// use linecard_netdev::Placeholder;
/// let shown = Placeholder { mac: [2, 0, 0, 0, 0, 1], mtu: 1500, addresses: vec![("10.0.0.1".parse()?, 24)] };
/// assert_eq!(shown.addresses.len(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placeholder {
    /// The hardware address.
    pub mac: [u8; 6],
    /// The largest layer-3 packet, in bytes.
    pub mtu: u32,
    /// The IP addresses and their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// Creates an interface that represents a port which the kernel does not see, so that tools show its
    /// addresses. It is a `dummy` interface or, if the kernel has none, a `bridge` without ports. No packet
    /// passes it.
    ///
    /// # Errors
    /// The name is in use or invalid, or the kernel refuses. Nothing is left behind then.
    pub fn make_placeholder(
        port: &str,
        namespace: &Namespace,
        name: &str,
        shown: &Placeholder,
    ) -> Result<Self, Error> {
        check_name(port, name)?;
        let refused = |error| refusal(port, &format!("making interface {name}"), error);
        let mut netlink = namespace.enter(port, Netlink::open)?.map_err(refused)?;
        let made = netlink.ask(new_link(name, "dummy", shown)).or_else(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => netlink.ask(new_link(name, "bridge", shown)),
            _ => Err(error),
        });
        made.map_err(refused)?;
        let interface = Self::find(port, namespace, name)?;
        let ready = interface.show(shown);
        if let Err(error) = ready {
            // It was created just now; if it is already gone, that is fine.
            let _ = interface.remove();
            return Err(error);
        }
        Ok(interface)
    }

    /// Sets its addresses, and brings it up.
    pub(crate) fn show(&self, shown: &Placeholder) -> Result<(), Error> {
        let mut addresses = shown.addresses.iter();
        addresses
            .try_for_each(|(address, prefix)| {
                self.ask(new_address(self.index(), *address, *prefix)).map(drop)
            })
            .map_err(|error| self.refused("giving an IP address to", error))
            .and_then(|()| self.set_up(true))
    }

    /// Returns its IP addresses and their prefix lengths.
    ///
    /// ```
    /// use linecard_netdev::{Interface, Namespace};
    /// let lo = Interface::find("port", &Namespace::default(), "lo")?;
    /// assert!(lo.addresses()?.iter().all(|(address, _)| address.is_loopback()));
    /// # Ok::<(), linecard_pmd::Error>(())
    /// ```
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn addresses(&self) -> Result<Vec<(IpAddr, u8)>, Error> {
        let answer = self.ask(Request::new(libc::RTM_GETADDR, DUMP, &[0; IFADDR]));
        let answer = answer.map_err(|error| self.refused("reading the addresses of", error))?;
        Ok(answer.iter().filter_map(|message| address_of(message, self.index())).collect())
    }
}

fn new_link(name: &str, kind: &str, shown: &Placeholder) -> Request {
    let flags = ACK | libc::NLM_F_CREATE as u16 | libc::NLM_F_EXCL as u16;
    Request::link(libc::RTM_NEWLINK, flags, 0, 0, 0)
        .attribute(libc::IFLA_IFNAME, &zero_ended(name))
        .attribute(libc::IFLA_ADDRESS, &shown.mac)
        .attribute(libc::IFLA_MTU, &shown.mtu.to_ne_bytes())
        .nested(libc::IFLA_LINKINFO, |info| {
            info.nest(libc::IFLA_INFO_KIND, |value| value.bytes(kind.as_bytes()))
        })
}

fn new_address(index: u32, address: IpAddr, prefix: u8) -> Request {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut body = [0; IFADDR];
    body[..3].copy_from_slice(&[family as u8, prefix, NODAD]);
    body[4..].copy_from_slice(&index.to_ne_bytes());
    let flags = ACK | libc::NLM_F_CREATE as u16 | libc::NLM_F_EXCL as u16;
    let request = Request::new(libc::RTM_NEWADDR, flags, &body);
    request.attribute(libc::IFA_LOCAL, &bytes).attribute(libc::IFA_ADDRESS, &bytes)
}

/// Returns the address in a message, if it belongs to the interface `index`.
fn address_of(message: &Message, index: u32) -> Option<(IpAddr, u8)> {
    let body = message.body(IFADDR)?;
    if u32_at(body, 4)? != index {
        return None;
    }
    let attribute =
        |wanted: u16| message.attributes(IFADDR).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // On point-to-point links, IFA_ADDRESS is the address of the other end.
    let bytes = attribute(libc::IFA_LOCAL).or_else(|| attribute(libc::IFA_ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(*bytes.first_chunk::<4>()?),
        16 => IpAddr::from(*bytes.first_chunk::<16>()?),
        _ => return None,
    };
    Some((address, body[1]))
}
