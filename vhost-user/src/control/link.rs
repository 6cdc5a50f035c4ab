//! A connected frontend: its connection, its session, and the message that waits for the gates.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use linecard_wire::{Connection, Message, OutMessage};

use super::epoll::{Epoll, Interest, hung_up};
use crate::session::{Session, Slots, Verdict, Waiting};

/// The time that descriptors may take to close before that counts against the frontend that sent them.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// The time within which a frontend must have taken its answers, once they fill its socket. No request is read
/// meanwhile.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connected peer.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) session: Session,
    pub(super) interest: Interest,
    /// A message that waits until the gates may be closed and are closed.
    pub(super) waiting: Option<Message>,
    /// A request without an answer yet. No message is read before it is answered.
    pub(super) unanswered: Option<Waiting>,
    /// The deadline for the first message.
    pub(super) first: Option<Instant>,
    /// The time since which so many descriptors have waited to be closed that the next message might exceed
    /// the limit.
    pub(super) crowded: Option<Instant>,
    /// The time since which answers have waited because the frontend does not read.
    pub(super) unread: Option<Instant>,
    /// The reason for which the connection will end. Ending it needs closed gates.
    pub(super) ending: Option<String>,
    /// The connection ends because one side closed it, not because of a failure or violation.
    pub(super) leaving: bool,
}

impl Link {
    pub(super) fn end(&mut self, reason: impl Into<String>) {
        self.ending.get_or_insert_with(|| reason.into());
    }

    /// As [`end`](Self::end), if one side closed the connection.
    pub(super) fn leave(&mut self, reason: impl Into<String>) {
        self.leaving |= self.ending.is_none();
        self.end(reason);
    }

    /// The next message to process.
    pub(super) fn next(&mut self) -> Option<Message> {
        if self.ending.is_some() || !self.has_answered() {
            return None;
        }
        if let Some(message) = self.waiting.take() {
            return Some(message);
        }
        if !self.has_sent_answers() || self.waits_for_room() {
            return None;
        }
        let read = self.connection.read();
        read.unwrap_or_else(|error| {
            self.fail(&error);
            None
        })
    }

    /// Ends the connection because of `error`.
    fn fail(&mut self, error: &linecard_wire::Error) {
        if error.is_peer_gone() {
            self.leave(error.to_string());
        } else {
            self.end(error.to_string());
        }
    }

    /// Sends answers for which the socket had no room. Returns false if it has none yet: the next request is not
    /// read before its frontend has taken the answers to earlier ones.
    fn has_sent_answers(&mut self) -> bool {
        match self.connection.flush() {
            Ok(true) => {
                self.unread = None;
                return true;
            }
            Ok(false) => _ = self.unread.get_or_insert_with(Instant::now),
            Err(error) => self.fail(&error),
        }
        if hung_up(self.connection.as_fd()) {
            self.leave("the peer closed the connection");
        }
        false
    }

    /// The time at which the frontend is late in taking its answers.
    pub(super) fn answers_due(&self) -> Option<Instant> {
        self.unread.map(|since| since + ANSWER_TIME)
    }

    /// Whether reading must wait until descriptors of earlier messages are closed. Another thread closes
    /// them, and a well-behaved frontend may send faster than that. If they do not close within
    /// [`CLOSING_TIME`], reading continues, and the limit then ends the connection.
    fn waits_for_room(&mut self) -> bool {
        if !self.connection.lacks_room() {
            self.crowded = None;
            return false;
        }
        self.crowded.get_or_insert_with(Instant::now);
        if hung_up(self.connection.as_fd()) {
            self.leave("the peer closed the connection");
        }
        self.is_crowded()
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.is_some_and(|since| since.elapsed() < CLOSING_TIME)
    }

    /// Sends a delayed answer if it is available. Returns false if it is not.
    fn has_answered(&mut self) -> bool {
        let Some(waiting) = self.unanswered.take() else { return true };
        let request = waiting.request;
        let verdict = self.session.look(waiting);
        self.answer((request, verdict));
        if self.unanswered.is_none() {
            return self.ending.is_none();
        }
        if hung_up(self.connection.as_fd()) {
            self.leave("the peer closed the connection");
        } else if let Err(error) = self.connection.flush() {
            self.end(error.to_string());
        }
        false
    }

    /// Whether nothing is in transit in either direction, so that a successor may continue here.
    pub(super) fn is_between_requests(&mut self) -> bool {
        // Sends data for which the socket had no room before.
        let _ = self.connection.flush();
        self.waiting.is_none()
            && self.unanswered.is_none()
            && self.ending.is_none()
            && self.connection.is_idle()
            && self.session.channel_is_idle()
    }

    /// Whether the gates must be closed for `message`.
    pub(super) fn touches_rings(&self, message: &Message) -> bool {
        self.session.row(message.request).is_some_and(|row| row.touches_rings(&self.session, message))
    }

    /// Lets the session process `message`. Returns the request code with the verdict.
    pub(super) fn carry_out(&mut self, message: Message, slots: &mut Slots<'_>) -> (u32, Verdict) {
        self.first = None;
        let request = message.request;
        (request, self.session.respond(message, slots))
    }

    pub(super) fn answer(&mut self, (request, verdict): (u32, Verdict)) {
        match verdict {
            Verdict::Silent => {}
            Verdict::Reply(payload, fds) => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                let reply = OutMessage::reply(request, &payload).with_fds(&fds);
                if let Err(error) = self.connection.send(&reply) {
                    self.end(error.to_string());
                }
            }
            Verdict::Wait(waiting) => self.unanswered = Some(waiting),
            Verdict::Close(refusal) => self.end(refusal.to_string()),
        }
    }

    pub(super) fn update_interest(&mut self, epoll: &Epoll, token: u64, settled: bool) {
        let want = match () {
            // Polled by time; events for more data would only make the thread spin.
            () if !settled || self.waiting.is_some() || self.ending.is_some() => Interest::None,
            () if self.connection.wants_write() => Interest::Write,
            () if self.unanswered.is_some() || self.is_crowded() => Interest::End,
            () => Interest::Read,
        };
        match epoll.change(self.connection.as_fd(), token, self.interest, want) {
            Ok(()) => self.interest = want,
            Err(error) => self.end(format!("waiting for the frontend failed: {error}")),
        }
    }
}
