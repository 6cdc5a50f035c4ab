//! Port mirroring (SPAN): copies of the frames of some ports, sent to another one.
//!
//! ```text
//!   received on a ─► copied ─► decision …          to a ─► copied ─► a's queue
//!                      └───────────► burst of the output port ◄──┘
//! ```
//! A copy shares its bytes with the frame. It goes into the burst of the output port, or to the worker that
//! has its queue. It is queued nowhere else, so that an output port which is not read loses copies and delays
//! no other port. A session names ports by their keys, and persists while they come and go.

use std::collections::{BTreeMap, BTreeSet};

use linecard_mempool::{BURST, Burst, Packet};
use serde::{Deserialize, Serialize};

use crate::Switch;
use crate::api::{Cause, Code, Problem, Span, SpanInfo};
use crate::forward::Engine;
use crate::port::Egress;
use crate::rules::Retag;
use crate::switch::{Entry, MAX_PORTS, no_port};

/// The maximum number of frames waiting for another worker beyond which copies are dropped: as many as it
/// collects in one round. So copies never displace frames.
const BACKLOG: usize = 4 * BURST;

impl Engine {
    /// Copies the frames received at a port; returns `false` if nothing more is to be done with them.
    #[cold]
    pub(crate) fn copy_received(&mut self, port: u16, packets: &mut Burst) -> bool {
        let Some(worker_port) = self.worker_port(port) else { return true };
        if worker_port.relations.output {
            worker_port.losses.add(Cause::SpanOutput, packets.clear() as u64);
            return false;
        }
        let outputs = worker_port.relations.ingress.clone();
        self.copy(&outputs, packets);
        true
    }

    /// Copies the frames sent to a port.
    #[cold]
    pub(crate) fn copy_sent(&mut self, port: u16, packets: &mut Burst) {
        let Some(worker_port) = self.worker_port(port) else { return };
        let outputs = worker_port.relations.egress.clone();
        self.copy(&outputs, packets);
    }

    fn copy(&mut self, outputs: &[u16], packets: &mut Burst) {
        for packet in packets.iter_mut() {
            for to in outputs {
                self.copy_to(*to, packet);
            }
        }
    }

    fn copy_to(&mut self, to: u16, packet: &mut Packet) {
        let Some(worker_port) = self.worker_port(to) else { return };
        let waiting = match worker_port.egress {
            Egress::Own(_) => 0,
            Egress::Through(worker) => self.inboxes.get(worker).map_or(0, |inbox| inbox.packets.len()),
        };
        if waiting >= BACKLOG {
            worker_port.losses.add(Cause::TxFull, 1);
            return;
        }
        match packet.clone_ref() {
            Some(copy) => self.put(to, copy, Retag::Keep),
            None => self.lost(to, Cause::NoPacket, 1),
        }
    }
}

/// A session and its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) span: Span,
    /// Set by request; otherwise by configuration.
    pub(crate) kept: bool,
}

/// Sessions by the keys of their output ports.
pub(crate) type Sessions = BTreeMap<String, Session>;

impl Switch {
    /// Starts to mirror the frames of some ports to another one; replaces a session of that output port.
    /// `kept` says that it was set by request.
    ///
    /// # Errors
    /// A port does not exist, or would be both mirrored and an output port.
    pub fn set_span(&self, span: &Span, kept: bool) -> Result<SpanInfo, Problem> {
        let ports = self.ports();
        if let Some(absent) = keys(span).find(|key| !ports.contains_key(*key)) {
            return Err(no_port(absent));
        }
        let mut sessions = self.sessions();
        check(span, &sessions)?;
        sessions.insert(span.to.clone(), Session { span: span.clone(), kept });
        self.relate(&ports, &sessions);
        Ok(info(&Session { span: span.clone(), kept }, &ports))
    }

    /// Restores a session of an earlier run, whether its ports exist or not.
    ///
    /// # Errors
    /// It contradicts itself or another session.
    pub fn restore_span(&self, span: &Span, kept: bool) -> Result<(), Problem> {
        let ports = self.ports();
        let mut sessions = self.sessions();
        check(span, &sessions)?;
        sessions.insert(span.to.clone(), Session { span: span.clone(), kept });
        self.relate(&ports, &sessions);
        Ok(())
    }

    /// Ends the mirroring to a port, which then is an ordinary port; returns `false` if it has no session.
    pub fn remove_span(&self, to: &str) -> bool {
        let ports = self.ports();
        let mut sessions = self.sessions();
        let removed = sessions.remove(to).is_some();
        self.relate(&ports, &sessions);
        removed
    }

    /// Returns every session.
    #[must_use]
    pub fn spans(&self) -> Vec<SpanInfo> {
        let ports = self.ports();
        self.sessions().values().map(|session| info(session, &ports)).collect()
    }
}

fn keys(span: &Span) -> impl Iterator<Item = &String> {
    std::iter::once(&span.to).chain(&span.ingress).chain(&span.egress)
}

fn info(session: &Session, ports: &BTreeMap<String, Entry>) -> SpanInfo {
    let open = |key: &str| ports.get(key).is_some_and(|entry| entry.open.is_some());
    let absent: BTreeSet<&String> = keys(&session.span).filter(|key| !open(key)).collect();
    SpanInfo { absent: absent.into_iter().cloned().collect(), kept: session.kept, span: session.span.clone() }
}

/// Checks that a port is mirrored or receives copies, never both.
fn check(span: &Span, sessions: &Sessions) -> Result<(), Problem> {
    let invalid = |message: String, remedy: &str| Err(Problem::new(Code::InvalidParams, message, remedy));
    let sources =
        |span: &Span| -> BTreeSet<String> { span.ingress.iter().chain(&span.egress).cloned().collect() };
    let own = sources(span);
    if own.is_empty() {
        return invalid(
            format!("nothing is to be copied to port '{}'", span.to.escape_debug()),
            "name ports in 'ingress' or 'egress'",
        );
    }
    if span.ingress.len().max(span.egress.len()) > MAX_PORTS {
        return invalid("a session names more ports than a switch has".into(), "name each once");
    }
    let others = || sessions.values().map(|session| &session.span).filter(|other| other.to != span.to);
    let both = own
        .iter()
        .find(|key| **key == span.to || others().any(|other| other.to == **key))
        .or_else(|| others().any(|other| sources(other).contains(&span.to)).then_some(&span.to));
    match both {
        None => Ok(()),
        Some(key) => invalid(
            format!("port '{}' would be mirrored and get copies itself", key.escape_debug()),
            "send the copies to a port that is not mirrored",
        ),
    }
}
