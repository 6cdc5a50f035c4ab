//! Decisions: where a frame goes by its header, and whether it passes.

use super::Engine;
use crate::api::Cause;
use crate::fdb::{Learned, LearningPort, Station, Table};
use crate::frame::Head;
use crate::guard;
use crate::port::WorkerPort;
use crate::rules::{Retag, Rules};

/// The destination of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    To(u16),
    All,
    Lost(Cause),
}

/// The decision for all frames with the same header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    pub(super) vlan: u16,
    pub(super) tagged: bool,
    /// The change of the tag, if the frame goes to one port.
    pub(crate) retag: Retag,
}

/// The parts of a frame that are checked besides its header.
pub(crate) struct Seen<'a> {
    /// Its first bytes.
    pub(crate) front: &'a [u8],
    /// `front` does not hold the whole frame; more of it can be read.
    pub(crate) more: bool,
    /// The length of the whole frame, in bytes.
    pub(crate) len: usize,
    /// The frame is segmented on its way: its length is that of all its segments, which its sender chose.
    pub(crate) cut: bool,
}

impl Engine {
    /// Checks whether a frame passes, or why it is dropped. `None` if more of the frame has to be read; nothing is counted then.
    #[inline]
    pub(crate) fn judge(
        &mut self,
        port: u16,
        decision: Decision,
        seen: &Seen<'_>,
    ) -> Option<Result<(), Cause>> {
        let now = self.now;
        let Some(worker_port) = self.worker_port_mut(port) else { return Some(Err(Cause::Filtered)) };
        let rules = &worker_port.rules;
        if let Verdict::Lost(cause) = decision.verdict {
            return Some(Err(cause));
        }
        if seen.len > rules.longest && !seen.cut {
            return Some(Err(Cause::RxOversize));
        }
        if rules.guards_ip() && !guard::allows(rules, seen.front).or((!seen.more).then_some(false))? {
            return Some(Err(Cause::SourceIp));
        }
        if !worker_port.policing.as_mut().is_none_or(|tokens| tokens.take(seen.len as u64, now)) {
            return Some(Err(Cause::Rate));
        }
        if decision.verdict == Verdict::All
            && let Err(cause) = worker_port.floods.take(seen.front, now)
        {
            return Some(Err(cause));
        }
        Some(Ok(()))
    }

    /// The decision for frames with this header; learns the station that sent it.
    pub(crate) fn decide(&mut self, port: u16, head: Head) -> Decision {
        let lost =
            |cause| Decision { verdict: Verdict::Lost(cause), vlan: 0, tagged: false, retag: Retag::Keep };
        let Self { table, worker_ports, now, .. } = self;
        let Some(worker_port) = worker_ports.get_mut(usize::from(port)).and_then(Option::as_mut) else {
            return lost(Cause::Filtered);
        };
        let Some(home) = worker_port.relations.station.home(port) else { return lost(Cause::Filtered) };
        let vlan = match admit(&worker_port.rules, head) {
            Ok(vlan) => vlan,
            Err(cause) => return lost(cause),
        };
        let learned = learn(table, worker_port, home, Station::of(head.source(), vlan), *now);
        match learned {
            Learned::Taken => return lost(Cause::SourceTaken),
            Learned::Full => return lost(Cause::AddressLimit),
            _ => {}
        }
        let tagged = head.tag().is_some();
        let isolated = worker_port.rules.isolated;
        let place = if head.is_group() { None } else { table.find(Station::of(head.destination(), vlan)) };
        let Some(place) = place else {
            if learned == Learned::Held {
                // A frame that circulates in a loop ends here.
                return lost(Cause::SourceMoves);
            }
            return Decision { verdict: Verdict::All, vlan, tagged, retag: Retag::Keep };
        };
        let to = self
            .worker_port(place.port)
            .filter(|to| place.port != home && !to.relations.output && !(isolated && to.rules.isolated));
        match to.and_then(|to| to.rules.membership.leave(vlan, tagged)) {
            Some(retag) => Decision { verdict: Verdict::To(place.port), vlan, tagged, retag },
            None => lost(Cause::Filtered),
        }
    }
}

/// The header that all frames share, and their greatest length, if the header alone decides at a port with these rules.
#[inline(always)]
pub(crate) fn one_head(
    rules: &Rules,
    mut frames: impl Iterator<Item = (Option<Head>, usize)>,
) -> Option<(Head, usize)> {
    if !rules.header_decides() {
        return None;
    }
    let (head, mut longest) = frames.next()?;
    let head = head?;
    for (other, len) in frames {
        if other != Some(head) {
            return None;
        }
        longest = longest.max(len);
    }
    (longest <= rules.longest).then_some((head, longest))
}

/// The VLAN of a frame received at a port with these rules, or why the frame is dropped.
#[inline(always)]
pub(crate) fn admit(rules: &Rules, head: Head) -> Result<u16, Cause> {
    if !head.has_station() {
        return Err(Cause::Malformed);
    }
    let Some(vlan) = rules.membership.enter(head.tag()) else { return Err(Cause::Vlan) };
    if rules.mac.is_some_and(|own| own != head.source()) {
        return Err(Cause::SourceMac);
    }
    if head.is_for_the_link() { Err(Cause::Reserved) } else { Ok(vlan) }
}

/// Returns whether the destination of a flooded frame can be behind a port: only its `mac`, if it has one.
pub(crate) fn may_have(rules: &Rules, head: Head) -> bool {
    head.is_group() || rules.mac.is_none_or(|own| own == head.destination())
}

/// Learns a station, within the port's rate of new addresses: each takes the table's lock and a slot from all other ports.
#[inline]
fn learn(table: &Table, worker_port: &mut WorkerPort, port: u16, station: Station, now: u64) -> Learned {
    match table.refresh(station, port) {
        Some(learned) => learned,
        None => learn_new(table, worker_port, port, station, now),
    }
}

#[cold]
fn learn_new(table: &Table, worker_port: &mut WorkerPort, port: u16, station: Station, now: u64) -> Learned {
    let limit = worker_port.rules.max_macs;
    // A port at its limit costs the others nothing.
    if table.count(port) >= limit {
        return Learned::Full;
    }
    if !worker_port.learning.take(1, now) {
        return Learned::Busy;
    }
    table.learn(station, LearningPort { port, limit, fixed: worker_port.rules.mac.is_some() })
}
