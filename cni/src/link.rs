//! The kernel interface beside a port. No packet passes it, but tools, Multus and the container itself see the port's name,
//! addresses and MTU; or it is a tap whose other end is the switch's, for the container's sockets (`"ports"`).

use std::os::fd::OwnedFd;
use std::path::Path;

use linecard_netdev::{Interface, Namespace, Placeholder};

use crate::address::{Cidr, Mac};
use crate::environment::Attachment;
use crate::error::{Code, Error};
use crate::kernel::Route;
use crate::netns::Netns;
use crate::state::Record;

/// What an interface shows.
pub(crate) fn shown(mac: Mac, mtu: u16, ips: &[Cidr]) -> Placeholder {
    let addresses = ips.iter().map(|cidr| (cidr.address, cidr.prefix)).collect();
    Placeholder { mac: mac.0, mtu: mtu.into(), addresses }
}

/// Makes one that no packet passes, in the namespace at `path`.
pub(crate) fn make(path: &Path, attachment: &Attachment, shown: &Placeholder) -> Result<(), Error> {
    let name = attachment.ifname();
    let namespace = Namespace::open(name, &path.to_string_lossy());
    let made = namespace.and_then(|namespace| Interface::make_placeholder(name, &namespace, name, shown));
    made.map(drop).map_err(|error| {
        failed(&error, "see what it says, or add \"link\": false to the network configuration")
    })
}

/// Makes a tap with these routes in the namespace at `path`: a queue of it, for the switch.
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

/// Removes it, if its namespace is there and the interface is the one that was made.
pub(crate) fn remove(record: &Record) {
    let Some(path) = &record.link else { return };
    // What has the path by now may be another container's.
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
        // A namespace that is about to go takes it along.
        let _ = interface.remove();
    }
}
