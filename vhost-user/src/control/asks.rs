//! Requests of other threads about single rings of a port. They go through the port's thread, because only it
//! may close a gate.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};
use linecard_eal::eventfd::EventFd;

use super::{Command, PATIENCE};
use crate::error::Error;

/// A request about a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Returns the number of packets that wait in the ring.
    Waiting,
    /// Returns when the ring has been started or stopped as the user requested.
    Settled,
}

/// A request about one ring, by ring index.
pub(super) struct RingAsk {
    pub(super) ring: usize,
    pub(super) question: Question,
    pub(super) told: Sender<u16>,
    /// The requester stops waiting at this time.
    pub(super) until: Instant,
}

/// The request channel to a port's thread, which may outlive the thread.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<EventFd>,
}

impl Asker {
    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Busy`]: a burst does not end, or the frontend blocks the port's thread.
    /// [`Error::ControlEnded`].
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
