//! The control side of a started `net_vhost` port.

use std::sync::Arc;

use linecard_pmd::link::LinkEvents;
use linecard_pmd::local::LocalControl;
use linecard_pmd::{Error, Link, PortControl, QueueId};

use super::{RxLoss, TxLoss};
use crate::control::{Asker, Question};
use crate::peer::Peer;

/// The control interface of a `net_vhost` port, usable from any thread.
pub(super) struct VhostControl {
    pub(super) peer: Arc<Peer>,
    pub(super) asker: Asker,
    /// Its MTU applies until the frontend sets one.
    pub(super) local: LocalControl<RxLoss, TxLoss>,
}

impl PortControl for VhostControl {
    fn inner(&self) -> &dyn PortControl {
        &self.local
    }

    fn link(&self) -> Link {
        self.peer.shown_link()
    }

    fn link_events(&self) -> Option<&Arc<LinkEvents>> {
        Some(self.peer.link_events())
    }

    /// The frontend chooses the ring size.
    fn depth(&self, queue: QueueId) -> Option<u16> {
        self.peer.ring(ring_of(queue)).map(|ring| ring.size).filter(|_| self.local.check_queue(queue).is_ok())
    }

    /// A sent packet is in the frontend's ring at once, and how many of those the frontend has not read is
    /// unknown.
    fn used_descriptors(&self, queue: QueueId) -> Result<u16, Error> {
        self.local.check_queue(queue)?;
        match queue {
            QueueId::Receive(_) => self.ask(queue, Question::Waiting),
            QueueId::Transmit(_) => self.local.used_descriptors(queue),
        }
    }

    fn queue_started(&self, queue: QueueId) -> bool {
        self.local.check_queue(queue).is_ok() && !self.peer.is_stopped(ring_of(queue))
    }

    fn start_queue(&self, queue: QueueId) -> Result<(), Error> {
        self.turn(queue, false)
    }

    fn stop_queue(&self, queue: QueueId) -> Result<(), Error> {
        self.turn(queue, true)
    }

    fn mtu(&self) -> u16 {
        self.peer.mtu().unwrap_or(self.local.mtu())
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.local.xstats();
        all.extend(self.peer.counters().map(|(name, value)| (name.to_owned(), value)));
        all
    }

    fn features(&self) -> String {
        self.peer.features().to_string()
    }

    fn paths(&self) -> String {
        // Ring 1 is the first that the port receives from, ring 0 the first that it sends to.
        let path = |ring| self.peer.path(ring).unwrap_or("no ring");
        format!("rx {}, tx {}", path(1), path(0))
    }
}

impl VhostControl {
    fn ask(&self, queue: QueueId, question: Question) -> Result<u16, Error> {
        let answer = self.asker.ask(ring_of(queue), question);
        answer.map_err(|error| error.of_port(self.local.name()))
    }

    fn turn(&self, queue: QueueId, stopped: bool) -> Result<(), Error> {
        self.local.check_queue(queue)?;
        self.peer.set_stopped(ring_of(queue), stopped);
        self.ask(queue, Question::Settled).map(drop)
    }
}

/// The port receives on the ring on which the driver transmits.
pub(super) fn ring_of(queue: QueueId) -> usize {
    match queue {
        QueueId::Receive(pair) => usize::from(pair) * 2 + 1,
        QueueId::Transmit(pair) => usize::from(pair) * 2,
    }
}
