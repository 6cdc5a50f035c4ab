//! Requests to a backend and their answers, each with a deadline and checked.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_wire::payload::Payload;
use linecard_wire::{Closer, Connection, FrontendReq, OutMessage};

use crate::backend::{Phase, Ready, Waiter, Watched};
use crate::error::Error;

/// The time that a backend has for one answer.
const ANSWER: Duration = Duration::from_millis(1000);

/// The interval between checks whether descriptors were closed.
const ROOM_INTERVAL: Duration = Duration::from_millis(1);

/// A connection with one request at a time.
#[derive(Debug)]
pub(super) struct Dialogue {
    connection: Connection,
    waiter: Arc<Waiter>,
    /// The phase, which determines the deadline of answers.
    phase: Phase,
    /// The start of the phase.
    since: Instant,
    /// Whether `REPLY_ACK` was negotiated: then every request is answered.
    acks: bool,
    /// Whether the backend has answered once. Until then it has the whole limit, since it may be starting: a
    /// socket accepts connections before a process serves it.
    awake: bool,
}

impl Dialogue {
    /// Starts a dialogue over `socket`; the whole handshake must be over at `limit`.
    pub(super) fn new(
        socket: UnixStream,
        closer: &Closer,
        waiter: &Arc<Waiter>,
        limit: Instant,
    ) -> Result<Self, Error> {
        Ok(Self {
            connection: Connection::of(socket, closer)?,
            waiter: waiter.clone(),
            phase: Phase::Starting(limit),
            since: Instant::now(),
            acks: false,
            awake: false,
        })
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
    }

    pub(super) fn set_acks(&mut self, acks: bool) {
        self.acks = acks;
    }

    /// Sends a request and returns the answer, which must belong to it.
    pub(super) fn ask<A: Payload>(&mut self, request: FrontendReq, payload: &[u8]) -> Result<A, Error> {
        Ok(A::from_bytes(&self.ask_bytes(request, payload)?)?)
    }

    /// The same, with an answer that may be empty.
    pub(super) fn ask_bytes(&mut self, request: FrontendReq, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let began = Instant::now();
        self.connection.send(&OutMessage::request(request, payload))?;
        self.answer(request, began)
    }

    /// Sends a request without an answer of its own; a refusal is an error if the backend can express one.
    pub(super) fn tell(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let began = Instant::now();
        // A backend without `REPLY_ACK` may still have to take descriptors of earlier requests.
        while !fds.is_empty() && self.connection.lacks_room() {
            self.in_time(request, began)?;
            std::thread::sleep(ROOM_INTERVAL);
        }
        let message = OutMessage::request(request, payload).with_fds(fds);
        if !self.acks {
            self.connection.send(&message)?;
            return self.drained(request, began);
        }
        self.connection.send(&message.need_reply())?;
        match u64::from_bytes(&self.answer(request, began)?)? {
            0 => Ok(()),
            code => Err(Error::Refused { request: name(request), code }),
        }
    }

    /// Returns when the backend has processed all earlier requests.
    pub(super) fn barrier(&mut self) -> Result<(), Error> {
        if self.acks {
            return Ok(());
        }
        self.ask::<u64>(FrontendReq::GET_FEATURES, &[]).map(drop)
    }

    /// Returns the descriptor that is readable when the backend sends a message or disconnects.
    pub(super) fn watched(&self) -> Watched<'_> {
        Watched::reading(&self.connection)
    }

    /// Fails if the backend has sent a message without a request.
    pub(super) fn uninvited(&mut self) -> Result<(), Error> {
        match self.connection.read()? {
            Some(message) => Err(Error::Uninvited { got: message.request }),
            None => Ok(()),
        }
    }

    /// Returns the deadline of an answer to a request of `began`.
    fn deadline(&self, began: Instant) -> Instant {
        let one = began.checked_add(ANSWER).unwrap_or(began);
        match self.phase.deadline() {
            Some(limit) if self.awake => limit.min(one),
            Some(limit) => limit,
            None => one,
        }
    }

    fn drained(&mut self, request: FrontendReq, began: Instant) -> Result<(), Error> {
        while !self.connection.flush()? {
            self.in_time(request, began)?;
            self.waiter.wait(Some(self.connection.as_fd()), Ready::Write, Some(self.deadline(began)));
        }
        Ok(())
    }

    fn answer(&mut self, request: FrontendReq, began: Instant) -> Result<Vec<u8>, Error> {
        self.drained(request, began)?;
        loop {
            // Descriptors of earlier replies, or of an earlier backend, are still being closed.
            if self.connection.lacks_room() && self.in_time(request, began).is_ok() {
                std::thread::sleep(ROOM_INTERVAL);
                continue;
            }
            if let Some(message) = self.connection.read()? {
                self.awake = true;
                let unasked = message.request != request as u32 || !message.is_reply();
                return match unasked {
                    true => Err(Error::Unasked { request: name(request), got: message.request }),
                    false => Ok(message.payload),
                };
            }
            self.in_time(request, began)?;
            self.waiter.wait(Some(self.connection.as_fd()), Ready::Read, Some(self.deadline(began)));
        }
    }

    fn in_time(&self, request: FrontendReq, began: Instant) -> Result<(), Error> {
        if self.waiter.stopped() && !matches!(self.phase, Phase::Stopping(_)) {
            return Err(Error::Stopped);
        }
        let deadline = self.deadline(began);
        if Instant::now() < deadline {
            return Ok(());
        }
        // The time limit that was set, not the rest that earlier answers left of it.
        let since = if self.phase.deadline() == Some(deadline) { self.since } else { began };
        Err(Error::Silent { request: name(request), waited: deadline.saturating_duration_since(since) })
    }
}

/// Returns the specification's name of a request.
pub(super) fn name(request: FrontendReq) -> &'static str {
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
        FrontendReq::GET_CONFIG => "GET_CONFIG",
        FrontendReq::NET_SET_MTU => "NET_SET_MTU",
        _ => "a request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread::{ControlThread, after};

    /// A missing answer does not delay the stop of a port, except for the requests of the stop itself.
    #[test]
    fn a_stop_ends_a_question() {
        let thread = ControlThread::start("dialogue").expect("a thread");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let all = linecard_wire::ledger::Resource::new("descriptors", 20);
        let closer = Closer::new("dialogue", all.account(10)).expect("a thread");
        let asked = thread.spawn(move |waiter| {
            let limit = after(Duration::from_secs(60));
            let mut dialogue = Dialogue::new(ours, &closer, waiter, limit)?;
            let stopped = dialogue.ask::<u64>(FrontendReq::GET_FEATURES, &[]);
            assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
            dialogue.enter(Phase::Stopping(after(Duration::from_millis(1))));
            dialogue.ask::<u64>(FrontendReq::GET_FEATURES, &[])
        });
        let mut backend = Connection::new(theirs).expect("a connection");
        backend.read_until(after(Duration::from_secs(60))).expect("the question");
        thread.waiter().stop();
        let farewell = thread.await_within(Duration::from_secs(60), &asked).expect("no panic");
        assert!(matches!(farewell, Err(Error::Silent { .. })), "{farewell:?}");
    }

    /// A backend without `REPLY_ACK` takes its time: requests with more descriptors than the port may have wait for it. One that
    /// takes none gets no more than that.
    #[test]
    fn descriptors_that_the_backend_has_not_taken_are_waited_for() {
        const LIMIT: u64 = 64;
        const MOST: u64 = linecard_wire::MAX_FDS as u64;
        for reads in [true, false] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let account = linecard_wire::ledger::Resource::new("descriptors", 1000).account(LIMIT);
            let closer = Closer::new("dialogue", account.clone()).expect("a thread");
            let thread = ControlThread::start("dialogue").expect("a thread");
            let asked = thread.spawn(move |waiter| {
                let mut dialogue = Dialogue::new(ours, &closer, waiter, after(Duration::from_secs(60)))?;
                dialogue.awake = true;
                dialogue.enter(Phase::Starting(after(Duration::from_secs(60))));
                let (_reader, writer) = std::io::pipe().expect("a pipe");
                (0..3 * LIMIT)
                    .try_for_each(|_| dialogue.tell(FrontendReq::SET_VRING_KICK, &[0; 8], &[writer.as_fd()]))
            });
            let mut backend = Connection::new(theirs).expect("a connection");
            linecard_lab::wait_until("no more room", || account.used() + MOST > LIMIT);
            if reads {
                for _ in 0..3 * LIMIT {
                    let message = backend.read_until(after(Duration::from_secs(60))).expect("a request");
                    assert_eq!(message.fds.len(), 1);
                    assert!(account.used() <= LIMIT);
                }
            }
            let told = thread.await_within(Duration::from_secs(60), &asked).expect("no panic");
            match told {
                Ok(()) => assert!(reads),
                Err(error) => assert!(!reads && matches!(error, Error::Silent { .. }), "{error}"),
            }
            assert!(account.used() <= LIMIT);
        }
    }
}
