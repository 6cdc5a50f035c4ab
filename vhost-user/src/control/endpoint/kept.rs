//! State of a port that is stored outside its process, for a successor in case the process is killed.
//!
//! A request is taken off the socket before its effects can be stored. The stored state is therefore marked
//! invalid before the first byte is read, until everything is answered and stored. If the process is killed
//! in between, no successor can continue the connection: the frontend is disconnected and reconnects.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use linecard_pmd::handover::Keep;
use linecard_wire::Closer;

use super::handover::snapshot;
use super::{Endpoint, Link};
use crate::peer::{Peer, tell};
use crate::session::Left;

/// Jobs of the closing thread above which state is not stored: storing closes the descriptors stored before,
/// and the frontend that sent them can make closing slow.
const BACKLOG: usize = 2;

/// Descriptors that a place adds to those of a port.
const OWN_DESCRIPTORS: u64 = 1;

/// The place where a port's state is stored, and whether the stored state is current.
pub(super) struct Kept {
    place: Option<Arc<dyn Keep>>,
    peer: Arc<Peer>,
    /// Closes descriptors that were stored before, because a frontend may have sent them.
    closer: Closer,
    /// The number of descriptors in `place`.
    stored: u64,
    changed: bool,
    unsettled: bool,
    /// It has been logged that the state cannot be replaced, and it has not been replaced since.
    told: bool,
}

impl Kept {
    pub(super) fn new(peer: &Arc<Peer>, closer: &Closer) -> Self {
        let (peer, closer) = (Arc::clone(peer), closer.clone());
        Self { place: None, peer, closer, stored: 0, changed: false, unsettled: false, told: false }
    }

    /// Notes that the stored state is out of date.
    pub(super) fn change(&mut self) {
        self.changed = true;
    }

    /// Marks the stored state as invalid, before requests are read.
    pub(super) fn unsettle(&mut self) {
        if let Some(place) = self.place.as_ref().filter(|_| !self.unsettled) {
            match place.unsettle() {
                Ok(()) => self.unsettled = true,
                Err(error) => self.give_up(&error),
            }
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.place.is_some() && (self.changed || self.unsettled)
    }

    fn has_room(&self) -> bool {
        self.closer.waiting() <= BACKLOG
    }

    /// Replaces the stored state. Returns false if the port may not hold the descriptors stored before until they
    /// are closed; then the stored state remains, and is still invalid.
    fn keep(&mut self, state: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let Some(place) = &self.place else { return true };
        let charge = match self.closer.descriptors().charge(self.stored) {
            Ok(charge) => charge,
            Err(refusal) => {
                if !std::mem::replace(&mut self.told, true) {
                    tell!(self.peer, warn, %refusal, "the state of the port is not stored until there is room");
                }
                return false;
            }
        };
        self.told = false;
        match place.keep(state, fds) {
            Ok(earlier) => {
                self.closer.run(move || drop((earlier, charge)));
                self.stored = fds.len() as u64 + OWN_DESCRIPTORS;
                self.changed = false;
            }
            Err(error) => self.give_up(&error),
        }
        true
    }

    fn settle(&mut self) {
        let Some(place) = &self.place else { return };
        match place.settle() {
            Ok(()) => self.unsettled = false,
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tell!(
            self.peer,
            warn,
            %error,
            "the port cannot be kept: its frontend will have to connect again if this process is killed"
        );
        self.forget();
    }

    /// Removes the stored state, and stores nothing any more.
    pub(super) fn forget(&mut self) {
        if let Some(place) = self.place.take() {
            // Removed even if the port may not have so many: this happens once.
            let charge = self.closer.descriptors().charge(std::mem::take(&mut self.stored));
            let earlier = place.forget();
            self.closer.run(move || drop((earlier, charge)));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Endpoint {
    /// Stores the state in `place` from now on.
    pub(in crate::control) fn keep_in(&mut self, place: Arc<dyn Keep>) {
        self.kept.forget();
        (self.kept.place, self.kept.changed, self.kept.unsettled) = (Some(place), true, true);
        self.keep_up();
    }

    /// Stores changed state, if no request is in progress.
    pub(in crate::control) fn keep_up(&mut self) {
        if !self.kept.is_due() || !self.is_ours() || !self.link.as_mut().is_none_or(Link::is_between_requests)
        {
            return;
        }
        if self.kept.changed {
            if !self.kept.has_room() {
                return;
            }
            let mut fds = Left::default();
            match snapshot(&self.link, &self.source, &mut self.gates, &mut fds) {
                Ok(snapshot) => {
                    if !self.kept.keep(&snapshot.to_bytes(), &fds.0) {
                        return;
                    }
                }
                Err(error) => self.kept.give_up(&error),
            }
        }
        self.kept.settle();
    }
}
