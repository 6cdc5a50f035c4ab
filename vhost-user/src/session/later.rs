//! Answers that are not there yet.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use super::request::Answer;
use crate::error::Refusal;
use crate::peer::Peer;

/// How a request went.
pub(crate) type Outcome = Result<Answer, Refusal>;

/// An answer that somebody works on: the closing thread of the port, or whoever polls a ring and has to leave it first.
#[derive(Debug)]
pub(crate) struct Pending {
    request: u32,
    outcome: Receiver<Outcome>,
}

/// Who works on an answer gives it here; who drops this has refused.
pub(crate) struct Promise {
    /// There until the promise is kept or dropped.
    outcome: Option<Sender<Outcome>>,
    peer: Arc<Peer>,
}

impl Pending {
    /// A place for the answer to `request` of `peer`, and the promise of one.
    pub(crate) fn new(request: u32, peer: &Arc<Peer>) -> (Promise, Self) {
        let (sender, outcome) = channel();
        (Promise { outcome: Some(sender), peer: Arc::clone(peer) }, Self { request, outcome })
    }

    /// The outcome if it is there, else this again. A promise that was dropped is a refusal.
    pub(super) fn look(self) -> Result<Outcome, Self> {
        match self.outcome.try_recv() {
            Ok(outcome) => Ok(outcome),
            Err(TryRecvError::Disconnected) => Ok(Err(Refusal::Abandoned { request: self.request })),
            Err(TryRecvError::Empty) => Err(self),
        }
    }
}

impl Promise {
    /// Answers. Nobody listens any more where the connection has ended.
    pub(crate) fn resolve(self, outcome: Outcome) {
        if let Some(sender) = &self.outcome {
            let _ = sender.send(outcome);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // The channel has to be closed before the control thread looks.
        self.outcome = None;
        self.peer.wake_control();
    }
}
