//! What other threads ask of single rings of a port, and wait for: only the port's thread may take a gate.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};
use linecard_eal::eventfd::EventFd;

use super::{Command, PATIENCE};
use crate::error::Error;

/// What is asked of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How many packets wait in it.
    Waiting,
    /// That it does what the user wants of it: it is stopped or not.
    Settled,
}

/// A question about the ring of that number.
pub(super) struct RingAsk {
    pub(super) ring: usize,
    pub(super) question: Question,
    pub(super) told: Sender<u16>,
    /// Nobody waits any more from then on.
    pub(super) until: Instant,
}

/// The way to a port's thread, for as long as there is one.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<EventFd>,
}

impl Asker {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Busy`]: a burst does not end, or its frontend makes the port's thread wait. [`Error::ControlEnded`].
    pub(crate) fn ask(&self, ring: usize, question: Question) -> Result<u16, Error> {
        let (told, answer): (_, Receiver<u16>) = bounded(1);
        let ask = RingAsk { ring, question, told, until: Instant::now() + PATIENCE * 2 };
        self.commands.send(Command::Ask(ask)).map_err(|_| Error::ControlEnded)?;
        self.waker.signal();
        answer.recv_timeout(PATIENCE * 2).map_err(|error| match error.is_timeout() {
            true => Error::Busy,
            false => Error::ControlEnded,
        })
    }
}
