//! Question and answer with a backend, every answer bounded in time and checked.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_wire::payload::Payload;
use linecard_wire::{Connection, FrontendReq, OutMessage};

use crate::error::Error;
use crate::reactor::{Task, after};
use crate::sys::Ready;

/// How long a backend may take for one answer.
const ANSWER: Duration = Duration::from_millis(1000);

/// A connection, one question at a time.
#[derive(Debug)]
pub(crate) struct Dialogue {
    connection: Connection,
    task: Arc<Task>,
    /// No answer is waited for beyond this; `None` once the handshake is over.
    limit: Option<Instant>,
    /// When the time up to `limit` began.
    since: Instant,
    /// `REPLY_ACK` was negotiated: every request is answered.
    acks: bool,
    /// The backend has answered once. Until then it may be starting, and has the whole limit: a socket takes
    /// connections before anybody serves it.
    awake: bool,
}

impl Dialogue {
    /// Talks over `socket`; the whole handshake must be over at `limit`.
    pub(crate) fn new(socket: UnixStream, task: Arc<Task>, limit: Instant) -> Result<Self, Error> {
        let (connection, since) = (Connection::new(socket)?, Instant::now());
        Ok(Self { connection, task, limit: Some(limit), since, acks: false, awake: false })
    }

    /// Goes on under another task, with a new limit.
    pub(crate) fn adopt(&mut self, task: Arc<Task>, limit: Instant) {
        self.task = task;
        (self.limit, self.since) = (Some(limit), Instant::now());
    }

    pub(crate) fn set_limit(&mut self, limit: Option<Instant>) {
        self.limit = limit;
    }

    pub(crate) fn set_acks(&mut self, acks: bool) {
        self.acks = acks;
    }

    /// Sends a question and returns the answer, which must be the answer to it.
    pub(crate) async fn ask<A: Payload>(&mut self, request: FrontendReq, payload: &[u8]) -> Result<A, Error> {
        let began = Instant::now();
        self.connection.send(&OutMessage::request(request, payload))?;
        self.answer(request, began).await
    }

    /// Tells the backend something; its refusal is an error when it has a way to refuse.
    pub(crate) async fn tell(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let began = Instant::now();
        let message = OutMessage::request(request, payload).with_fds(fds);
        if !self.acks {
            self.connection.send(&message)?;
            return self.drained(request, began).await;
        }
        self.connection.send(&message.need_reply())?;
        match self.answer::<u64>(request, began).await? {
            0 => Ok(()),
            code => Err(Error::Refused { request: name(request), code }),
        }
    }

    /// Returns when the backend has worked off everything sent before.
    pub(crate) async fn barrier(&mut self) -> Result<(), Error> {
        if self.acks {
            return Ok(());
        }
        self.ask::<u64>(FrontendReq::GET_FEATURES, &[]).await.map(drop)
    }

    /// Waits for something to happen: the backend speaks or leaves (an error, nothing was asked), or a notice.
    pub(crate) async fn watch(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        self.uninvited()?;
        self.task.wait(Some(self.connection.as_fd()), Ready::Read, deadline).await;
        self.uninvited()
    }

    /// Lets other ports have the thread for a while.
    pub(crate) async fn pause(&self, wait: Duration) {
        self.task.wait(None, Ready::Read, Some(after(wait))).await;
    }

    fn uninvited(&mut self) -> Result<(), Error> {
        match self.connection.read()? {
            Some(message) => Err(Error::Uninvited { got: message.request }),
            None => Ok(()),
        }
    }

    /// When an answer that was asked for at `began` is late.
    fn deadline(&self, began: Instant) -> Instant {
        let one = began.checked_add(ANSWER).unwrap_or(began);
        match self.limit {
            Some(limit) if self.awake => limit.min(one),
            Some(limit) => limit,
            None => one,
        }
    }

    async fn drained(&mut self, request: FrontendReq, began: Instant) -> Result<(), Error> {
        while !self.connection.flush()? {
            self.in_time(request, began)?;
            self.task.wait(Some(self.connection.as_fd()), Ready::Write, Some(self.deadline(began))).await;
        }
        Ok(())
    }

    async fn answer<A: Payload>(&mut self, request: FrontendReq, began: Instant) -> Result<A, Error> {
        self.drained(request, began).await?;
        loop {
            if let Some(message) = self.connection.read()? {
                self.awake = true;
                let unasked = message.request != request as u32 || !message.is_reply();
                return match unasked {
                    true => Err(Error::Unasked { request: name(request), got: message.request }),
                    false => Ok(A::from_bytes(&message.payload)?),
                };
            }
            self.in_time(request, began)?;
            self.task.wait(Some(self.connection.as_fd()), Ready::Read, Some(self.deadline(began))).await;
        }
    }

    fn in_time(&self, request: FrontendReq, began: Instant) -> Result<(), Error> {
        let deadline = self.deadline(began);
        if Instant::now() < deadline {
            return Ok(());
        }
        // The time that was set, not what earlier answers left of it.
        let since = if self.limit == Some(deadline) { self.since } else { began };
        Err(Error::Silent { request: name(request), waited: deadline.saturating_duration_since(since) })
    }
}

/// A moment the whole handshake has to be over at.
pub(crate) fn handshake_limit() -> Instant {
    /// Longest handshake, all answers together.
    const HANDSHAKE: Duration = Duration::from_millis(3000);
    after(HANDSHAKE)
}

/// The spec's name of a request.
pub(crate) fn name(request: FrontendReq) -> &'static str {
    match request {
        FrontendReq::GET_FEATURES => "GET_FEATURES",
        FrontendReq::SET_FEATURES => "SET_FEATURES",
        FrontendReq::SET_OWNER => "SET_OWNER",
        FrontendReq::SET_MEM_TABLE => "SET_MEM_TABLE",
        FrontendReq::SET_VRING_NUM => "SET_VRING_NUM",
        FrontendReq::SET_VRING_ADDR => "SET_VRING_ADDR",
        FrontendReq::SET_VRING_BASE => "SET_VRING_BASE",
        FrontendReq::GET_VRING_BASE => "GET_VRING_BASE",
        FrontendReq::SET_VRING_KICK => "SET_VRING_KICK",
        FrontendReq::SET_VRING_CALL => "SET_VRING_CALL",
        FrontendReq::SET_VRING_ENABLE => "SET_VRING_ENABLE",
        FrontendReq::GET_PROTOCOL_FEATURES => "GET_PROTOCOL_FEATURES",
        FrontendReq::SET_PROTOCOL_FEATURES => "SET_PROTOCOL_FEATURES",
        FrontendReq::GET_QUEUE_NUM => "GET_QUEUE_NUM",
        FrontendReq::GET_MAX_MEM_SLOTS => "GET_MAX_MEM_SLOTS",
        FrontendReq::ADD_MEM_REG => "ADD_MEM_REG",
        FrontendReq::REM_MEM_REG => "REM_MEM_REG",
        FrontendReq::SET_STATUS => "SET_STATUS",
        FrontendReq::GET_STATUS => "GET_STATUS",
        _ => "a request",
    }
}
