//! One backend's socket, its one connection, and its queues' gates.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::gate::{Controller, close_all, gate};
use linecard_wire::socket::{self, Listener};
use linecard_wire::{Closer, Connection, Message, OutMessage};

use super::budget::Budget;
use super::epoll::{Epoll, Interest, hung_up};
use crate::peer::{Peer, tell};
use crate::session::{Session, Slots, Terms, Verdict, touches_rings};
use crate::slot::Slot;

/// A message must be whole this long after its first byte.
const MESSAGE_TIME: Duration = Duration::from_secs(1);
/// The first message must come this long after the connection.
const FIRST_MESSAGE_TIME: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const CONNECT_INTERVAL: Duration = Duration::from_millis(100);
/// How soon to look again at a gate whose poller was inside.
const GATE_INTERVAL: Duration = Duration::from_millis(1);
/// Looks at a gate before giving way to other endpoints.
const GATE_LOOKS: u32 = 64;
/// Messages of one peer carried out before others get their turn.
const MESSAGES_PER_TURN: usize = 32;
/// Connections accepted or turned away in one turn.
const ACCEPTS_PER_TURN: usize = 8;
/// Descriptors of a port's peers that may wait to be closed, because that takes as long as they like; with more, nobody is
/// accepted. One connection can add what two messages carry.
const MAX_UNCLOSED: usize = 64;
/// How long nobody is accepted after that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(super) enum Source {
    Listen(Listener),
    /// With the error of the last attempt that was told.
    Connect {
        path: PathBuf,
        next: Instant,
        told: Option<ErrorKind>,
    },
}

/// A connected peer.
struct Link {
    connection: Connection,
    session: Session,
    interest: Interest,
    /// A message that waits for the gates, or for the next time that they may be closed.
    waiting: Option<Message>,
    /// Until when the first message must come.
    first: Option<Instant>,
    /// Why the connection is to end; ending needs the gates.
    ending: Option<String>,
    /// It ends because somebody left, not because of what the peer did.
    leaving: bool,
}

/// One backend as the control thread keeps it.
pub(super) struct Endpoint {
    pub(super) id: u64,
    pub(super) source: Source,
    pub(super) terms: Terms,
    pub(super) watched: bool,
    pub(super) peer: Arc<Peer>,
    pub(super) gates: Vec<Controller<Slot>>,
    /// New gates that replace old ones: a port started anew.
    pub(super) arriving: VecDeque<(usize, Controller<Slot>)>,
    closings: Budget,
    /// Of this port's peers alone.
    closer: Closer,
    /// Accepting failed: the socket is not watched before.
    paused: Option<Instant>,
    link: Option<Link>,
    /// Came while its predecessor's rings were being ended.
    successor: Option<Connection>,
}

/// Tokens of an endpoint: twice its id for the socket it listens on, one more for its connection.
pub(super) fn socket_token(id: u64) -> u64 {
    id << 1
}

fn connection_token(id: u64) -> u64 {
    id << 1 | 1
}

/// The endpoint a token belongs to, and whether it is the connection's.
pub(super) fn owner_of(token: u64) -> (u64, bool) {
    (token >> 1, token & 1 == 1)
}

impl Endpoint {
    pub(super) fn new(id: u64, source: Source, terms: Terms, watched: bool, peer: Arc<Peer>) -> Self {
        let gates =
            (0..u32::from(terms.queue_pairs) * 2).map(|_| gate(Slot::new(Arc::clone(&peer))).1).collect();
        Self {
            id,
            source,
            terms,
            watched,
            peer,
            gates,
            arriving: VecDeque::new(),
            closings: Budget::full(Instant::now()),
            closer: Closer::default(),
            paused: None,
            link: None,
            successor: None,
        }
    }

    /// When [`Endpoint::tick`] must come at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.link_deadline(), self.paused].into_iter().flatten().min()
    }

    fn link_deadline(&self) -> Option<Instant> {
        let soon = || Instant::now() + GATE_INTERVAL;
        let Some(link) = &self.link else {
            let connect = match &self.source {
                Source::Connect { next, .. } => Some(*next),
                Source::Listen(_) => None,
            };
            return if self.arriving.is_empty() { connect } else { Some(soon()) };
        };
        if link.waiting.is_some() || link.ending.is_some() || !self.arriving.is_empty() {
            return Some(soon());
        }
        let message = link.connection.partial_since().map(|since| since + MESSAGE_TIME);
        [message, link.first].into_iter().flatten().min()
    }

    /// Does what time has brought: connects, ends what is late or quarantined, goes on with what waited.
    pub(super) fn tick(&mut self, epoll: &Epoll) {
        let now = Instant::now();
        if let Some(link) = &mut self.link {
            let late = link.connection.partial_since().is_some_and(|since| now >= since + MESSAGE_TIME);
            if late {
                link.end("a message did not come whole within 1 s");
            } else if link.first.is_some_and(|first| now >= first) {
                link.end("no message came within 10 s");
            } else if link.session.quarantined() {
                link.end("the peer took shared memory away");
            }
            self.progress(epoll);
        } else {
            self.settle();
        }
        self.connect_if_due(epoll);
        if self.paused.is_some_and(|until| now >= until) {
            self.watch_socket(epoll, Interest::Read);
        }
    }

    fn connect_if_due(&mut self, epoll: &Epoll) {
        let Source::Connect { path, next, told } = &mut self.source else { return };
        if self.link.is_some() || Instant::now() < *next {
            return;
        }
        if self.closer.waiting() > MAX_UNCLOSED {
            *next = Instant::now() + CONNECT_INTERVAL;
            return;
        }
        *next = Instant::now() + CONNECT_INTERVAL;
        let connection = match socket::connect(path) {
            Ok(stream) => Connection::of(stream, &self.closer).ok(),
            Err(error) => {
                // Tried ten times a second; told when it is another reason than the last time.
                if told.replace(error.kind()) != Some(error.kind()) {
                    let path = path.display();
                    tell!(self.peer, warn, "not connected to {path}: {error}; trying on");
                }
                None
            }
        };
        if let Some(connection) = connection {
            *told = None;
            self.adopt(connection, epoll);
        }
    }

    /// Takes connections off the listening socket; while a peer is there, others are turned away.
    pub(super) fn accept(&mut self, epoll: &Epoll) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Source::Listen(listener) = &self.source else { return };
            if self.closer.waiting() > MAX_UNCLOSED {
                tell!(
                    self.peer,
                    warn,
                    "nobody is accepted until what frontends sent is closed; see what they send"
                );
                return self.watch_socket(epoll, Interest::None);
            }
            let stream = match listener.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                // No descriptors or no memory left. The socket stays ready: to watch it on would be to spin.
                Err(error) => {
                    tell!(self.peer, warn, %error, "a frontend cannot be accepted; trying again");
                    return self.watch_socket(epoll, Interest::None);
                }
            };
            // Also one that is turned away: what it sent may take its time to close.
            let Ok(connection) = Connection::of(stream, &self.closer) else { continue };
            self.make_room(epoll);
            match &self.link {
                None => self.adopt(connection, epoll),
                Some(link) if link.ending.is_some() => self.successor = Some(connection),
                Some(_) => tell!(self.peer, warn, "a second frontend was turned away"),
            }
        }
    }

    /// Waits for connections, or does not for a while.
    fn watch_socket(&mut self, epoll: &Epoll, want: Interest) {
        let Source::Listen(listener) = &self.source else { return };
        let now = if want == Interest::None { Interest::Read } else { Interest::None };
        let done = epoll.change(listener.as_fd(), socket_token(self.id), now, want).is_ok();
        let resting = done == (want == Interest::None);
        self.paused = resting.then(|| Instant::now() + ACCEPT_PAUSE);
    }

    /// Ends a connection whose other end is closed, whatever it may have said last.
    fn make_room(&mut self, epoll: &Epoll) {
        let Some(link) = &mut self.link else { return };
        if hung_up(link.connection.as_fd()) {
            link.leave("the peer closed the connection");
            self.end_link(epoll);
        }
    }

    fn adopt(&mut self, connection: Connection, epoll: &Epoll) {
        let token = connection_token(self.id);
        if let Err(error) = epoll.change(connection.as_fd(), token, Interest::None, Interest::Read) {
            tell!(self.peer, warn, %error, "a frontend could not be watched");
            return;
        }
        self.peer.set_connected();
        tell!(self.peer, info, "frontend connected");
        self.link = Some(Link {
            connection,
            session: Session::new(self.terms, Arc::clone(&self.peer), self.watched),
            interest: Interest::Read,
            waiting: None,
            first: Some(Instant::now() + FIRST_MESSAGE_TIME),
            ending: None,
            leaving: false,
        });
    }

    /// Reads and carries out messages, until there is none, it is others' turn, or a gate is busy.
    pub(super) fn progress(&mut self, epoll: &Epoll) {
        if self.settle() {
            self.take_turn();
        }
        self.end_link(epoll);
        let settled = self.arriving.is_empty();
        if let Some(link) = &mut self.link {
            link.update_interest(epoll, connection_token(self.id), settled);
        }
    }

    /// The gates stay closed from the first message that needs them until one is answered, or the turn is over: one
    /// fence for all of them, and what was answered is true for the polling threads.
    fn take_turn(&mut self) {
        let mut held = false;
        for _ in 0..MESSAGES_PER_TURN {
            let Some(link) = &mut self.link else { break };
            let Some(message) = link.next() else { break };
            if touches_rings(message.request) && !held {
                held = self.closings.allows(Instant::now()) && hold(&mut self.gates);
                if !held {
                    link.waiting = Some(message);
                    break;
                }
                self.closings.spend();
            }
            let verdict = link.carry_out(message, &mut Slots(&mut self.gates));
            if held && !matches!(verdict, (_, Verdict::Silent)) {
                self.gates.iter_mut().for_each(Controller::open);
                held = false;
            }
            link.answer(verdict);
        }
        if held {
            self.gates.iter_mut().for_each(Controller::open);
        }
    }

    /// Ends the connection if that is due and the gates allow it.
    fn end_link(&mut self, epoll: &Epoll) {
        let Some(link) = &mut self.link else { return };
        let Some(reason) = &link.ending else { return };
        if !self.closings.allows(Instant::now()) || !hold(&mut self.gates) {
            return;
        }
        self.closings.spend();
        link.session.end(&mut Slots(&mut self.gates));
        self.gates.iter_mut().for_each(Controller::open);
        // What an operator has to know without asking for more: why a peer was dropped.
        if link.leaving {
            tell!(self.peer, info, reason, "frontend disconnected");
        } else {
            tell!(self.peer, warn, reason, "frontend disconnected");
        }
        let _ =
            epoll.change(link.connection.as_fd(), connection_token(self.id), link.interest, Interest::None);
        self.link = None;
        self.peer.set_disconnected();
        if let Source::Connect { next, .. } = &mut self.source {
            *next = Instant::now() + CONNECT_INTERVAL;
        }
        if let Some(connection) = self.successor.take() {
            self.adopt(connection, epoll);
        }
    }

    /// Moves slots into the gates of a port that was started anew; false when a gate was busy.
    fn settle(&mut self) -> bool {
        while let Some((index, arriving)) = self.arriving.front_mut() {
            let Some(present) = self.gates.get_mut(*index) else {
                self.arriving.pop_front();
                continue;
            };
            if !hold_all([&mut *present, &mut *arriving]) {
                return false;
            }
            if let (Some(old), Some(new)) = (present.value(), arriving.value()) {
                std::mem::swap(old, new);
            }
            // The old gate stays closed: whoever still polls it finds nothing.
            std::mem::swap(present, arriving);
            present.open();
            self.arriving.pop_front();
        }
        true
    }

    /// Ends everything, waiting for busy gates at most `patience`.
    ///
    /// A poller that is stuck inside a burst keeps its ring, and with it the memory it works on, until it
    /// comes out; then it finds its gate closed.
    pub(super) fn shut_down(mut self, epoll: &Epoll, patience: Duration) {
        let until = Instant::now() + patience;
        if let Some(link) = &mut self.link {
            link.leave("the port was closed");
        }
        while self.link.is_some() && Instant::now() < until {
            self.end_link(epoll);
        }
        self.unwatch(epoll);
    }

    /// Waits for nothing of it any more. Its descriptors may stay open for a while, and the epoll would know them on.
    pub(super) fn unwatch(&mut self, epoll: &Epoll) {
        if self.paused.is_none() {
            self.watch_socket(epoll, Interest::None);
        }
        if let Some(link) = &self.link {
            let token = connection_token(self.id);
            let _ = epoll.change(link.connection.as_fd(), token, link.interest, Interest::None);
        }
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Listen(listener) => Some(listener.as_fd()),
            Source::Connect { .. } => None,
        }
    }
}

impl Link {
    fn end(&mut self, reason: impl Into<String>) {
        self.ending.get_or_insert_with(|| reason.into());
    }

    /// As [`end`](Self::end), when somebody left.
    fn leave(&mut self, reason: impl Into<String>) {
        self.leaving |= self.ending.is_none();
        self.end(reason);
    }

    /// The next message to carry out.
    fn next(&mut self) -> Option<Message> {
        if self.ending.is_some() {
            return None;
        }
        if let Some(message) = self.waiting.take() {
            return Some(message);
        }
        match self.connection.flush().and_then(|_| self.connection.read()) {
            Ok(message) => message,
            Err(error) if error.is_peer_gone() => {
                self.leave(error.to_string());
                None
            }
            Err(error) => {
                self.end(error.to_string());
                None
            }
        }
    }

    /// Lets the session carry out `message`; returns the request code with the verdict.
    fn carry_out(&mut self, message: Message, slots: &mut Slots<'_>) -> (u32, Verdict) {
        self.first = None;
        let request = message.request;
        (request, self.session.respond(message, slots))
    }

    fn answer(&mut self, (request, verdict): (u32, Verdict)) {
        match verdict {
            Verdict::Silent => {}
            Verdict::Reply(payload) => {
                if let Err(error) = self.connection.send(&OutMessage::reply(request, &payload)) {
                    self.end(error.to_string());
                }
            }
            Verdict::Close(refusal) => self.end(refusal.to_string()),
        }
    }

    fn update_interest(&mut self, epoll: &Epoll, token: u64, settled: bool) {
        let want = match () {
            // Looked at again by time; being told of more bytes meanwhile would only spin.
            () if !settled || self.waiting.is_some() || self.ending.is_some() => Interest::None,
            () if self.connection.wants_write() => Interest::ReadWrite,
            () => Interest::Read,
        };
        match epoll.change(self.connection.as_fd(), token, self.interest, want) {
            Ok(()) => self.interest = want,
            Err(error) => self.end(format!("waiting for the frontend failed: {error}")),
        }
    }
}

/// Takes all gates, looking a few times; false when a poller is still inside.
fn hold(gates: &mut [Controller<Slot>]) -> bool {
    hold_all(gates.iter_mut().collect::<Vec<_>>())
}

fn hold_all<'a>(gates: impl IntoIterator<Item = &'a mut Controller<Slot>>) -> bool {
    let mut gates: Vec<_> = gates.into_iter().collect();
    for _ in 0..GATE_LOOKS {
        if close_all(gates.iter_mut().map(|gate| &mut **gate)) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}
