//! The relations of a port to others: mirroring and a shared station. Sent to the workers whenever ports are
//! added or removed.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::Switch;
use crate::api::{PortSpec, Span};
use crate::share::Ports;
use crate::span::Sessions;
use crate::switch::Entry;
use crate::worker::Command;

/// The owner of the station that sends through a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Station {
    /// The port itself.
    #[default]
    Own,
    /// The port with this number, with which it shares an address.
    Of(u16),
    /// A port that does not exist: nothing passes.
    Absent,
}

impl Station {
    /// The port behind which the table has the station of `port`; `None` if there is none.
    #[inline]
    pub(crate) fn home(self, port: u16) -> Option<u16> {
        match self {
            Self::Own => Some(port),
            Self::Of(kernel) => Some(kernel),
            Self::Absent => None,
        }
    }
}

/// The relations of a port; other ports are given by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relations {
    /// The ports that receive copies of frames received here.
    pub(crate) ingress: Box<[u16]>,
    /// The ports that receive copies of frames sent here.
    pub(crate) egress: Box<[u16]>,
    /// The port receives only copies.
    pub(crate) output: bool,
    /// The owner of its station.
    pub(crate) station: Station,
    /// The ports that share its station, and the TCP and UDP ports that are theirs.
    pub(crate) sharing: Box<[(u16, Ports)]>,
}

impl Relations {
    /// Returns whether received frames need more work before they are decided on.
    #[inline]
    pub(crate) fn takes_received(&self) -> bool {
        self.output || !self.ingress.is_empty()
    }

    /// Returns whether each frame sent to the port has to be checked.
    #[inline]
    pub(crate) fn takes_sent(&self) -> bool {
        !self.egress.is_empty() || !self.sharing.is_empty()
    }

    /// Returns whether the port is exempt from flooding.
    #[inline]
    pub(crate) fn is_aside(&self) -> bool {
        self.output || self.station != Station::Own
    }

    /// The sharing port for which a frame to this port is meant, by the frame's first bytes.
    #[inline]
    pub(crate) fn sharer(&self, front: &[u8]) -> Option<u16> {
        self.sharing.iter().find(|(_, ports)| ports.have(front)).map(|(port, _)| *port)
    }
}

impl Switch {
    /// Sends changed relations to the workers. To be called when ports have been added or removed.
    pub(crate) fn relate(&self, ports: &BTreeMap<String, Entry>, sessions: &Sessions) {
        let is_plain = sessions.is_empty() && ports.values().all(|entry| entry.spec.shares.is_none());
        let number = |key: &String| ports.get(key).filter(|entry| entry.open.is_some()).map(|entry| entry.id);
        let sharers = if is_plain { BTreeMap::new() } else { by_kernel(ports) };
        for entry in ports.values() {
            let Some(open) = &entry.open else { continue };
            let mut told = open.relations.lock().unwrap_or_else(PoisonError::into_inner);
            if is_plain && *told == Relations::default() {
                continue;
            }
            let key = &entry.spec.key;
            let outputs = |which: fn(&Span) -> &Vec<String>| -> Box<[u16]> {
                let of = sessions.values().filter(|session| which(&session.span).contains(key));
                of.filter_map(|session| number(&session.span.to)).collect()
            };
            let relations = Relations {
                ingress: outputs(|span| &span.ingress),
                egress: outputs(|span| &span.egress),
                output: sessions.contains_key(key),
                station: station(&entry.spec, ports),
                sharing: sharing(entry, sharers.get(key.as_str())),
            };
            if *told != relations {
                for remote in &self.remotes {
                    remote.tell(Command::Relate(entry.id, relations.clone()));
                }
                *told = relations;
            }
        }
    }
}

/// Returns whether `fast` shares the station of `kernel`: both have the same `mac` and `vlan`.
fn share(fast: &PortSpec, kernel: &PortSpec) -> bool {
    fast.shares.as_ref().is_some_and(|share| share.with == kernel.key)
        && kernel.shares.is_none()
        && kernel.mac.is_some()
        && (fast.mac, &fast.vlan) == (kernel.mac, &kernel.vlan)
}

fn station(spec: &PortSpec, ports: &BTreeMap<String, Entry>) -> Station {
    let Some(asked) = &spec.shares else { return Station::Own };
    let kernel = ports.get(&asked.with).filter(|entry| entry.open.is_some() && share(spec, &entry.spec));
    kernel.map_or(Station::Absent, |entry| Station::Of(entry.id))
}

/// The sharing ports, by the key of the port whose station they share.
fn by_kernel(ports: &BTreeMap<String, Entry>) -> BTreeMap<&str, Vec<&Entry>> {
    let mut sharers: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in ports.values() {
        if let Some(share) = &entry.spec.shares {
            sharers.entry(&share.with).or_default().push(entry);
        }
    }
    sharers
}

fn sharing(kernel: &Entry, sharers: Option<&Vec<&Entry>>) -> Box<[(u16, Ports)]> {
    let of = |entry: &&Entry| {
        let asked =
            entry.spec.shares.as_ref().filter(|_| entry.open.is_some() && share(&entry.spec, &kernel.spec));
        // The ranges were checked when the port was added.
        Some((entry.id, Ports::of(asked?).ok()?))
    };
    sharers.into_iter().flatten().filter_map(of).collect()
}
