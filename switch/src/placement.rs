//! Which worker has each queue of a port, and how a queue goes from one to another.
//!
//! ```text
//!   control thread ── Move ──► worker A ── Given: the queue ──► worker B
//!                                 └ while it holds the placement, and writes there that B has it
//! ```
//! The queue goes straight from worker to worker: at any moment one of them has it, in its hands or in its mailbox, and the
//! placement says which. Who waits for that holds no lock, and who gives up waiting withdraws what was asked, so that a
//! worker that is late leaves everything where it is.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_pmd::TxQueue;
use linecard_pmd::stats::Counter;

use crate::forward::Engine;
use crate::lanes::Queue;
use crate::port::Egress;
use crate::worker::WorkerHandle;

/// Who has the queues of a port.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    /// Who polls each receive queue.
    pub(crate) rx: Vec<usize>,
    /// Who has a transmit queue; the one that got one last comes first.
    pub(crate) tx: Vec<usize>,
    /// Counts what was asked: only the last of it is done.
    asked: u64,
}

impl Placement {
    /// What was asked before is not done any more; the number of what is asked now.
    pub(crate) fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Whether anything was asked so far.
    #[cfg(test)]
    pub(crate) fn is_asked(&self) -> bool {
        self.asked > 0
    }

    /// A receive queue went to worker `to`, with the transmit queue of the one that had it or `without`.
    fn moved(&mut self, queue: usize, to: usize, with_tx: bool) {
        let Some(place) = self.rx.get_mut(queue) else { return };
        let from = std::mem::replace(place, to);
        if with_tx {
            self.tx.retain(|worker| *worker != from);
            self.tx.insert(0, to);
        }
    }
}

/// The queues of an open port. Its workers share where they are.
#[derive(Debug)]
pub(crate) struct Queues {
    placement: Arc<Mutex<Placement>>,
    /// Frames that came from each receive queue.
    packets: Vec<Arc<Counter>>,
}

impl Queues {
    pub(crate) fn new(placement: Placement, packets: Vec<Arc<Counter>>) -> Self {
        Self { placement: Arc::new(Mutex::new(placement)), packets }
    }

    /// How many receive queues there are.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Held for moments only, by whoever holds it.
    pub(crate) fn placement(&self) -> MutexGuard<'_, Placement> {
        lock(&self.placement)
    }

    /// Who polls each receive queue, now.
    pub(crate) fn workers(&self) -> Vec<usize> {
        self.placement().rx.clone()
    }

    pub(crate) fn packets(&self) -> impl Iterator<Item = &Counter> {
        self.packets.iter().map(|packets| &**packets)
    }

    /// Nothing that was asked before is done from here on.
    pub(crate) fn withdraw(&self) {
        self.placement().ask();
    }

    /// Whether the port of these queues is still the one that a queue was moved of.
    pub(crate) fn are(&self, placement: &Arc<Mutex<Placement>>) -> bool {
        Arc::ptr_eq(&self.placement, placement)
    }

    pub(crate) fn share(&self) -> Arc<Mutex<Placement>> {
        Arc::clone(&self.placement)
    }
}

/// Whoever panicked while it was held had not changed half of it.
pub(crate) fn lock(placement: &Mutex<Placement>) -> MutexGuard<'_, Placement> {
    placement.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A receive queue that a worker is given, with the transmit queue of the worker that had it if that has no more use for it.
pub(crate) struct Given {
    pub(crate) port: u16,
    pub(crate) queue: Queue,
    pub(crate) tx: Option<Box<dyn TxQueue>>,
}

/// One receive queue of a port goes to another worker: told to the one that has it.
pub(crate) struct Move {
    pub(crate) port: u16,
    /// The queue's number.
    pub(crate) queue: u16,
    /// The other worker's number.
    pub(crate) to: usize,
    pub(crate) handle: WorkerHandle,
    pub(crate) placement: Arc<Mutex<Placement>>,
    /// What [`Placement::ask`] gave for this.
    pub(crate) asked: u64,
    /// Told when it is done: whether a transmit queue went along.
    pub(crate) tell: Sender<bool>,
}

impl Move {
    /// Has `worker` give the queue away, unless that is not wanted any more.
    pub(crate) fn carry_out(self, worker: &mut impl Holder) {
        let mut placement = lock(&self.placement);
        if placement.asked != self.asked {
            return;
        }
        let keeps_tx = placement.tx.contains(&self.to);
        let Some(given) = worker.let_go(self.port, self.queue, self.to, keeps_tx) else { return };
        let with_tx = given.tx.is_some();
        match self.handle.give(given) {
            Ok(()) => {
                placement.moved(self.queue.into(), self.to, with_tx);
                // The requester may have given up just now; it sees that this was done.
                let _ = self.tell.send(with_tx);
            }
            // That worker has ended.
            Err(given) => worker.take_up(given),
        }
    }
}

/// A worker that has queues.
pub(crate) trait Holder {
    /// Lets go of a receive queue, for worker `to`; `None` when it has none of that number. Unless it `keeps_tx` the transmit queue of
    /// the port goes along if that was the last receive queue here.
    fn let_go(&mut self, port: u16, queue: u16, to: usize, keeps_tx: bool) -> Option<Given>;
    /// Has what it is given.
    fn take_up(&mut self, given: Given);
}

impl Engine {
    /// Lets go of the transmit queue of a port, if it is here: frames to the port go by worker `to` from here on.
    pub(crate) fn give_away(&mut self, port: u16, to: usize) -> Option<Box<dyn TxQueue>> {
        self.flush_port(port);
        let worker_port = self.worker_port_mut(port)?;
        match std::mem::replace(&mut worker_port.egress, Egress::Through(to)) {
            Egress::Own(queue) => Some(queue),
            through @ Egress::Through(_) => {
                worker_port.egress = through;
                None
            }
        }
    }

    /// Sends to a port by this queue from here on.
    pub(crate) fn take_over(&mut self, port: u16, queue: Box<dyn TxQueue>) {
        if let Some(worker_port) = self.worker_port_mut(port) {
            worker_port.egress = Egress::Own(queue);
        }
    }

    /// `owners` have the transmit queues of a port: who sent by a worker that has none any more sends by the first of them.
    pub(crate) fn route(&mut self, port: u16, owners: &[usize]) {
        if let Some(worker_port) = self.worker_port_mut(port)
            && let Egress::Through(worker) = &mut worker_port.egress
            && !owners.contains(worker)
            && let Some(first) = owners.first()
        {
            *worker = *first;
        }
    }

    /// This worker receives nothing more from a port: what it took of the port's allowances is there for the others.
    pub(crate) fn rest(&mut self, port: u16) {
        if let Some(worker_port) = self.worker_port_mut(port) {
            worker_port.rest();
        }
    }
}
