//! Tap interfaces whose queue is passed to another process, and routes through an interface.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use linecard_pmd::error::Error;

use super::netlink::{ACK, Request};
use super::tun::{self, Queues};
use super::{Interface, Namespace, Placeholder, check_name, refusal, tap};

/// The bytes of an `rtmsg` (`linux/rtnetlink.h`).
const RTMSG: usize = 12;

impl Interface {
    /// Creates a tap interface with these addresses, sets it up, and returns it with one queue. The queue is
    /// to be passed to another process, which needs no permission to use it. The interface can have more
    /// queues, and outlives them (`TUNSETPERSIST`) until it is [removed](Self::remove) or its namespace ends.
    /// While it has no queue, its carrier is off.
    ///
    /// # Errors
    /// The name is in use or invalid, there is no tun device, or the kernel refuses. Nothing is left behind
    /// then.
    pub fn make_passed_tap(
        port: &str,
        namespace: &Namespace,
        name: &str,
        shown: &Placeholder,
    ) -> Result<(Self, OwnedFd), Error> {
        check_name(port, name)?;
        let queue = tap::descriptor(port, namespace)?;
        tun::make(queue.as_fd(), name, Queues::Many)
            .map_err(|error| refusal(port, &format!("making the interface {name}"), error))?;
        // Until it is persistent, the interface is removed with its queue.
        let interface = Self::find(port, namespace, name)?;
        interface.set_mac(shown.mac)?;
        interface.set_mtu(shown.mtu)?;
        interface.show(shown)?;
        tun::persist(queue.as_fd())
            .map_err(|error| refusal(port, &format!("making {name} persistent"), error))?;
        Ok((interface, queue))
    }

    /// Adds a route to the network `to`, with a prefix of `prefix` bits, through this interface: by
    /// `gateway`, or directly. An existing route stays.
    ///
    /// # Errors
    /// The kernel refuses: the gateway is not reachable through this interface, or is of another address
    /// family.
    pub fn add_route(&self, (to, prefix): (IpAddr, u8), gateway: Option<IpAddr>) -> Result<(), Error> {
        match self.ask(new_route(self.index(), (to, prefix), gateway)) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
                Err(self.refused(&format!("setting a route to {to}/{prefix} through"), error))
            }
            _ => Ok(()),
        }
    }
}

fn new_route(index: u32, (to, prefix): (IpAddr, u8), gateway: Option<IpAddr>) -> Request {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // Without a gateway, the destinations are on the link.
    let scope = if gateway.is_none() && to.is_ipv4() { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
    let mut body = [0; RTMSG];
    body[..2].copy_from_slice(&[family as u8, prefix]);
    body[4..8].copy_from_slice(&[libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
    let flags = ACK | libc::NLM_F_CREATE as u16;
    let request = Request::new(libc::RTM_NEWROUTE, flags, &body)
        .attribute(libc::RTA_DST, &octets(to))
        .attribute(libc::RTA_OIF, &index.to_ne_bytes());
    match gateway {
        Some(gateway) => request.attribute(libc::RTA_GATEWAY, &octets(gateway)),
        None => request,
    }
}
