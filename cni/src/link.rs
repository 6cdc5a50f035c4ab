//! The kernel interface beside a port: no packet passes it, but tools, Multus and the container itself see the port's name,
//! addresses and MTU.

use std::path::Path;

use linecard_netdev::{Interface, Namespace, Placeholder};

use crate::address::{Cidr, Mac};
use crate::environment::Attachment;
use crate::error::{Code, Error};
use crate::netns::Netns;
use crate::state::Record;

/// Makes it in the namespace at `path`.
pub(crate) fn make(
    path: &Path,
    attachment: &Attachment,
    mac: Mac,
    mtu: u16,
    ips: &[Cidr],
) -> Result<(), Error> {
    let name = attachment.ifname();
    let shown = Placeholder {
        mac: mac.0,
        mtu: mtu.into(),
        addresses: ips.iter().map(|cidr| (cidr.address, cidr.prefix)).collect(),
    };
    let namespace = Namespace::open(name, &path.to_string_lossy());
    let made = namespace.and_then(|namespace| Interface::make_placeholder(name, &namespace, name, &shown));
    made.map(drop).map_err(|error| {
        let remedy = "see what it says, or add \"link\": false to the network configuration";
        Error::new(Code::Namespace, error.to_string(), remedy)
    })
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
    if matches!(kind.as_str(), "dummy" | "bridge") {
        // A namespace that is about to go takes it along.
        let _ = interface.remove();
    }
}
