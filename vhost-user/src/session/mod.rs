//! The state of one connection, and the requests that change it.
//!
//! A request is completely checked, then performed; a refused request changes nothing. A table lists the
//! properties of each request ([`request`]). The caller holds the gates of all queues for a request that
//! needs them (see [`Row::touches_rings`]), so rings are built, moved and ended here, and the polling threads
//! miss at most one burst.

mod device;
mod handover;
mod inflight;
mod iotlb;
mod later;
mod log;
mod memory;
mod request;
mod rings;
pub(crate) mod snapshot;
mod vring;

use std::sync::Arc;

use linecard_eal::gate::Controller;
use linecard_virtio::Features;
use linecard_wire::payload::Payload;
use linecard_wire::{Connection, Message, NEED_REPLY, PeerFd, ProtocolFeatures, VERSION};

use crate::error::Refusal;
use crate::event::Event;
use crate::limits::Ledger;
use crate::memory::{DirtyLog, Inflight, MapLimits, MemoryMap};
use crate::peer::{Peer, tell};
use crate::sigbus::Alarm;
use crate::slot::VringSlot;
use request::Reply;
use vring::Vring;

pub(crate) use handover::{Left, Taken};
pub(crate) use iotlb::Kept;
#[cfg(test)]
pub(crate) use later::Promise;
pub(crate) use later::{Outcome, Pending};
pub(crate) use request::{Answer, REQUESTS, Row, protocol_features};

/// The slots of all queues, held by the control thread.
pub(crate) struct Slots<'a>(pub(crate) &'a mut [Controller<VringSlot>]);

impl Slots<'_> {
    fn get(&mut self, index: usize) -> Option<&mut VringSlot> {
        self.0.get_mut(index)?.value()
    }
}

/// The features and limits of a backend, the same for all its sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) queue_pairs: u16,
    pub(crate) features: Features,
    pub(crate) protocol: ProtocolFeatures,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    pub(crate) limits: MapLimits,
    /// Whether regions keep their descriptors for a successor.
    pub(crate) hand_over: bool,
    /// Whether rings are recorded that do not show their position.
    pub(crate) records: bool,
    /// Whether the frontend's memory may be backed by any file.
    pub(crate) trusted_memory: bool,
    /// The supported requests.
    pub(crate) requests: &'static [Row],
}

/// The action after a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing is sent.
    Silent,
    /// This payload is sent as the answer, with these descriptors.
    Reply(Vec<u8>, Vec<Arc<PeerFd>>),
    /// The answer is not available yet. No message is read before it is sent.
    Wait(Waiting),
    /// The connection is closed.
    Close(Refusal),
}

/// A request whose answer is not available yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: u32,
    reply: Reply,
    acknowledge: bool,
    pending: Pending,
}

/// The state that one frontend has negotiated and configured.
pub(crate) struct Session {
    terms: Terms,
    ledger: Ledger,
    peer: Arc<Peer>,
    alarm: Arc<Alarm>,
    watched: bool,
    features: Option<Features>,
    protocol: ProtocolFeatures,
    status: Option<u8>,
    map: Arc<MemoryMap>,
    vrings: Vec<Vring>,
    /// The log of written pages, and the eventfd signalled for new entries.
    log: Option<Arc<DirtyLog>>,
    log_event: Option<Arc<Event>>,
    /// The records of descriptors in flight, and the region that this backend created for them.
    inflight: Option<Arc<Inflight>>,
    inflight_made: Option<inflight::CreatedRegion>,
    /// This backend created `inflight` without a request of the frontend.
    own_inflight: bool,
    /// The channel for requests to the frontend (`SET_BACKEND_REQ_FD`).
    channel: Option<Connection>,
    /// The address translations, if an IOMMU is in use.
    translations: Option<iotlb::Translations>,
}

impl Session {
    /// A new session. With `watched`, the process survives pages that the peer removes.
    pub(crate) fn new(terms: Terms, ledger: Ledger, peer: Arc<Peer>, watched: bool) -> Self {
        let rings = usize::from(terms.queue_pairs) * 2;
        Self {
            terms,
            ledger,
            peer,
            alarm: Alarm::new(),
            watched,
            features: None,
            protocol: ProtocolFeatures::empty(),
            status: None,
            map: MemoryMap::empty(),
            vrings: (0..rings).map(|_| Vring::default()).collect(),
            log: None,
            log_event: None,
            inflight: None,
            inflight_made: None,
            own_inflight: false,
            channel: None,
            translations: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether the peer removed pages of its memory.
    pub(crate) fn quarantined(&self) -> bool {
        self.alarm.raised()
    }

    /// The properties of the request of this code; `None` if it is unknown.
    pub(crate) fn row(&self, code: u32) -> Option<&'static Row> {
        self.terms.requests.iter().find(|row| row.code as u32 == code)
    }

    /// Performs or refuses `message`.
    pub(crate) fn respond(&mut self, message: Message, slots: &mut Slots<'_>) -> Verdict {
        let request = message.request;
        let acknowledge = message.needs_reply() && self.protocol.contains(ProtocolFeatures::REPLY_ACK);
        let row = self.row(request);
        let reply = row.map_or(Reply::Acknowledgement, |row| row.reply);
        let outcome = self.carry_out(row, message, slots);
        self.conclude(request, reply, acknowledge, outcome)
    }

    /// Checks whether a delayed answer is available.
    pub(crate) fn look(&mut self, waiting: Waiting) -> Verdict {
        let Waiting { request, reply, acknowledge, pending } = waiting;
        match pending.look() {
            Ok(outcome) => self.conclude(request, reply, acknowledge, outcome),
            Err(pending) => Verdict::Wait(Waiting { request, reply, acknowledge, pending }),
        }
    }

    /// The message for the frontend.
    fn conclude(&self, request: u32, reply: Reply, acknowledge: bool, outcome: Outcome) -> Verdict {
        match outcome {
            Ok(Answer::Now(payload, fds)) => Verdict::Reply(payload, fds),
            Ok(Answer::Later(pending)) => Verdict::Wait(Waiting { request, reply, acknowledge, pending }),
            Ok(Answer::None) if acknowledge => Verdict::Reply(0u64.to_bytes(), Vec::new()),
            Ok(Answer::None) => Verdict::Silent,
            Err(refusal) => {
                self.peer.count_refusal();
                match reply {
                    Reply::PayloadOrEmpty => Verdict::Reply(Vec::new(), Vec::new()),
                    Reply::Acknowledgement if acknowledge => {
                        tell!(self.peer, warn, %refusal, "request refused");
                        Verdict::Reply(1u64.to_bytes(), Vec::new())
                    }
                    Reply::Acknowledgement | Reply::Payload => Verdict::Close(refusal),
                }
            }
        }
    }

    /// Performs the checks common to all requests, then calls the request's handler.
    fn carry_out(&mut self, row: Option<&Row>, message: Message, slots: &mut Slots<'_>) -> Outcome {
        let request = message.request;
        if message.flags & !NEED_REPLY != VERSION {
            return Err(Refusal::Flags { request, flags: message.flags });
        }
        let row = row.ok_or(Refusal::Unsupported { request })?;
        if !self.protocol.contains(row.needs) {
            return Err(Refusal::NotNegotiated { request, need: row.needs });
        }
        row.check_descriptors(&message)?;
        let answer = (row.carry_out)(self, message, slots)?;
        self.tell_peer(slots);
        Ok(answer)
    }

    /// Publishes the negotiated state and the rings, for other threads.
    fn tell_peer(&self, slots: &mut Slots<'_>) {
        self.peer.set_negotiated(self.features.unwrap_or_default(), self.protocol);
        self.tell_rings(slots);
    }
}

#[cfg(test)]
mod tests;
