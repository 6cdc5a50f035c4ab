//! Sockets and interfaces of containers, opened before `--sandbox` gives up the right to enter their
//! namespaces.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use linecard::netdev::{Namespace, tap, tun::Queues};
use linecard_switch::api::{PortKind, PortSpec};

/// The descriptors opened for ports of an earlier run, or the errors, by port key.
#[derive(Debug, Default)]
pub(super) struct Early(BTreeMap<String, Result<OwnedFd, String>>);

impl Early {
    /// Opens the objects that these ports need from other namespaces. They are free while the switch that
    /// used them is not running.
    pub(super) fn open(ports: &[PortSpec]) -> Self {
        Self(ports.iter().filter_map(|spec| Some((spec.key.clone(), open(&spec.kind)?))).collect())
    }

    /// Returns what was opened for a port; `None` if nothing was needed.
    pub(super) fn take(&mut self, spec: &PortSpec) -> Option<Result<OwnedFd, String>> {
        self.0.remove(&spec.key)
    }
}

fn open(kind: &PortKind) -> Option<Result<OwnedFd, String>> {
    match kind {
        PortKind::VhostUserFd { origin: Some(origin) } => {
            Some(origin.listen().map_err(|error| error.to_string()))
        }
        PortKind::Tap { name, netns: Some(netns) } => {
            let queue = Namespace::open(name, &netns.display().to_string())
                .and_then(|namespace| tap::descriptor(name, &namespace))
                .and_then(|queue| tap::attach(name, &queue, name, Queues::Many).map(|_| queue));
            Some(queue.map_err(|error| error.to_string()))
        }
        _ => None,
    }
}
