//! One connection's state, and what each request does to it.
//!
//! A request is checked whole, then carried out; a refused one changes nothing. The caller holds every
//! queue's gate meanwhile ([`touches_rings`] says when it must), so rings are built, moved and ended here
//! without the polling threads noticing more than one missed burst.

mod device;
mod memory;
mod rings;
mod vring;

use std::sync::Arc;

use linecard_eal::gate::Controller;
use linecard_virtio::Features;
use linecard_wire::payload::Payload;
use linecard_wire::{FrontendReq as Req, Message, NEED_REPLY, ProtocolFeatures, VERSION};

use crate::error::Refusal;
use crate::limits::Ledger;
use crate::memory::{MapLimits, MemoryMap};
use crate::peer::{Peer, tell};
use crate::sigbus::Alarm;
use crate::slot::Slot;
use vring::Vring;

/// The queues' slots, all held by the control thread.
pub(crate) struct Slots<'a>(pub(crate) &'a mut [Controller<Slot>]);

impl Slots<'_> {
    fn get(&mut self, index: usize) -> Option<&mut Slot> {
        self.0.get_mut(index)?.value()
    }
}

/// What a backend offers and allows; the same for all its sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) queue_pairs: u16,
    pub(crate) features: Features,
    pub(crate) protocol: ProtocolFeatures,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    pub(crate) limits: MapLimits,
}

/// What to do after a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing is to be sent.
    Silent,
    /// This payload answers it.
    Reply(Vec<u8>),
    /// The connection ends.
    Close(Refusal),
}

/// The answer of a request's own.
enum Answer {
    /// None; an acknowledgement if one is wanted.
    Done,
    /// This payload.
    Payload(Vec<u8>),
}

fn number(value: u64) -> Answer {
    Answer::Payload(value.to_bytes())
}

/// One frontend's view of the device.
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
}

impl Session {
    /// A session that nothing has been said in. With `watched`, pages that vanish are survived.
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
        }
    }

    /// Whether the peer took memory away from under us.
    pub(crate) fn quarantined(&self) -> bool {
        self.alarm.raised()
    }

    /// Carries out `message` or refuses it.
    pub(crate) fn respond(&mut self, message: Message, slots: &mut Slots<'_>) -> Verdict {
        let acknowledge = message.needs_reply() && self.protocol.contains(ProtocolFeatures::REPLY_ACK);
        let request = Req::try_from(message.request);
        let has_reply = request.is_ok_and(has_own_reply);
        match self.carry_out(message, slots) {
            Ok(Answer::Payload(payload)) => Verdict::Reply(payload),
            Ok(Answer::Done) if acknowledge => Verdict::Reply(0u64.to_bytes()),
            Ok(Answer::Done) => Verdict::Silent,
            Err(refusal) => {
                self.peer.count_refusal();
                match request {
                    // vhost-user, GET_CONFIG: an answer without payload reports the error.
                    Ok(Req::GET_CONFIG) => Verdict::Reply(Vec::new()),
                    _ if acknowledge && !has_reply => {
                        tell!(self.peer, warn, %refusal, "request refused");
                        Verdict::Reply(1u64.to_bytes())
                    }
                    _ => Verdict::Close(refusal),
                }
            }
        }
    }

    fn carry_out(&mut self, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        let request = message.request;
        if message.flags & !NEED_REPLY != VERSION {
            return Err(Refusal::Flags { request, flags: message.flags });
        }
        let known = Req::try_from(request).map_err(|_| Refusal::Unsupported { request })?;
        if let Some(need) = gated_by(known).filter(|need| !self.protocol.contains(*need)) {
            return Err(Refusal::NotNegotiated { request, need });
        }
        let answer = self.dispatch(known, message, slots)?;
        self.tell_peer(slots);
        Ok(answer)
    }

    fn dispatch(&mut self, request: Req, message: Message, slots: &mut Slots<'_>) -> Result<Answer, Refusal> {
        match request {
            Req::SET_MEM_TABLE => return self.set_mem_table(message, slots),
            Req::ADD_MEM_REG => return self.add_region(message, slots),
            Req::REM_MEM_REG => return self.remove_region(message, slots),
            Req::SET_VRING_KICK => return self.set_kick(message, slots),
            Req::SET_VRING_CALL => return self.set_call(message, slots),
            Req::SET_VRING_ERR => return self.set_error(message, slots),
            _ => expect_fds(&message, 0)?,
        }
        let payload = message.payload.as_slice();
        match request {
            Req::SET_VRING_NUM => self.set_vring_num(payload, slots),
            Req::SET_VRING_ADDR => self.set_vring_addr(payload, slots),
            Req::SET_VRING_BASE => self.set_vring_base(payload, slots),
            Req::GET_VRING_BASE => self.vring_base(payload, slots),
            Req::SET_VRING_ENABLE => self.set_vring_enable(payload, slots),
            Req::SET_STATUS => self.set_status(payload, slots),
            Req::RESET_OWNER | Req::RESET_DEVICE => self.reset(request, payload, slots),
            Req::SET_FEATURES => self.set_features(payload, slots),
            Req::SEND_RARP => self.send_rarp(payload, slots),
            _ => self.dispatch_simple(request, payload),
        }
    }

    /// Requests that no ring is concerned by.
    fn dispatch_simple(&mut self, request: Req, payload: &[u8]) -> Result<Answer, Refusal> {
        match request {
            Req::SET_PROTOCOL_FEATURES => return self.set_protocol_features(payload),
            Req::NET_SET_MTU => return self.set_mtu(payload),
            Req::GET_CONFIG => return self.config(payload),
            Req::SET_CONFIG => return Err(self.refuse_config(payload)),
            _ => {}
        }
        let answer = match request {
            Req::SET_OWNER => Answer::Done,
            Req::GET_FEATURES => number(self.terms.features.bits()),
            Req::GET_PROTOCOL_FEATURES => number(self.terms.protocol.bits()),
            // DPDK and QEMU count pairs here, although rings are what the text says.
            Req::GET_QUEUE_NUM => number(u64::from(self.terms.queue_pairs)),
            Req::GET_STATUS => number(u64::from(self.status.unwrap_or(0))),
            Req::GET_MAX_MEM_SLOTS => number(self.terms.limits.regions.into()),
            _ => return Err(Refusal::Unsupported { request: request as u32 }),
        };
        <()>::from_bytes(payload)?;
        Ok(answer)
    }

    /// Shows the peer's state to whoever asks.
    fn tell_peer(&self, slots: &mut Slots<'_>) {
        self.peer.set_negotiated(self.features.unwrap_or_default(), self.protocol);
        self.tell_rings(slots);
    }
}

/// Whether a request may change what polling threads use, so that their gates must be held.
pub(crate) fn touches_rings(request: u32) -> bool {
    !matches!(
        Req::try_from(request),
        Ok(Req::SET_OWNER
            | Req::GET_FEATURES
            | Req::GET_PROTOCOL_FEATURES
            | Req::SET_PROTOCOL_FEATURES
            | Req::GET_QUEUE_NUM
            | Req::GET_CONFIG
            | Req::GET_STATUS
            | Req::GET_MAX_MEM_SLOTS
            | Req::NET_SET_MTU)
    )
}

/// The protocol feature without which a request must not be sent.
fn gated_by(request: Req) -> Option<ProtocolFeatures> {
    Some(match request {
        Req::NET_SET_MTU => ProtocolFeatures::MTU,
        Req::SEND_RARP => ProtocolFeatures::RARP,
        Req::GET_CONFIG | Req::SET_CONFIG => ProtocolFeatures::CONFIG,
        Req::RESET_DEVICE => ProtocolFeatures::RESET_DEVICE,
        Req::GET_MAX_MEM_SLOTS | Req::ADD_MEM_REG | Req::REM_MEM_REG => ProtocolFeatures::CONFIGURE_MEM_SLOTS,
        Req::SET_STATUS | Req::GET_STATUS => ProtocolFeatures::STATUS,
        _ => return None,
    })
}

/// Requests that carry an answer of their own, so that a refusal cannot be told by an acknowledgement.
fn has_own_reply(request: Req) -> bool {
    matches!(
        request,
        Req::GET_FEATURES
            | Req::GET_PROTOCOL_FEATURES
            | Req::GET_VRING_BASE
            | Req::GET_QUEUE_NUM
            | Req::GET_CONFIG
            | Req::GET_STATUS
            | Req::GET_MAX_MEM_SLOTS
            | Req::GET_INFLIGHT_FD
    )
}

/// Checks that exactly `want` descriptors came; the message closes them otherwise.
fn expect_fds(message: &Message, want: usize) -> Result<(), Refusal> {
    let got = message.fds.len().saturating_add(message.surplus_fds);
    if got == want { Ok(()) } else { Err(Refusal::Descriptors { request: message.request, got, want }) }
}
