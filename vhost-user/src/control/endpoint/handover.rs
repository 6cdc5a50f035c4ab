//! The stages of a hand-over: the old process holds and freezes the port, the new one prepares and begins it.
//!
//! ```text
//!   predecessor   Ours ── hold ──► Held ── freeze ──► Frozen ── release ──► (ended, without a word to the frontend)
//!                  ▲                │                   │
//!                  └──── resume ────┴───────────────────┘
//!   successor     Prepared ── begin ──► Begun ── resume ──► Ours
//!                (Refused) ─ forsake ──►  (without a frontend, which connects again)
//! ```
//! Packets flow in `Ours` and `Held`. Requests are read in `Ours` only, and wait in the socket otherwise. A
//! successor that ends before it resumes closes duplicates of descriptors and has no other effect.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use linecard_eal::gate::Controller;
use linecard_wire::Connection;

use super::{Endpoint, Epoll, Interest, Link, Source, VringSlot, hold, open};
use crate::error::Error;
use crate::handover::HandOver;
use crate::peer::tell;
use crate::session::snapshot::Snapshot;
use crate::session::{Left, Slots, Taken};

/// Which process serves the port, and how far.
#[derive(Clone, Debug, Default)]
pub(super) enum Hands {
    /// This process moves its packets and answers its requests.
    #[default]
    Ours,
    /// This process moves its packets; requests are not read.
    Held,
    /// This process owns the port, but moves no packets and reads no requests: a successor may begin.
    Frozen,
    /// The predecessor still moves packets. The snapshot is the state in which it was held.
    Prepared(Snapshot),
    /// The predecessor still moves packets, and this process cannot: the reason, as a clause.
    Refused(String),
    /// The rings have been built in this process, which moves no packets yet: the predecessor may still
    /// resume.
    Begun,
}

/// The state and descriptors of a predecessor.
pub(in crate::control) type Predecessor<'a> = (&'a Snapshot, Taken<OwnedFd>);

impl Endpoint {
    /// Whether this process serves the frontend.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.hands, Hands::Ours)
    }

    /// Whether another process continues the port if this one ends now.
    pub(super) fn is_the_predecessors(&self) -> bool {
        matches!(self.hands, Hands::Prepared(_) | Hands::Refused(_) | Hands::Begun)
    }

    /// Whether new gates should replace old ones now.
    pub(super) fn may_settle(&self) -> bool {
        matches!(self.hands, Hands::Held | Hands::Prepared(_)) && !self.arriving.is_empty()
    }

    /// Stops reading requests, and returns the data with which a successor prepares. Returns `None` if that
    /// is not possible yet.
    ///
    /// # Errors
    /// [`Error::HandOver`]: waiting would not make it possible.
    pub(in crate::control) fn hold(&mut self, epoll: &Epoll) -> Option<Result<HandOver, Error>> {
        if !self.terms.hand_over {
            let reason = "it keeps no descriptors of its frontend's memory";
            return Some(Err(Error::HandOver { reason, remedy: "open it with hand_over set" }));
        }
        if !self.is_ours() {
            let reason = "it is being handed over already";
            return Some(Err(Error::HandOver { reason, remedy: "wait for that to end" }));
        }
        if !self.settle() || !self.link.as_mut().is_none_or(Link::is_between_requests) {
            return None;
        }
        let mut fds = Left::default();
        let snapshot = snapshot(&self.link, &self.source, &mut self.gates, &mut fds);
        let left = snapshot.and_then(|snapshot| Ok((snapshot, fds.duplicates()?)));
        Some(match left {
            Ok((snapshot, fds)) => {
                self.hands = Hands::Held;
                self.listen_to(epoll, false);
                self.watch_socket(epoll, Interest::None);
                self.paused = None;
                Ok(HandOver::new(snapshot.to_bytes(), fds))
            }
            Err(error) => {
                tell!(self.peer, warn, %error, "not handed over");
                let reason = "a descriptor cannot be duplicated";
                Err(Error::HandOver { reason, remedy: "check the limits of this process" })
            }
        })
    }

    /// Keeps the pollers out, and returns the final state of a held port. Returns `None` while a burst is in
    /// progress.
    ///
    /// # Errors
    /// The port is not held.
    pub(crate) fn freeze(&mut self) -> Option<Result<Vec<u8>, Error>> {
        if !matches!(self.hands, Hands::Held) {
            let reason = "it is not held";
            return Some(Err(Error::HandOver { reason, remedy: "hold it first" }));
        }
        if !self.settle() || !hold(&mut self.gates) {
            return None;
        }
        self.hands = Hands::Frozen;
        // This cannot fail, because no descriptor is duplicated.
        let snapshot = snapshot(&self.link, &self.source, &mut self.gates, &mut Left::default());
        Some(Ok(snapshot.unwrap_or_default().to_bytes()))
    }

    /// Opens the gates: packets flow again, or for the first time. Requests wait until
    /// [`resume`](Self::resume).
    pub(crate) fn let_in(&mut self) {
        open(&mut self.gates, &self.peer);
        if matches!(self.hands, Hands::Frozen) {
            self.hands = Hands::Held;
        }
    }

    /// Serves the frontend again, or for the first time.
    pub(in crate::control) fn resume(&mut self, epoll: &Epoll) {
        if self.is_ours() {
            return;
        }
        if self.is_the_predecessors()
            && let Source::Listen(listener) = &self.source
        {
            listener.keep_name();
        }
        self.hands = Hands::Ours;
        open(&mut self.gates, &self.peer);
        self.watch_socket(epoll, Interest::Read);
        self.listen_to(epoll, true);
    }

    /// Ends the rings and closes the sockets, without a message to the frontend: they belong to the
    /// successor.
    pub(in crate::control) fn release(&mut self) {
        self.kept.forget();
        if let Some(mut link) = self.link.take() {
            link.session.end(&mut Slots(&mut self.gates));
            link.session.leave_channel();
            // The connection is idle, otherwise `hold` would have failed. The successor's duplicate keeps it
            // open.
            drop(link.connection.into_socket());
            self.peer.set_disconnected();
        }
        if let Source::Listen(listener) = &self.source {
            listener.leave_name();
        }
        self.gates.iter_mut().for_each(Controller::open);
        tell!(self.peer, info, "handed over to a successor");
    }

    /// Prepares to continue a port that a predecessor still serves. If that fails, the port has no frontend
    /// here, and [`is_prepared`](Self::is_prepared) returns the reason.
    pub(in crate::control) fn prepare(&mut self, epoll: &Epoll, left: Predecessor<'_>) {
        self.hands = Hands::Prepared(left.0.clone());
        self.watch_socket(epoll, Interest::None);
        self.paused = None;
        if let Err(reason) = self.adopt_left(epoll, left) {
            self.listen_to(epoll, false);
            self.abandon();
            self.hands = Hands::Refused(reason);
        }
    }

    /// Whether the predecessor's state was prepared.
    ///
    /// # Errors
    /// [`Error::TakeOver`]: it could not be.
    pub(in crate::control) fn is_prepared(&self) -> Result<(), Error> {
        match &self.hands {
            Hands::Refused(reason) => Err(Error::TakeOver { reason: reason.clone() }),
            _ => Ok(()),
        }
    }

    fn adopt_left(&mut self, epoll: &Epoll, left: Predecessor<'_>) -> Result<(), String> {
        let (snapshot, mut fds) = left;
        let connection = fds.take(snapshot.session.connection).map_err(|refusal| refusal.to_string())?;
        let Some(connection) = connection else { return Ok(()) };
        let closer = self.ledger.closer.clone();
        let connection = Connection::of(connection.into(), &closer).map_err(|error| error.to_string())?;
        let mut fds = fds.try_map(|fd| closer.adopt(fd)).map_err(|error| error.to_string())?;
        self.adopt(connection, epoll);
        self.listen_to(epoll, false);
        let Some(link) = &mut self.link else { return Err("its connection cannot be watched".into()) };
        // The predecessor has had the first message, so there is no deadline for it.
        link.first = None;
        link.session.prepare(snapshot, &mut fds).map_err(|refusal| refusal.to_string())
    }

    /// Builds the rings at the positions in `frozen`, the final snapshot of the same port, or, without one,
    /// at the positions that the rings and their records show. Returns `None` if a poller is still inside.
    /// Pollers stay out until [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`Error::TakeOver`]; the predecessor still owns the port.
    pub(crate) fn begin(&mut self, frozen: Option<&Snapshot>) -> Option<Result<(), Error>> {
        let refused =
            |reason: &dyn std::fmt::Display| Some(Err(Error::TakeOver { reason: reason.to_string() }));
        if !self.settle() || !hold(&mut self.gates) {
            return None;
        }
        if let Err(error) = self.is_prepared() {
            return Some(Err(error));
        }
        let Hands::Prepared(before) = &self.hands else { return refused(&"it is not prepared") };
        let slots = &mut Slots(&mut self.gates);
        let begun = match (&mut self.link, frozen) {
            (Some(link), Some(frozen)) => link.session.start_rings(before, frozen, slots),
            (Some(link), None) => link.session.recover_rings(before, slots),
            (None, Some(frozen)) if before != frozen => return refused(&"it has changed while it was held"),
            (None, _) => Ok(()),
        };
        if let Err(refusal) = begun {
            return refused(&refusal);
        }
        self.hands = Hands::Begun;
        Some(Ok(()))
    }

    /// In a successor: gives up the frontend. Its connection closes when the predecessor releases it, too, and
    /// the port goes on without one, as if it had begun. Returns false while a poller is inside.
    pub(in crate::control) fn forsake(&mut self, epoll: &Epoll) -> bool {
        if !self.is_the_predecessors() {
            return true;
        }
        if !self.settle() || !hold(&mut self.gates) {
            return false;
        }
        for (ring, gate) in self.gates.iter_mut().enumerate() {
            if let Some(slot) = gate.value() {
                (slot.ring, slot.announce) = (None, None);
            }
            self.peer.set_kick(ring, None);
        }
        self.listen_to(epoll, false);
        self.abandon();
        self.peer.set_rings(false, vec![None; self.gates.len()]);
        self.hands = Hands::Begun;
        true
    }

    /// Aborts the hand-over on the successor's side. The predecessor continues, and nothing is sent to the
    /// frontend.
    pub(super) fn abandon(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.session.leave_channel();
            drop(link.connection.into_socket());
            self.peer.set_disconnected();
        }
    }
}

/// The state of a port between two requests, with the descriptors that belong to it.
///
/// # Errors
/// A region did not keep its descriptor.
pub(super) fn snapshot<'a>(
    link: &'a Option<Link>,
    source: &'a Source,
    gates: &mut [Controller<VringSlot>],
    fds: &mut Left<'a>,
) -> io::Result<Snapshot> {
    let mut snapshot = match link {
        Some(link) => link.session.leave(&mut Slots(gates), fds)?,
        None => Snapshot::default(),
    };
    if let Some(link) = link {
        snapshot.session.connection = fds.add(link.connection.as_fd());
    }
    if let Source::Listen(listener) = source {
        snapshot.session.listener = fds.add(listener.as_fd());
        snapshot.session.set_name(listener.name());
    }
    Ok(snapshot)
}
