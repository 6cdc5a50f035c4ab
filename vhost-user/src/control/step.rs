//! The steps of a hand-over that a port's thread is asked for, and who waits for their outcome.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};

use linecard_pmd::handover::Keep;

use super::PATIENCE;
use crate::error::Error;
use crate::handover::HandOver;

/// What is to be done for a hand-over; see [`endpoint`].
#[derive(Debug)]
pub(crate) enum Step {
    /// Is kept there from now on.
    KeepIn(Arc<dyn Keep>),
    Hold,
    /// New gates are in their places.
    Settle,
    Resume,
    Release,
}

/// A step that another thread asks for.
pub(super) struct Asked {
    pub(super) step: Step,
    pub(super) outcome: Sender<Result<HandOver, Error>>,
    pub(super) until: Instant,
    /// Set by whichever comes first: the port's thread, to carry it out, or the requester, to give up.
    claimed: AtomicBool,
}

impl Asked {
    /// One for the port's thread, and one for who asks.
    pub(super) fn new(step: Step) -> (Arc<Self>, Asking) {
        let (outcome, told) = bounded(1);
        let claimed = AtomicBool::new(false);
        let asked = Arc::new(Self { step, outcome, until: Instant::now() + PATIENCE, claimed });
        (Arc::clone(&asked), Asking { asked, told })
    }

    /// Claims the step for the port's thread; false if the requester has given up, which it no longer can afterwards.
    pub(super) fn is_claimed_by_now(&self) -> bool {
        !self.claimed.swap(true, AcqRel)
    }

    /// Returns a claimed step that cannot be carried out yet: the requester may give up again.
    pub(super) fn give_back(&self) {
        self.claimed.store(false, Release);
    }
}

/// A step that is being taken.
pub(crate) struct Asking {
    asked: Arc<Asked>,
    told: Receiver<Result<HandOver, Error>>,
}

impl Asking {
    /// The outcome.
    ///
    /// # Errors
    /// [`BUSY`], or the step's.
    pub(crate) fn outcome(self) -> Result<HandOver, Error> {
        match self.told.recv_timeout(PATIENCE * 2) {
            Ok(outcome) => outcome,
            // The thread waits for its frontend. It will find that nobody wants this any more.
            Err(error) if error.is_timeout() && !self.asked.claimed.swap(true, AcqRel) => Err(BUSY),
            // It has just begun, and waits for nobody.
            Err(_) => self.told.recv().map_err(|_| Error::ControlEnded)?,
        }
    }
}

/// Why a port is not handed over just now.
pub(super) const BUSY: Error = Error::HandOver {
    reason: "its frontend is in the middle of a request, or a burst goes on",
    remedy: "try again",
};

/// Whether a port was not handed over because its frontend makes it wait, or it ended by a fault of ours.
pub(crate) fn is_busy(error: &Error) -> bool {
    match (error, BUSY) {
        (Error::HandOver { reason, .. }, Error::HandOver { reason: busy, .. }) => *reason == busy,
        (Error::ControlEnded, _) => true,
        _ => false,
    }
}
