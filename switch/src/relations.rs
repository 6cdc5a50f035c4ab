//! What a port has to do with others: copies of its frames, a station that it shares. Told to the workers whenever ports come or go.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::Switch;
use crate::api::{PortSpec, Span};
use crate::share::Ports;
use crate::span::Sessions;
use crate::switch::Entry;
use crate::worker::Command;

/// Whose station a port's frames are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Station {
    /// The port's own.
    #[default]
    Own,
    /// That of the port of this number, with which it shares an address.
    Of(u16),
    /// That of a port which is not there: nothing passes.
    Absent,
}

impl Station {
    /// Where the station of `port` is looked for; `None` when that is nowhere.
    #[inline]
    pub(crate) fn home(self, port: u16) -> Option<u16> {
        match self {
            Self::Own => Some(port),
            Self::Of(kernel) => Some(kernel),
            Self::Absent => None,
        }
    }
}

/// A port's; others by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relations {
    /// What comes from it goes there, too.
    pub(crate) ingress: Box<[u16]>,
    /// What goes to it goes there, too.
    pub(crate) egress: Box<[u16]>,
    /// It gets copies only.
    pub(crate) output: bool,
    /// It shares another port's station.
    pub(crate) station: Station,
    /// Ports that share its station, and what of that is theirs.
    pub(crate) sharing: Box<[(u16, Ports)]>,
}

impl Relations {
    /// Something is to be done with frames that come from the port, before anything is decided.
    #[inline]
    pub(crate) fn takes_received(&self) -> bool {
        self.output || !self.ingress.is_empty()
    }

    /// Each frame to the port has to be looked at.
    #[inline]
    pub(crate) fn takes_sent(&self) -> bool {
        !self.egress.is_empty() || !self.sharing.is_empty()
    }

    /// Frames for all, and those for unknown stations, are not for it.
    #[inline]
    pub(crate) fn is_aside(&self) -> bool {
        self.output || self.station != Station::Own
    }

    /// The port that a frame to this one is for, by its first bytes.
    #[inline]
    pub(crate) fn sharer(&self, front: &[u8]) -> Option<u16> {
        self.sharing.iter().find(|(_, ports)| ports.have(front)).map(|(port, _)| *port)
    }
}

impl Switch {
    /// Tells the workers what ports have to do with each other, where that changed. To be called when ports have come or gone.
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

/// Whether `fast` shares the station of `kernel`: both are told of the same one.
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

/// Ports that share a station, by the key of the port that they name.
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
        // It was checked when the port was added.
        Some((entry.id, Ports::of(asked?).ok()?))
    };
    sharers.into_iter().flatten().filter_map(of).collect()
}
