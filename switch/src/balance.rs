//! The assignment of receive queues to workers: shown, and changed while frames pass.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Switch;
use crate::api::{Code, PortSpec, Problem, QueueInfo, QueueMove, WorkerInfo};
use crate::placement::{Move, Placement, lock};
use crate::switch::{Entry, Open, PATIENCE, no_port};
use crate::worker::{Command, WorkerHandle};

impl Switch {
    /// Returns every worker and the queues it polls.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let worker = |(id, lcore): (usize, &linecard_eal::Lcore)| WorkerInfo {
            id: u16::try_from(id).unwrap_or(u16::MAX),
            lcore: lcore.id.0,
            cores: lcore.cores.iter().map(|core| core.0).collect(),
            queues: Vec::new(),
        };
        let mut workers: Vec<_> = self.config.lcores.iter().enumerate().map(worker).collect();
        for entry in self.ports().values() {
            let Some(open) = &entry.open else { continue };
            for ((queue, worker), packets) in (0..).zip(open.queues.workers()).zip(open.queues.packets()) {
                if let Some(worker) = workers.get_mut(worker) {
                    let (port, rx_packets) = (entry.spec.key.clone(), packets.value());
                    worker.queues.push(QueueInfo { port, queue, rx_packets });
                }
            }
        }
        workers
    }

    /// Assigns a receive queue to another worker. The transmit queue of the previous worker goes with it, if
    /// that worker needs it no longer. No frame is lost; frames that came before may be overtaken by later
    /// ones. No other request waits meanwhile.
    ///
    /// # Errors
    /// There is no such port, queue or worker, or one of the two workers does not answer: then the queue
    /// stays with its worker.
    pub fn move_queue(&self, asked: &QueueMove) -> Result<(), Problem> {
        self.move_within(asked, PATIENCE)
    }

    fn move_within(&self, asked: &QueueMove, patience: Duration) -> Result<(), Problem> {
        let queue = usize::from(asked.queue);
        let from = self.place(&self.ports(), asked)?;
        let to = self.worker(asked.worker.into())?;
        if from != usize::from(asked.worker) {
            // A halted worker would leave frames unread in the queue.
            let (tell, told) = channel();
            to.tell(Command::Answer(tell));
            if told.recv_timeout(patience).is_err() {
                return Err(late(asked.worker.into(), asked));
            }
        }
        let Some((placement, told)) = self.ask(asked)? else { return Ok(()) };
        match told.recv_timeout(patience) {
            Ok(with_tx) => self.has_moved(asked, &placement, with_tx),
            Err(RecvTimeoutError::Disconnected) => return Err(overtaken(asked)),
            Err(RecvTimeoutError::Timeout) => {
                lock(&placement).ask();
                // The request is withdrawn now; the queue may have moved just before.
                match told.try_recv() {
                    Ok(with_tx) => self.has_moved(asked, &placement, with_tx),
                    Err(_) => {
                        return Err(late(lock(&placement).rx.get(queue).copied().unwrap_or_default(), asked));
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks the worker that has the queue to give it to the other one; returns `None` if the other one has it
    /// already.
    #[expect(clippy::type_complexity, reason = "what is waited for, and where that is written")]
    fn ask(&self, asked: &QueueMove) -> Result<Option<(Arc<Mutex<Placement>>, Receiver<bool>)>, Problem> {
        let ports = self.ports();
        self.place(&ports, asked)?;
        let Some((entry, open)) = find(&ports, asked) else { return Err(no_port(&asked.port)) };
        let (tell, told) = channel();
        let mut placement = open.queues.placement();
        let number = placement.ask();
        // From here on only the worker asked below moves the queue.
        let from = placement.rx.get(usize::from(asked.queue)).copied().unwrap_or_default();
        drop(placement);
        if from == usize::from(asked.worker) {
            return Ok(None);
        }
        let shared = open.queues.share();
        let asked = Move {
            port: entry.id,
            queue: asked.queue,
            to: asked.worker.into(),
            handle: self.worker(asked.worker.into())?.another(),
            placement: Arc::clone(&shared),
            asked: number,
            tell,
        };
        // The lock on the ports ensures that the worker gets this before it is told to close the port.
        self.worker(from)?.tell(Command::Move(asked));
        Ok(Some((shared, told)))
    }

    /// Records a completed move, and tells workers that sent through the previous owner of the transmit queue
    /// who has it now.
    fn has_moved(&self, asked: &QueueMove, placement: &Arc<Mutex<Placement>>, with_tx: bool) {
        let ports = self.ports();
        let Some((entry, open)) = find(&ports, asked) else { return };
        if !open.queues.are(placement) {
            return;
        }
        let placed = open.queues.placement();
        let workers = placed.rx.iter().map(|worker| u16::try_from(*worker).unwrap_or(u16::MAX)).collect();
        self.moved().insert(asked.port.clone(), workers);
        if with_tx {
            for (_, remote) in
                self.remotes.iter().enumerate().filter(|(worker, _)| !placed.tx.contains(worker))
            {
                remote.tell(Command::Route(entry.id, placed.tx.clone()));
            }
        }
    }

    /// Returns the workers of the receive queues of ports with a moved queue, by port key.
    #[must_use]
    pub fn moves(&self) -> BTreeMap<String, Vec<u16>> {
        self.moved().clone()
    }

    /// Restores assignments of an earlier process, for ports that are opened from now on.
    pub fn restore_moves(&self, moves: impl IntoIterator<Item = (String, Vec<u16>)>) {
        self.moved().extend(moves);
    }

    /// Forgets where the queues of a port were moved.
    pub(crate) fn forget_moves(&self, key: &str) -> Option<Vec<u16>> {
        self.moved().remove(key)
    }

    fn moved(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u16>>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workers that are to poll the receive queues of a port: those they were moved to, or those
    /// requested.
    pub(crate) fn wanted(&self, spec: &PortSpec) -> Vec<usize> {
        let moved = self.moved().get(&spec.key).cloned();
        let asked = || spec.workers.iter().copied().cycle().take(spec.queues.into()).collect();
        moved.unwrap_or_else(asked).into_iter().map(usize::from).collect()
    }

    /// Checks that the requested workers exist.
    pub(crate) fn check_workers(&self, spec: &PortSpec) -> Result<(), Problem> {
        let all = self.remotes.len();
        match spec.workers.iter().map(|worker| usize::from(*worker)).find(|worker| *worker >= all) {
            Some(worker) => Err(Problem { code: Code::InvalidParams, ..no_worker(worker, all) }),
            None => Ok(()),
        }
    }

    /// The current worker of the queue.
    fn place(&self, ports: &BTreeMap<String, Entry>, asked: &QueueMove) -> Result<usize, Problem> {
        let entry = ports.get(&asked.port).ok_or_else(|| no_port(&asked.port))?;
        let workers = entry.open.as_ref().map(|open| open.queues.workers()).unwrap_or_default();
        workers.get(usize::from(asked.queue)).copied().ok_or_else(|| {
            let message = format!(
                "port '{}' has no receive queue {}; it has {}",
                asked.port,
                asked.queue,
                workers.len()
            );
            Problem::new(Code::NotFound, message, "`workers` lists all queues")
        })
    }

    fn worker(&self, number: usize) -> Result<&WorkerHandle, Problem> {
        self.remotes.get(number).ok_or_else(|| no_worker(number, self.remotes.len()))
    }
}

fn no_worker(number: usize, workers: usize) -> Problem {
    let message = format!("there is no worker {number}; the last one is {}", workers.saturating_sub(1));
    Problem::new(Code::NotFound, message, "`workers` lists all")
}

fn find<'a>(ports: &'a BTreeMap<String, Entry>, asked: &QueueMove) -> Option<(&'a Entry, &'a Open)> {
    let entry = ports.get(&asked.port)?;
    Some((entry, entry.open.as_ref()?))
}

fn late(worker: usize, asked: &QueueMove) -> Problem {
    let message = format!(
        "worker {worker} does not answer, and receive queue {} of port '{}' stays where it is",
        asked.queue, asked.port
    );
    Problem::new(Code::Internal, message, "restart the switch, and report this")
}

fn overtaken(asked: &QueueMove) -> Problem {
    let message = format!(
        "receive queue {} of port '{}' was moved again, or went with its port, before this was done",
        asked.queue, asked.port
    );
    Problem::new(Code::Unavailable, message, "`workers` tells where it is")
}

#[cfg(test)]
mod tests;
