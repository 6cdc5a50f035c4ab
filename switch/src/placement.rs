//! The worker of each queue of a port, and the move of a queue from one worker to another.
//!
//! ```text
//!   control thread ── Move ──► worker A ── Given: the queue ──► worker B
//!                                 └ holds the placement meanwhile, and records there that B has it
//! ```
//! The queue goes directly from worker to worker: at any moment one of them has it, in its lanes or in its
//! mailbox, and the placement says which. The requester holds no lock while it waits. If it gives up, it
//! withdraws the request, so that a late worker leaves everything unchanged.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_pmd::TxQueue;
use linecard_pmd::stats::Counter;

use crate::forward::Engine;
use crate::lanes::Queue;
use crate::port::Egress;
use crate::worker::WorkerHandle;

/// The workers that have the queues of a port.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    /// The worker of each receive queue.
    pub(crate) rx: Vec<usize>,
    /// The workers that have a transmit queue; the latest receiver comes first.
    pub(crate) tx: Vec<usize>,
    /// The number of requests; only the latest is carried out.
    asked: u64,
}

impl Placement {
    /// Withdraws earlier requests; returns the number of the new one.
    pub(crate) fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Returns whether anything has been requested.
    #[cfg(test)]
    pub(crate) fn is_asked(&self) -> bool {
        self.asked > 0
    }

    /// Records that a receive queue moved to worker `to`, with or without the transmit queue of its previous
    /// worker.
    fn moved(&mut self, queue: usize, to: usize, with_tx: bool) {
        let Some(place) = self.rx.get_mut(queue) else { return };
        let from = std::mem::replace(place, to);
        if with_tx {
            self.tx.retain(|worker| *worker != from);
            self.tx.insert(0, to);
        }
    }
}

/// The queues of an open port. The workers share the placement.
#[derive(Debug)]
pub(crate) struct Queues {
    placement: Arc<Mutex<Placement>>,
    /// The number of frames received from each receive queue.
    packets: Vec<Arc<Counter>>,
}

impl Queues {
    pub(crate) fn new(placement: Placement, packets: Vec<Arc<Counter>>) -> Self {
        Self { placement: Arc::new(Mutex::new(placement)), packets }
    }

    /// Returns the number of receive queues.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Locks the placement; every holder keeps it only briefly.
    pub(crate) fn placement(&self) -> MutexGuard<'_, Placement> {
        lock(&self.placement)
    }

    /// Returns the current worker of each receive queue.
    pub(crate) fn workers(&self) -> Vec<usize> {
        self.placement().rx.clone()
    }

    pub(crate) fn packets(&self) -> impl Iterator<Item = &Counter> {
        self.packets.iter().map(|packets| &**packets)
    }

    /// Withdraws all earlier requests.
    pub(crate) fn withdraw(&self) {
        self.placement().ask();
    }

    /// Returns whether the queues still belong to the opening of the port to which `placement` belonged.
    pub(crate) fn are(&self, placement: &Arc<Mutex<Placement>>) -> bool {
        Arc::ptr_eq(&self.placement, placement)
    }

    pub(crate) fn share(&self) -> Arc<Mutex<Placement>> {
        Arc::clone(&self.placement)
    }
}

/// A panic never leaves the placement half changed, so a poisoned lock is valid.
pub(crate) fn lock(placement: &Mutex<Placement>) -> MutexGuard<'_, Placement> {
    placement.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A receive queue for a worker, with the transmit queue of its previous worker if that needs it no longer.
pub(crate) struct Given {
    pub(crate) port: u16,
    pub(crate) queue: Queue,
    pub(crate) tx: Option<Box<dyn TxQueue>>,
}

/// The request to move one receive queue to another worker, sent to the worker that has it.
pub(crate) struct Move {
    pub(crate) port: u16,
    /// The number of the queue.
    pub(crate) queue: u16,
    /// The number of the receiving worker.
    pub(crate) to: usize,
    pub(crate) handle: WorkerHandle,
    pub(crate) placement: Arc<Mutex<Placement>>,
    /// The number that [`Placement::ask`] returned for this request.
    pub(crate) asked: u64,
    /// Notified on completion: whether a transmit queue moved too.
    pub(crate) tell: Sender<bool>,
}

impl Move {
    /// Lets `worker` give the queue away, unless the request has been withdrawn.
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
                // The requester may have given up just now; it finds out that the queue has moved.
                let _ = self.tell.send(with_tx);
            }
            // The receiving worker has ended.
            Err(given) => worker.take_up(given),
        }
    }
}

/// A worker that has queues.
pub(crate) trait Holder {
    /// Removes a receive queue for worker `to`; returns `None` if it is not here. If it was the last receive
    /// queue of the port here, and unless `keeps_tx`, the port's transmit queue goes with it.
    fn let_go(&mut self, port: u16, queue: u16, to: usize, keeps_tx: bool) -> Option<Given>;
    /// Adds the queue to this worker.
    fn take_up(&mut self, given: Given);
}

impl Engine {
    /// Releases the transmit queue of a port if this worker has it; frames to the port go through worker `to`
    /// from now on.
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

    /// Uses this queue to send to a port from now on.
    pub(crate) fn take_over(&mut self, port: u16, queue: Box<dyn TxQueue>) {
        if let Some(worker_port) = self.worker_port_mut(port) {
            worker_port.egress = Egress::Own(queue);
        }
    }

    /// `owners` have the transmit queues of a port: a worker that sent through one which has none any more
    /// now sends through the first.
    pub(crate) fn route(&mut self, port: u16, owners: &[usize]) {
        if let Some(worker_port) = self.worker_port_mut(port)
            && let Egress::Through(worker) = &mut worker_port.egress
            && !owners.contains(worker)
            && let Some(first) = owners.first()
        {
            *worker = *first;
        }
    }

    /// Called when this worker no longer receives from a port: returns unused tokens of the port's limits to
    /// the others.
    pub(crate) fn rest(&mut self, port: u16) {
        if let Some(worker_port) = self.worker_port_mut(port) {
            worker_port.rest();
        }
    }
}
