//! The path that a frame would take, and why: the decisions of the workers, step by step, with nothing sent
//! and nothing learned.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::Switch;
use crate::api::{Cause, Code, Problem, Trace, TracePort, TraceRequest, TraceVerdict};
use crate::fdb::Station;
use crate::forward::{admit, may_have};
use crate::frame::Head;
use crate::guard;
use crate::neighbours::Neighbours;
use crate::relations::Relations;
use crate::rules::{Retag, Rules};
use crate::switch::{Open, no_port};

/// A port as a trace sees it.
struct Seen {
    key: String,
    rules: Rules,
    up: bool,
    relations: Relations,
}

/// The state of a trace.
struct Tracer<'a> {
    switch: &'a Switch,
    ports: BTreeMap<u16, Seen>,
    from: u16,
    /// The port behind which the table has the station of `from`.
    home: u16,
    /// The source moved too often and is held.
    held: bool,
    frame: &'a [u8],
    trace: Trace,
}

impl Switch {
    /// Returns the path of a frame that came from a port now. Rate limits are ignored: they depend on other
    /// traffic.
    ///
    /// # Errors
    /// There is no such port, or the frame is not a hexadecimal number.
    pub fn trace(&self, request: &TraceRequest) -> Result<Trace, Problem> {
        let frame = bytes(&request.frame)?;
        let entries = self.ports();
        let from = entries.get(&request.port).ok_or_else(|| no_port(&request.port))?.id;
        let mut ports = BTreeMap::new();
        for entry in entries.values() {
            let rules = Rules::of(&entry.spec, self.config.defaults)?;
            let up = entry.open.as_ref().is_some_and(|open| open.control.link().up);
            let told = |open: &Open| open.relations.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let relations = entry.open.as_ref().map(told).unwrap_or_default();
            ports.insert(entry.id, Seen { key: entry.spec.key.clone(), rules, up, relations });
        }
        drop(entries);
        let mut tracer = Tracer {
            switch: self,
            ports,
            from,
            home: from,
            held: false,
            frame: &frame,
            trace: Trace::default(),
        };
        if let Err(cause) = tracer.run() {
            tracer.trace.verdict = TraceVerdict::Drop;
            tracer.trace.cause = Some(cause.name().into());
            tracer.step(format!("dropped as {}: {}", cause.name(), cause.meaning()));
        }
        Ok(tracer.trace)
    }
}

impl Tracer<'_> {
    fn step(&mut self, text: impl Into<String>) {
        self.trace.steps.push(text.into());
    }

    fn key(&self, id: u16) -> &str {
        self.ports.get(&id).map_or("a port that went", |port| &port.key)
    }

    fn run(&mut self) -> Result<(), Cause> {
        let frame = self.frame;
        let Some(head) = Head::of(frame) else {
            self.step(format!("{} bytes: no whole Ethernet header", frame.len()));
            return Err(Cause::Malformed);
        };
        let (from, to) = (Station::of(head.source(), 0).mac(), Station::of(head.destination(), 0).mac());
        let tag = head.tag().map_or("untagged".into(), |tag| format!("tagged with VLAN {tag}"));
        let text =
            format!("received on {}: {} bytes from {from} to {to}, {tag}", self.key(self.from), frame.len());
        self.step(text.to_lowercase());
        let Some(port) = self.ports.get(&self.from) else { return Err(Cause::Filtered) };
        if port.relations.output {
            return Err(Cause::SpanOutput);
        }
        self.home = port.relations.station.home(self.from).ok_or(Cause::Filtered)?;
        let Some(port) = self.ports.get(&self.from) else { return Err(Cause::Filtered) };
        let vlan = admit(&port.rules, head)?;
        self.trace.vlan = Some(vlan);
        self.step(if vlan == 0 { "among ports without VLANs".into() } else { format!("in VLAN {vlan}") });
        self.source(head, vlan)?;
        self.limits()?;
        self.destination(head, vlan)
    }

    /// The outcome of learning the source.
    fn source(&mut self, head: Head, vlan: u16) -> Result<(), Cause> {
        let place = self.switch.table.find(Station::of(head.source(), vlan));
        match place {
            Some(place) if place.port == self.home => self.step("source: known here"),
            Some(place) if place.fixed => {
                let text = format!("source: belongs to {}", self.key(place.port));
                self.step(text);
                return Err(Cause::SourceTaken);
            }
            Some(place) if self.switch.table.is_held(Station::of(head.source(), vlan)) => {
                self.held = true;
                let key = self.key(place.port);
                let text = format!("source: moves between ports too often, and stays behind {key} for now");
                self.step(text);
            }
            other => {
                let known = self.switch.table.count(self.home);
                let most = self.ports.get(&self.from).map_or(0, |port| port.rules.max_macs);
                if known >= most {
                    self.step(format!("source: new, and the port has {known} of {most} addresses"));
                    return Err(Cause::AddressLimit);
                }
                let text = match other {
                    Some(place) => {
                        format!("source: known behind {}, and would move here", self.key(place.port))
                    }
                    None => "source: not known, and would be learned here".into(),
                };
                self.step(text);
            }
        }
        Ok(())
    }

    fn limits(&mut self) -> Result<(), Cause> {
        let Some(port) = self.ports.get(&self.from) else { return Err(Cause::Filtered) };
        if self.frame.len() > port.rules.longest {
            return Err(Cause::RxOversize);
        }
        if port.rules.guards_ip() {
            if guard::allows(&port.rules, self.frame) != Some(true) {
                return Err(Cause::SourceIp);
            }
            self.step("IP source: may be the port's");
        }
        Ok(())
    }

    fn destination(&mut self, head: Head, vlan: u16) -> Result<(), Cause> {
        let tagged = head.tag().is_some();
        let place = if head.is_group() {
            None
        } else {
            self.switch.table.find(Station::of(head.destination(), vlan))
        };
        if let Some(place) = place {
            let how = if place.fixed { "configured" } else { "learned" };
            let text = format!("destination: {how} behind {}", self.key(place.port));
            self.step(text);
            self.trace.verdict = TraceVerdict::Forward;
            let (mut port, mut egress) = self.egress(place.port, vlan, tagged).ok_or(Cause::Filtered)?;
            let sharer = self.ports.get(&place.port).and_then(|port| port.relations.sharer(self.frame));
            if let Some(sharer) = sharer {
                let text = format!("its destination port is one that {} shares", self.key(sharer));
                self.step(text);
                (port, egress) = self.egress(sharer, vlan, tagged).ok_or(Cause::Filtered)?;
            }
            let cause = port.cause.clone();
            self.trace.ports.push(port);
            self.step(egress);
            // A drop at the output port was reported there, and is the outcome for this frame.
            return match cause.and_then(|name| Cause::ALL.iter().find(|cause| cause.name() == name)) {
                Some(cause) => Err(*cause),
                None => Ok(()),
            };
        }
        self.step(if head.is_group() {
            "destination: a group, so to all ports of the VLAN"
        } else {
            "destination: not known, so to all ports of the VLAN"
        });
        if self.held {
            return Err(Cause::SourceMoves);
        }
        if let Some(owner) = self.answered(vlan) {
            self.trace.verdict = TraceVerdict::Answer;
            self.step(format!("a question for the address of {owner}: the switch answers"));
            return Ok(());
        }
        self.trace.verdict = TraceVerdict::Flood;
        let kept_from = self.switch.table.kept_from(Station::of(head.source(), vlan));
        let ids: Vec<u16> = self.ports.keys().copied().filter(|id| Some(*id) != kept_from).collect();
        for id in ids {
            if let Some((port, egress)) = self.egress(id, vlan, tagged).filter(|_| self.hears(id, head)) {
                self.trace.ports.push(port);
                self.step(egress);
            }
        }
        if self.trace.ports.is_empty() { Err(Cause::Filtered) } else { Ok(()) }
    }

    /// The port for which the switch answers.
    fn answered(&self, vlan: u16) -> Option<String> {
        let mut neighbours = Neighbours::default();
        let known = self.ports.iter().filter(|_| self.switch.config.neigh_suppress);
        known.for_each(|(id, port)| neighbours.add(*id, &port.rules));
        let (owner, _) = neighbours.answer(self.from, vlan, self.frame)?;
        self.ports.get(&owner).filter(|port| port.up).map(|port| port.key.clone())
    }

    fn hears(&self, id: u16, head: Head) -> bool {
        self.ports.get(&id).is_some_and(|port| may_have(&port.rules, head) && !port.relations.is_aside())
    }

    /// How the frame would be sent to a port; `None` if it may not be.
    fn egress(&self, id: u16, vlan: u16, tagged: bool) -> Option<(TracePort, String)> {
        let (from, to) = (self.ports.get(&self.from)?, self.ports.get(&id)?);
        if id == self.home || to.relations.output || from.rules.isolated && to.rules.isolated {
            return None;
        }
        let retag = to.rules.membership.leave(vlan, tagged)?;
        let (tag, grown) = match retag {
            Retag::Keep => ("as it came".into(), 0),
            Retag::Push(vlan) => (format!("with a tag for VLAN {vlan}"), 4),
            Retag::Pop => ("without its tag".into(), 0),
        };
        let cause = if self.frame.len() + grown > to.rules.longest {
            Some(Cause::TxOversize)
        } else {
            (!to.up).then_some(Cause::PortDown)
        };
        let mut text = format!("to {}: {tag}, {} bytes", to.key, self.frame.len() + grown);
        if let Some(cause) = cause {
            text += &format!("; lost there as {}: {}", cause.name(), cause.meaning());
        }
        Some((TracePort { port: to.key.clone(), tag, cause: cause.map(|cause| cause.name().into()) }, text))
    }
}

/// Parses hexadecimal digits, with blanks, colons, dashes and dots anywhere between them.
fn bytes(text: &str) -> Result<Vec<u8>, Problem> {
    let digits: Vec<char> =
        text.chars().filter(|c| !c.is_whitespace() && !matches!(c, ':' | '-' | '.')).collect();
    let read = |pair: &[char]| match pair {
        [high, low] => Some((high.to_digit(16)? << 4 | low.to_digit(16)?) as u8),
        _ => None,
    };
    let read: Option<Vec<u8>> = digits.chunks(2).map(read).collect();
    read.filter(|bytes| bytes.len() <= usize::from(u16::MAX)).ok_or_else(|| {
        Problem::new(
            Code::InvalidParams,
            "the frame is no hexadecimal number of whole bytes",
            "write all of it from the destination address on, such as ffffffffffff0200000000010806",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use linecard_eal::{Eal, EalArgs, Lcore, LcoreId};
    use linecard_mempool::{Pool, PoolConfig};
    use linecard_net_ring::RingDriver;
    use linecard_pmd::{ProbeContext, Registry};
    use serde_json::json;

    use super::*;
    use crate::SwitchConfig;
    use crate::api::PortSpec;
    use crate::fdb::LearningPort;

    /// The addresses of a port that shares the station of another one are behind that one.
    #[test]
    fn a_sharing_port_has_the_addresses_of_the_other() {
        let args = EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0;
        let eal = Eal::new(&args).expect("a machine");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, PoolConfig::default().packets(1024)).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(1));
        let lcore = Lcore { id: LcoreId(0), cores: eal.lcores().main().cores.clone() };
        let config = SwitchConfig::new(Registry::new(&[&RingDriver]), context, pool, vec![lcore]);
        let switch = Switch::start(config).expect("a switch");
        let mut kernel = json!({"key": "kernel", "type": "vdev", "device": "net_ring0",
            "mac": "02:00:00:00:00:01", "vlan": {"trunk": {"vlans": [1, 2, 3]}}});
        switch.add(&PortSpec::read(kernel.clone()).expect("a port"), None).expect("it opens");
        kernel["shares"] = json!({"with": "kernel", "ports": "tcp:4444"});
        kernel["max_macs"] = 2.into();
        kernel["key"] = "fast".into();
        kernel["device"] = "net_ring1".into();
        switch.add(&PortSpec::read(kernel).expect("a port"), None).expect("it opens");
        let port = switch.ports()["kernel"].id;
        for vlan in [1, 2] {
            let behind = LearningPort { port, limit: 10, fixed: true };
            switch.table.learn(Station::new("02:00:00:00:00:01".parse().expect("an address"), vlan), behind);
        }
        let frame = "ffffffffffff 020000000001 81000003 88b5".into();
        let trace = switch.trace(&TraceRequest { port: "fast".into(), frame }).expect("a trace");
        assert_eq!(trace.cause.as_deref(), Some(Cause::AddressLimit.name()), "{:?}", trace.steps);
    }
}
