//! The steps of a hand-over, requested from a port's thread, and their outcomes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};

use linecard_pmd::handover::Keep;

use super::PATIENCE;
use crate::error::Error;
use crate::handover::HandOver;
use crate::session::snapshot::Snapshot;

/// A step of a hand-over; see [`endpoint`](super::endpoint).
#[derive(Debug)]
pub(crate) enum Step {
    /// Stores the port's state in this place from now on.
    KeepIn(Arc<dyn Keep>),
    Hold,
    /// Waits until the predecessor's state is prepared, and new gates have replaced the old ones.
    Settle,
    /// Builds the rings at the positions in the predecessor's final state, or, without one, at those that the
    /// rings and their records show.
    Begin(Option<Box<Snapshot>>),
    /// Gives up the predecessor's frontend, which has to connect again.
    Forsake,
    Resume,
    Release,
}

/// A step requested by another thread.
pub(super) struct Asked {
    pub(super) step: Step,
    pub(super) outcome: Sender<Result<HandOver, Error>>,
    pub(super) until: Instant,
    /// Set by whichever comes first: the port's thread, to carry it out, or the requester, to give up.
    claimed: AtomicBool,
}

impl Asked {
    /// Creates a request: one part for the port's thread, one for the requester.
    pub(super) fn new(step: Step) -> (Arc<Self>, Asking) {
        let (outcome, told) = bounded(1);
        let claimed = AtomicBool::new(false);
        let asked = Arc::new(Self { step, outcome, until: Instant::now() + PATIENCE, claimed });
        (Arc::clone(&asked), Asking { asked, told })
    }

    /// Claims the step for the port's thread. Returns false if the requester has given up; afterwards it
    /// cannot.
    pub(super) fn is_claimed_by_now(&self) -> bool {
        !self.claimed.swap(true, AcqRel)
    }

    /// Returns a claimed step that is not possible yet, so that the requester may give up again.
    pub(super) fn give_back(&self) {
        self.claimed.store(false, Release);
    }
}

/// A step in progress, for its requester.
pub(crate) struct Asking {
    asked: Arc<Asked>,
    told: Receiver<Result<HandOver, Error>>,
}

impl Asking {
    /// Waits for the outcome of a step that does not touch the frontend's memory, for at most twice
    /// [`PATIENCE`] after it was requested.
    ///
    /// # Errors
    /// [`BUSY`], or the error of the step.
    pub(crate) fn outcome(self) -> Result<HandOver, Error> {
        match self.told.recv_deadline(self.asked.until + PATIENCE) {
            Ok(outcome) => outcome,
            // The thread is blocked by its frontend. When it continues, it finds the step claimed and ignores
            // it.
            Err(error) if error.is_timeout() && !self.asked.claimed.swap(true, AcqRel) => Err(BUSY),
            // The thread is performing the step, which does not block.
            Err(_) => self.told.recv().map_err(|_| Error::ControlEnded)?,
        }
    }

    /// As [`outcome`](Self::outcome), but waits only until `until`, even if the thread is performing the step: its
    /// frontend may block it there.
    ///
    /// # Errors
    /// [`BUSY`]: the step may still be performed, or not; the error of the step.
    pub(crate) fn outcome_by(self, until: Instant) -> Result<HandOver, Error> {
        match self.told.recv_deadline(until) {
            Ok(outcome) => outcome,
            Err(error) if error.is_timeout() => {
                self.asked.claimed.store(true, Release);
                Err(BUSY)
            }
            Err(_) => Err(Error::ControlEnded),
        }
    }
}

/// The error of a port that cannot be handed over at the moment.
pub(super) const BUSY: Error = Error::HandOver {
    reason: "its frontend is in the middle of a request, or a burst goes on",
    remedy: "try again",
};

/// Whether a hand-over failed because the frontend blocks the port, or because the port's thread has ended.
pub(crate) fn is_busy(error: &Error) -> bool {
    match (error, BUSY) {
        (Error::HandOver { reason, .. }, Error::HandOver { reason: busy, .. }) => *reason == busy,
        (Error::ControlEnded, _) => true,
        _ => false,
    }
}
