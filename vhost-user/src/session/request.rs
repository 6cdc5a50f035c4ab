//! The supported requests, one row each.
//!
//! A row describes a request completely: the protocol feature and descriptors that it needs, whether it needs
//! closed gates, how it is answered, and its handler. Checks, gates, acknowledgements and the offered
//! protocol features follow from the table. A new request needs a row, and a handler in the module of the
//! state that it changes.

use std::ops::RangeInclusive;
use std::sync::Arc;

use linecard_wire::payload::Payload;
use linecard_wire::{FrontendReq as Req, MAX_FDS, Message, PeerFd, ProtocolFeatures};

use super::later::Pending;
use super::{Session, Slots};
use crate::error::Refusal;

/// The function that performs a request. After an error nothing has changed.
pub(crate) type Handler = fn(&mut Session, Message, &mut Slots<'_>) -> Result<Answer, Refusal>;

/// The answer of a handler.
#[derive(Debug)]
pub(crate) enum Answer {
    /// No payload; an acknowledgement if the frontend requested one.
    None,
    /// A payload and its descriptors.
    Now(Vec<u8>, Vec<Arc<PeerFd>>),
    /// An answer that becomes available later. The frontend's next request waits for it.
    Later(Pending),
}

impl Answer {
    pub(super) fn payload(payload: &impl Payload) -> Self {
        Self::Now(payload.to_bytes(), Vec::new())
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Not at all, or by an acknowledgement (`REPLY_ACK`), which can report a refusal.
    Acknowledgement,
    /// By a payload. A refusal cannot be reported, and ends the connection.
    Payload,
    /// By a payload, which is empty after a refusal.
    PayloadOrEmpty,
}

/// Whether a request may change state that polling threads use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rings {
    Untouched,
    /// The request is performed while no polling thread is inside a ring.
    Held,
    /// As `Held`, if this function returns true for the message.
    AsSaid(fn(&Session, &Message) -> bool),
}

/// The properties of one request.
#[derive(Debug)]
pub(crate) struct Row {
    pub(super) code: Req,
    /// The protocol feature that must have been negotiated.
    pub(super) needs: ProtocolFeatures,
    /// The allowed number of descriptors. If the payload determines it, the handler checks it.
    pub(super) descriptors: RangeInclusive<usize>,
    pub(super) rings: Rings,
    pub(super) reply: Reply,
    pub(super) carry_out: Handler,
}

impl Row {
    /// A request that sets something.
    pub(super) const fn set(code: Req, rings: Rings, carry_out: Handler) -> Self {
        let (needs, reply) = (ProtocolFeatures::empty(), Reply::Acknowledgement);
        Self { code, needs, descriptors: 0..=0, rings, reply, carry_out }
    }

    /// A request that reads something.
    pub(crate) const fn get(code: Req, carry_out: Handler) -> Self {
        Self { reply: Reply::Payload, ..Self::set(code, Rings::Untouched, carry_out) }
    }

    const fn needs(self, needs: ProtocolFeatures) -> Self {
        Self { needs, ..self }
    }

    const fn descriptors(self, descriptors: RangeInclusive<usize>) -> Self {
        Self { descriptors, ..self }
    }

    /// Checks the number of descriptors. A refused message closes its descriptors.
    pub(super) fn check_descriptors(&self, message: &Message) -> Result<(), Refusal> {
        let got = message.fds.len().saturating_add(message.surplus_fds);
        if self.descriptors.contains(&got) {
            return Ok(());
        }
        let want = got.clamp(*self.descriptors.start(), *self.descriptors.end());
        Err(Refusal::Descriptors { request: message.request, got, want })
    }

    /// A request that sets something about rings, and a copy of a row, for tables of tests.
    #[cfg(test)]
    pub(crate) fn held(code: Req, carry_out: Handler) -> Self {
        Self::set(code, Rings::Held, carry_out)
    }

    #[cfg(test)]
    pub(crate) fn again(&self) -> Self {
        let (descriptors, needs) = (self.descriptors.clone(), self.needs);
        Self { descriptors, needs, reply: self.reply, ..Self::set(self.code, self.rings, self.carry_out) }
    }

    /// Whether `message`, which has this row's code, may change state that polling threads use.
    pub(crate) fn touches_rings(&self, session: &Session, message: &Message) -> bool {
        match self.rings {
            Untouched => false,
            Held => true,
            AsSaid(touches) => touches(session, message),
        }
    }
}

use ProtocolFeatures as Need;
use Rings::{AsSaid, Held, Untouched};

/// All requests, in ascending order of their codes.
pub(crate) static REQUESTS: &[Row] = &[
    Row::get(Req::GET_FEATURES, Session::get_features),
    Row::set(Req::SET_FEATURES, Held, Session::set_features),
    Row::set(Req::SET_OWNER, Untouched, Session::set_owner),
    Row::set(Req::RESET_OWNER, Held, Session::reset_owner),
    Row::set(Req::SET_MEM_TABLE, Held, Session::set_mem_table).descriptors(0..=MAX_FDS),
    Row {
        rings: Held,
        ..Row::get(Req::SET_LOG_BASE, Session::set_log_base).needs(Need::LOG_SHMFD).descriptors(1..=1)
    },
    Row::set(Req::SET_LOG_FD, Held, Session::set_log_fd).needs(Need::LOG_SHMFD).descriptors(1..=1),
    Row::set(Req::SET_VRING_NUM, Held, Session::set_vring_num),
    Row::set(Req::SET_VRING_ADDR, Held, Session::set_vring_addr),
    Row::set(Req::SET_VRING_BASE, Held, Session::set_vring_base),
    Row { rings: Held, ..Row::get(Req::GET_VRING_BASE, Session::get_vring_base) },
    Row::set(Req::SET_VRING_KICK, Held, Session::set_vring_kick).descriptors(0..=1),
    Row::set(Req::SET_VRING_CALL, Held, Session::set_vring_call).descriptors(0..=1),
    Row::set(Req::SET_VRING_ERR, Held, Session::set_vring_err).descriptors(0..=1),
    Row::get(Req::GET_PROTOCOL_FEATURES, Session::get_protocol_features),
    Row::set(Req::SET_PROTOCOL_FEATURES, Untouched, Session::set_protocol_features),
    Row::get(Req::GET_QUEUE_NUM, Session::get_queue_num),
    Row::set(Req::SET_VRING_ENABLE, Held, Session::set_vring_enable),
    Row::set(Req::SEND_RARP, Held, Session::send_rarp).needs(Need::RARP),
    Row::set(Req::NET_SET_MTU, Untouched, Session::set_mtu).needs(Need::MTU),
    Row::set(Req::SET_BACKEND_REQ_FD, Untouched, Session::set_backend_channel)
        .needs(Need::BACKEND_REQ)
        .descriptors(1..=1),
    Row::set(Req::IOTLB_MSG, AsSaid(Session::iotlb_touches_rings), Session::iotlb_message)
        .needs(Need::BACKEND_REQ),
    Row {
        reply: Reply::PayloadOrEmpty,
        ..Row::get(Req::GET_CONFIG, Session::get_config).needs(Need::CONFIG)
    },
    Row::set(Req::SET_CONFIG, Untouched, Session::set_config).needs(Need::CONFIG),
    Row::get(Req::GET_INFLIGHT_FD, Session::get_inflight_fd).needs(Need::INFLIGHT_SHMFD),
    Row::set(Req::SET_INFLIGHT_FD, Untouched, Session::set_inflight_fd)
        .needs(Need::INFLIGHT_SHMFD)
        .descriptors(1..=1),
    Row::set(Req::RESET_DEVICE, Held, Session::reset_device).needs(Need::RESET_DEVICE),
    Row::get(Req::GET_MAX_MEM_SLOTS, Session::get_max_mem_slots).needs(Need::CONFIGURE_MEM_SLOTS),
    Row::set(Req::ADD_MEM_REG, Held, Session::add_region).needs(Need::CONFIGURE_MEM_SLOTS).descriptors(1..=1),
    Row::set(Req::REM_MEM_REG, Held, Session::remove_region)
        .needs(Need::CONFIGURE_MEM_SLOTS)
        .descriptors(0..=1),
    Row::set(Req::SET_STATUS, Held, Session::set_status).needs(Need::STATUS),
    Row::get(Req::GET_STATUS, Session::get_status).needs(Need::STATUS),
];

/// The protocol features that at least one request needs.
pub(crate) fn protocol_features() -> ProtocolFeatures {
    REQUESTS.iter().map(|row| row.needs).collect()
}

/// Checks that the message has exactly the `want` descriptors that its payload announces. A refused message
/// closes its descriptors.
pub(super) fn expect_fds(message: &Message, want: usize) -> Result<(), Refusal> {
    let got = message.fds.len().saturating_add(message.surplus_fds);
    if got == want { Ok(()) } else { Err(Refusal::Descriptors { request: message.request, got, want }) }
}
