//! Sockets and interfaces of containers, made anew before `--sandbox` takes the right to enter their namespaces.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use linecard::netdev::{Namespace, tap, tun::Queues};
use linecard_switch::api::{PortKind, PortSpec};

/// What was opened for ports of an earlier run, or why it could not be; by their keys.
#[derive(Debug, Default)]
pub(super) struct Early(BTreeMap<String, Result<OwnedFd, String>>);

impl Early {
    /// Opens what these ports need from other namespaces. Nothing of it is in use while the switch that had it does not run.
    pub(super) fn open(ports: &[PortSpec]) -> Self {
        Self(ports.iter().filter_map(|spec| Some((spec.key.clone(), open(&spec.kind)?))).collect())
    }

    /// What was opened for a port; `None` where nothing was to be.
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
