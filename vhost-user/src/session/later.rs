//! Answers that become available later.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use super::request::Answer;
use crate::error::Refusal;
use crate::peer::Peer;

/// The outcome of a request.
pub(crate) type Outcome = Result<Answer, Refusal>;

/// A delayed answer. The port's closing thread computes it, or it waits until a poller leaves a ring.
#[derive(Debug)]
pub(crate) struct Pending {
    request: u32,
    outcome: Receiver<Outcome>,
}

/// The sending side of a delayed answer. Dropping it without an answer refuses the request.
pub(crate) struct Promise {
    /// `Some` until the promise is dropped.
    outcome: Option<Sender<Outcome>>,
    peer: Arc<Peer>,
}

impl Pending {
    /// Creates a delayed answer to `request` of `peer`, and the promise for it.
    pub(crate) fn new(request: u32, peer: &Arc<Peer>) -> (Promise, Self) {
        let (sender, outcome) = channel();
        (Promise { outcome: Some(sender), peer: Arc::clone(peer) }, Self { request, outcome })
    }

    /// The outcome if it is available, otherwise this value again. A dropped promise is a refusal.
    pub(super) fn look(self) -> Result<Outcome, Self> {
        match self.outcome.try_recv() {
            Ok(outcome) => Ok(outcome),
            Err(TryRecvError::Disconnected) => Ok(Err(Refusal::Abandoned { request: self.request })),
            Err(TryRecvError::Empty) => Err(self),
        }
    }
}

impl Promise {
    /// Delivers the outcome. It is discarded if the connection has ended.
    pub(crate) fn resolve(self, outcome: Outcome) {
        if let Some(sender) = &self.outcome {
            let _ = sender.send(outcome);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // The channel must be closed before the control thread looks.
        self.outcome = None;
        self.peer.wake_control();
    }
}
