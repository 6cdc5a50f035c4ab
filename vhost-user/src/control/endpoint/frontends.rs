//! Connections to frontends: a listening backend accepts one at a time, a connecting backend reconnects.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_wire::Connection;
use linecard_wire::socket;

use super::{CONNECTION, Endpoint, SOCKET, Source};
use crate::control::epoll::{Epoll, Interest, hung_up};
use crate::control::link::Link;
use crate::peer::tell;
use crate::session::Session;

/// The interval between two attempts to connect.
pub(super) const CONNECT_INTERVAL: Duration = Duration::from_millis(100);
/// Connections accepted or refused before other work is checked.
const ACCEPTS_PER_TURN: usize = 8;
/// Descriptors that must be left of the port's limit to accept a frontend: its connection, and those of a
/// table of eight regions. The number is small so that it fits a port's share when there are many ports.
const ACCEPT_ROOM: u64 = 1 + 8;
/// The pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time within which the first message must arrive, from the connection.
const FIRST_MESSAGE_TIME: Duration = Duration::from_secs(10);

impl Endpoint {
    pub(super) fn connect_if_due(&mut self, epoll: &Epoll) {
        let Source::Connect { path, next, told } = &mut self.source else { return };
        if self.link.is_some() || Instant::now() < *next {
            return;
        }
        *next = Instant::now() + CONNECT_INTERVAL;
        if self.ledger.closer.descriptors().room() < ACCEPT_ROOM || !self.ledger.has_room() {
            return;
        }
        let wrap = |stream| Connection::of(stream, &self.ledger.closer).map_err(std::io::Error::other);
        let connection = match socket::connect(path).and_then(wrap) {
            Ok(connection) => Some(connection),
            Err(error) => {
                // There are ten attempts per second; a failure is logged if its reason differs from the last
                // one.
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

    /// Accepts connections from the listening socket. While a frontend is connected, others are refused.
    pub(in crate::control) fn accept(&mut self, epoll: &Epoll) {
        if !self.is_ours() {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let Source::Listen(listener) = &self.source else { return };
            if !self.may_accept() {
                return self.watch_socket(epoll, Interest::None);
            }
            let stream = match listener.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                // Descriptors or memory are exhausted. The socket stays ready, so watching it would make the
                // thread spin.
                Err(error) => {
                    tell!(self.peer, warn, %error, "a frontend cannot be accepted; trying again");
                    return self.watch_socket(epoll, Interest::None);
                }
            };
            // A refused connection is wrapped too: descriptors that it sent may take long to close.
            let Some(connection) = self.connection_of(stream) else { continue };
            self.make_room(epoll);
            match &self.link {
                None => self.adopt(connection, epoll),
                Some(link) if link.ending.is_some() => self.successor = Some(connection),
                Some(_) => tell!(self.peer, warn, "a second frontend was turned away"),
            }
        }
    }

    /// A connection of this port. Logs a reason if there can be none.
    pub(super) fn connection_of(&self, stream: UnixStream) -> Option<Connection> {
        let made = Connection::of(stream, &self.ledger.closer);
        made.map_err(|error| tell!(self.peer, warn, %error, "a frontend was turned away")).ok()
    }

    /// Whether another frontend would stay within the port's limits. Logs a reason if not.
    fn may_accept(&self) -> bool {
        let descriptors = self.ledger.closer.descriptors();
        if descriptors.room() < ACCEPT_ROOM {
            let held = descriptors.used();
            tell!(
                self.peer,
                warn,
                held,
                "no frontend is accepted: the port holds as many descriptors of earlier ones as it may (descriptors), until they can be closed; see what they send"
            );
        } else if !self.ledger.has_room() {
            let waiting = self.ledger.closer.waiting();
            tell!(
                self.peer,
                warn,
                waiting,
                "no frontend is accepted: as much as may wait to be closed or unmapped waits (closings); see what frontends send"
            );
        } else {
            return true;
        }
        false
    }

    /// Waits for connections, or stops waiting for a while.
    pub(super) fn watch_socket(&mut self, epoll: &Epoll, want: Interest) {
        let Source::Listen(listener) = &self.source else { return };
        let now = if want == Interest::None { Interest::Read } else { Interest::None };
        let done = epoll.change(listener.as_fd(), SOCKET, now, want).is_ok();
        let resting = done == (want == Interest::None);
        self.paused = resting.then(|| Instant::now() + ACCEPT_PAUSE);
    }

    /// Ends a connection that the peer has closed, even if unread data is left.
    fn make_room(&mut self, epoll: &Epoll) {
        let Some(link) = &mut self.link else { return };
        if hung_up(link.connection.as_fd()) {
            link.leave("the peer closed the connection");
            self.end_link(epoll);
        }
    }

    pub(super) fn adopt(&mut self, connection: Connection, epoll: &Epoll) {
        let token = CONNECTION;
        if let Err(error) = epoll.change(connection.as_fd(), token, Interest::None, Interest::Read) {
            tell!(self.peer, warn, %error, "a frontend could not be watched");
            return;
        }
        self.peer.set_connected();
        self.kept.change();
        tell!(self.peer, info, "frontend connected");
        self.link = Some(Link {
            connection,
            session: Session::new(self.terms, self.ledger.clone(), Arc::clone(&self.peer), self.watched),
            interest: Interest::Read,
            waiting: None,
            unanswered: None,
            crowded: None,
            unread: None,
            first: Some(Instant::now() + FIRST_MESSAGE_TIME),
            ending: None,
            leaving: false,
        });
    }
}
