//! The kernel interface beside a port. Normally no packet passes it, but tools, Multus and the container see
//! the port's name, addresses and MTU. With `"ports"` it is a tap whose other end belongs to the switch, for
//! the container's sockets.

use std::os::fd::OwnedFd;
use std::path::Path;

use linecard_netdev::{Interface, Namespace, Placeholder};

use crate::address::{Cidr, Mac};
use crate::environment::Attachment;
use crate::error::{Code, Error};
use crate::kernel::Route;
use crate::netns::Netns;
use crate::state::Record;

/// The properties that an interface shows.
pub(crate) fn shown(mac: Mac, mtu: u16, ips: &[Cidr]) -> Placeholder {
    let addresses = ips.iter().map(|cidr| (cidr.address, cidr.prefix)).collect();
    Placeholder { mac: mac.0, mtu: mtu.into(), addresses }
}

/// Creates an interface that no packet passes, in the namespace at `path`.
pub(crate) fn make(path: &Path, attachment: &Attachment, shown: &Placeholder) -> Result<(), Error> {
    let name = attachment.ifname();
    let namespace = Namespace::open(name, &path.to_string_lossy());
    let made = namespace.and_then(|namespace| Interface::make_placeholder(name, &namespace, name, shown));
    made.map(drop).map_err(|error| {
        failed(&error, "see what it says, or add \"link\": false to the network configuration")
    })
}

/// Creates a tap with these routes in the namespace at `path`; returns a queue of it for the switch.
pub(crate) fn make_tap(
    path: &Path,
    attachment: &Attachment,
    shown: &Placeholder,
    routes: &[Route],
) -> Result<OwnedFd, Error> {
    let name = attachment.ifname();
    let namespace = Namespace::open(name, &path.to_string_lossy());
    let made = namespace.and_then(|namespace| Interface::make_passed_tap(name, &namespace, name, shown));
    let routed = made.and_then(|(interface, queue)| {
        let mut each = routes.iter();
        each.try_for_each(|route| interface.add_route((route.to.address, route.to.prefix), route.gateway))?;
        Ok(queue)
    });
    routed.map_err(|error| {
        failed(&error, "see what it says, or leave 'ports' out, without which no tap is made")
    })
}

fn failed(error: &dyn std::fmt::Display, remedy: &str) -> Error {
    Error::new(Code::Namespace, error.to_string(), remedy)
}

/// Removes the interface, if its namespace exists and the interface is the one that was created.
pub(crate) fn remove(record: &Record) {
    let Some(path) = &record.link else { return };
    // The path may lead to another container by now.
    if !Netns::open(path).is_ok_and(|netns| Some(netns.identity) == record.netns) {
        return;
    }
    let name = record.attachment.ifname();
    let found = Namespace::open(name, &path.to_string_lossy())
        .and_then(|namespace| Interface::find(name, &namespace, name));
    let Ok(interface) = found else { return };
    let kind = interface.info().map(|info| info.driver).unwrap_or_default();
    let made: &[&str] = if record.ports.is_some() { &["tun"] } else { &["dummy", "bridge"] };
    if made.contains(&kind.as_str()) {
        // On failure: a namespace that is about to end takes the interface with it.
        let _ = interface.remove();
    }
}
